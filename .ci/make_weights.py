"""Make the bundled models: train each by its recipe, choose its average and how it samples, judge it, and write its card.

    python .ci/make_weights.py --data flowers.parquet       all of it; stopped, and started again, it goes on where it was
    python .ci/make_weights.py --data drawn:300 --quick     the whole way in miniature, in minutes, with tiny networks

Whatever is chosen is chosen by KID against the held-out pictures, which the models never see, so that the figures on the
cards are not those that were searched for. The files go to --out; with --install into the package and nbs/results."""
import argparse, itertools, json, shutil, warnings
from pathlib import Path
import torch, flowerdiff.cli
from flowerdiff.evaluation import Extractor, Reference, evaluate, floor, kid, model_card, model_maker, table
from flowerdiff.pretrained import load, save, write_whole
from flowerdiff.sampling import Model
from flowerdiff.training import posthoc, read_recipe

top = Path(__file__).resolve().parent.parent
SAMPLERS = [('dpmpp_2m', 'log_snr'), ('dpmpp_2m', 'karras'), ('dpmpp_3m', 'log_snr'), ('unipc', 'log_snr'), ('ipndm', 'karras'), ('ddim', 'linear')]
TINY = dict(net=dict(widths=[16, 32]), size=16, batch_size=16, tracks=[.05, .1])

def write_json(file, what): write_whole(file, lambda p: p.write_text(json.dumps(what, indent=1) + '\n'))

def train(name, a, folder):
    "Train by the recipe; in pieces, if the command is stopped in between."
    recipe = name
    if a.quick: recipe = folder.with_suffix('.json'); write_json(recipe, dict(model=name, epochs=20, held_out=None, warmup=10) | TINY)
    flowerdiff.cli.train(recipe=str(recipe), data=a.data, out=str(folder), resume=True, device=a.device)

def score(net, config, a, ref, **how):
    "KID against the held-out pictures, of `a.search` samples."
    real = ref.known if ref.unseen is None else ref.unseen
    return kid(ref.extract(torch.cat([Model(net, config, a.device).sample(min(256, a.search - i), seed=0, start=i, **how) for i in range(0, a.search, 256)])), real)

def choose_average(folder, a, ref):
    "The network with the best of its averages; `ema` is the classic one."
    m, found = load(folder, a.device), {}
    averages = {'ema': lambda: m.net.state_dict()} | {l: (lambda l=l: posthoc(folder, l)) for l in (.02, .035, .05, .075, .1, .15, .2)}
    for name, weights in averages.items():
        m.net.load_state_dict(weights()); found[name] = score(m.net, m.config, a, ref)
        print(f'average {name}: KID x 1000 {1000*found[name].value:.2f} +- {1000*found[name].error:.2f}', flush=True)
    best = min(found, key=lambda n: found[n].value)
    m.net.load_state_dict(averages[best]())
    return m.net, m.config, best, {str(n): k._asdict() for n, k in found.items()}

def choose_preset(net, config, a, ref, nfe):
    "The best way to make a picture with `nfe` evaluations: sampler, spacing, lowest sigma, guidance (a guided step costs two)."
    found = []
    for (sampler, spacing), low, guidance in itertools.product(SAMPLERS, (.005, .02, .05), (1., 1.3, 1.7, 2.2) if 'classes' in config else (1.,)):
        steps = nfe if guidance == 1 else nfe//2
        preset = dict(sampler=sampler, steps=steps, guidance=guidance, sigma_min=low, spacing=spacing)
        try: k = score(net, config | dict(preset=preset), a, ref)
        except ValueError as e: print(f'{preset}: {e}'); continue
        found.append(dict(kid=k.value, error=k.error, preset=preset))
        print(f"{nfe} evaluations, {preset}: KID x 1000 {1000*k.value:.2f}", flush=True)
        if a.quick and len(found) == 3: break
    return sorted(found, key=lambda f: f['kid'])

def make(name, a, ref):
    folder = a.out/name
    train(name, a, folder)
    net, config, average, averages = choose_average(folder, a, ref)
    presets = {nfe: choose_preset(net, config, a, ref, nfe) for nfe in ((10, 5, 30) if not a.quick else (4,))}
    best = next(f for f in presets[min(presets, key=lambda n: abs(n - 10))])
    made = a.out/'weights'/name
    save(net, config | dict(preset=best['preset'], average=average), made, torch.float16)
    m = load(made, a.device)
    columns = [evaluate(model_maker(m, name), ref, a.n, a.seeds), floor(ref, a.n or len(ref.all))]
    print(table(columns))
    write_json(a.out/f'results/{name}.json', columns[0] | dict(floor=columns[1], averages=averages, presets=presets))
    write_whole(a.out/f'weights/{name}.md', lambda p: p.write_text(model_card(load(made, 'cpu'), name, columns)))
    if not a.install: return
    shutil.copytree(a.out/'weights', top/'flowerdiff/weights', dirs_exist_ok=True)
    shutil.copytree(a.out/'results', top/'nbs/results', dirs_exist_ok=True)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True); p.add_argument('--out', type=Path, default=Path('runs/bundled')); p.add_argument('--models', nargs='*', default=['attention', 'baseline'])
    p.add_argument('--n', type=int); p.add_argument('--seeds', type=int, default=3); p.add_argument('--search', type=int, default=1024); p.add_argument('--device')
    p.add_argument('--quick', action='store_true'); p.add_argument('--install', action='store_true')
    a = p.parse_args()
    if a.quick: a.n, a.seeds, a.search = 60, 2, 60
    warnings.filterwarnings('ignore', 'FD of')
    ref = Reference(a.data, Extractor(device=a.device), TINY['size'] if a.quick else read_recipe('attention')['size'])
    for name in a.models: make(name, a, ref)
