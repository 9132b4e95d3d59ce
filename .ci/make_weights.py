"""Make the bundled models: train each by its recipe, choose its average and how it samples, judge it, and write its card.

    python .ci/make_weights.py --data flowers.parquet                  all of it
    python .ci/make_weights.py --data flowers.parquet --stages train   a part of it: train, choose, judge
    python .ci/make_weights.py --data drawn:300 --quick                the whole way in miniature, with tiny networks

Stopped, and started again, it goes on where it was: training at its last state, the rest at what is not yet in --out.
Whatever is chosen is chosen by KID against the held-out pictures, which the models never see, so that the figures on the
cards are not those that were searched for. With --install the files go into the package and nbs/results."""
import argparse, json, shutil, warnings
from pathlib import Path
import torch, flowerdiff.cli
from flowerdiff.evaluation import Extractor, Reference, evaluate, floor, kid, model_card, model_maker, table
from flowerdiff.pretrained import load, save, write_whole
from flowerdiff.sampling import Model
from flowerdiff.training import posthoc, read_recipe

top = Path(__file__).resolve().parent.parent
NFE = dict(default=10, fast=5, quality=30)
SAMPLERS = [('dpmpp_2m', 'log_snr'), ('dpmpp_2m', 'karras'), ('dpmpp_3m', 'log_snr'), ('unipc', 'log_snr'), ('ipndm', 'log_snr'), ('ipndm', 'karras'), ('ddim', 'trailing')]
TINY = dict(net=dict(widths=[16, 32]), size=16, batch_size=16, tracks=[.05, .1])
BAD_AT = """Bad at: what is larger than a blossom (whole plants, bunches, backgrounds with things in them), classes with few pictures
(the rarest has {least} of {all:,}), and everything that is no flower. It makes {size} x {size} pixels and nothing larger."""

def write_json(file, what): write_whole(file, lambda p: p.write_text(json.dumps(what, indent=1) + '\n'))

def kept(file, make):
    "What `make()` returns; from `file`, if it has been made before."
    if not file.exists(): write_json(file, make())
    return json.loads(file.read_text())

def train(name, a, folder):
    "Train by the recipe; in pieces, if the command is stopped in between."
    recipe = name
    if a.quick: recipe = folder.with_suffix('.json'); write_json(recipe, dict(model=name, epochs=20, held_out=None, warmup=10) | TINY)
    flowerdiff.cli.train(recipe=str(recipe), data=a.data, out=str(folder), resume=True, device=a.device)

def score(m, a, ref, **how):
    "KID against the held-out pictures, of `a.search` samples: value and standard error."
    real = ref.known if ref.unseen is None else ref.unseen
    return kid(ref.extract(torch.cat([m.sample(min(256, a.search - i), seed=0, start=i, **how) for i in range(0, a.search, 256)])), real)._asdict()

AVERAGES = .02, .035, .05, .075, .1, .15, .2

def averages(folder, a, ref):
    "KID for each of the averages of a run; `ema` is the classic one."
    m, found = load(folder, a.device), {}
    for name in ('ema', *AVERAGES):
        if name != 'ema': m.net.load_state_dict(posthoc(folder, name))
        found[str(name)] = score(m, a, ref)
        print(f"average {name}: KID x 1000 {1000*found[str(name)]['value']:.2f} +- {1000*found[str(name)]['error']:.2f}", flush=True)
    return found

def with_preset(m, preset): return Model(m.net, m.config | dict(preset=preset), str(m.device))

def cost(m):
    "Evaluations that the preset of `m` takes for a picture."
    m.sample(1, seed=0)
    return m.nfe

def search_spacing(m, n=64, rounds=6):
    "The preset of `m` with the noise levels that bring it nearest to the end of the path, as sixty steps find it; a hill is climbed, one level at a time."
    p = m.preset
    goal = with_preset(m, p | dict(sampler='unipc', steps=60, spacing='log_snr')).sample(n)
    error = lambda s: (with_preset(m, p | dict(spacing=s)).sample(n) - goal).square().mean().item()
    best, most = m.sigmas(p['sampler']).tolist(), cost(m)
    least, factor = error(best), 1.4
    for _ in range(rounds):
        for i in range(1, len(best) - 1):
            for f in (factor, 1/factor):
                s = best[:i] + [best[i]*f] + best[i + 1:]
                if not s[i - 1] > s[i] > s[i + 1]: continue
                if (e := error(s)) < least and cost(with_preset(m, p | dict(spacing=s))) <= most: best, least = s, e
        factor = factor**.7
    return p | dict(spacing=best)

def choose_preset(m, a, ref, nfe):
    "The best way to make a picture with `nfe` evaluations, one thing after the other: sampler and spacing, noise levels, guidance, spacing again."
    found = []
    def best_of(presets):
        for p in presets:
            tried = with_preset(m, p)
            try: took = cost(tried)
            except ValueError as e: print(f'{p}: {e}'); continue
            if took > nfe or p in [f['preset'] for f in found]: continue
            found.append(dict(score(tried, a, ref), nfe=took, preset=p))
            print(f"{nfe} evaluations, {p}: KID x 1000 {1000*found[-1]['value']:.2f}", flush=True)
        return min(found, key=lambda f: f['value'])['preset']
    own = dict(interval=[0., 1e4]) | m.config.get('preset', {})   # everywhere; JSON knows no infinity
    best = best_of(own | dict(sampler=s, spacing=spacing, steps=nfe) for s, spacing in SAMPLERS[:3 if a.quick else None])
    best = best_of(best | dict(sigma_min=low) for low in (.002, .005, .01, .05))
    if m.classes: best = best_of(best | dict(guidance=g, interval=[lo, hi], steps=steps) for g in (1.3, 1.7, 2.2) for lo, hi in ((.2, 2.), (.3, 5.), (0., 1e4)) for steps in steps_for(m, best, g, lo, hi, nfe))
    best = best_of([search_spacing(with_preset(m, best), *(8, 2) if a.quick else ())])
    return dict(best=best, tried=sorted(found, key=lambda f: f['value']))

def steps_for(m, p, guidance, lo, hi, nfe):
    "The largest number of steps that, guided within the interval, take at most `nfe` evaluations; none if there is no such number."
    for steps in range(nfe, 1, -1):
        inside = sum(lo <= s <= hi for s in with_preset(m, p | dict(steps=steps)).sigmas(p['sampler'])[:-1].tolist())
        if steps + inside <= nfe: return [steps] if inside else []
    return []

def choose(name, a, ref, folder):
    "Weights and config of the model, with the best average and presets, in a.out/weights."
    found = kept(a.out/f'{name}-averages.json', lambda: averages(folder, a, ref))
    best = min(found, key=lambda n: found[n]['value'])
    m = load(folder, a.device)
    if best != 'ema': m.net.load_state_dict(posthoc(folder, float(best)))
    presets = {way: kept(a.out/f'{name}-{way}.json', lambda: choose_preset(m, a, ref, nfe))['best'] for way, nfe in NFE.items()}
    save(m.net, m.config | dict(preset=presets.pop('default'), presets=presets, average=best), a.out/'weights'/name, torch.float16)

def judge(name, a, ref):
    "Figures and the card of the chosen model."
    m = load(a.out/'weights'/name, a.device)
    columns = [kept(a.out/f'{name}-judged-{way}.json', lambda: evaluate(model_maker(m, name if way == 'default' else f'{name}, {way}', preset=way), ref, a.n, a.seeds)) for way in NFE]
    columns.append(floor(ref, a.n or len(ref.all)))
    print(table(columns))
    searched = {part: json.loads((a.out/f'{name}-{part}.json').read_text()) for part in ('averages', *NFE)}
    write_json(a.out/f'results/{name}.json', columns[0] | dict(others=columns[1:-1], floor=columns[-1], averages=searched.pop('averages'), presets={way: s['tried'] for way, s in searched.items()}))
    counts = m.config.get('class_counts') or [len(ref.train)]
    about = ' '.join(BAD_AT.split()).format(least=min(counts), all=sum(counts), size=m.size)
    write_whole(a.out/f'weights/{name}.md', lambda p: p.write_text(model_card(load(a.out/'weights'/name, 'cpu'), name, columns, about)))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True); p.add_argument('--out', type=Path, default=Path('runs/bundled')); p.add_argument('--models', nargs='*', default=['attention', 'baseline'])
    p.add_argument('--stages', nargs='*', default=['train', 'choose', 'judge'])
    p.add_argument('--n', type=int); p.add_argument('--seeds', type=int, default=3); p.add_argument('--search', type=int, default=1024); p.add_argument('--device')
    p.add_argument('--quick', action='store_true'); p.add_argument('--install', action='store_true')
    a = p.parse_args()
    if a.quick: a.n, a.seeds, a.search = 60, 2, 60
    warnings.filterwarnings('ignore', 'FD of')
    if 'train' in a.stages:
        for name in a.models: train(name, a, a.out/name)
    if {'choose', 'judge'} & {*a.stages}: ref = Reference(a.data, Extractor(device=a.device), TINY['size'] if a.quick else read_recipe('attention')['size'])
    for name in a.models:
        if 'choose' in a.stages: choose(name, a, ref, a.out/name)
        if 'judge' in a.stages: judge(name, a, ref)
    if a.install:
        shutil.copytree(a.out/'weights', top/'flowerdiff/weights', dirs_exist_ok=True)
        shutil.copytree(a.out/'results', top/'nbs/results', dirs_exist_ok=True)
