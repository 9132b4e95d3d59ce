"""What each choice of the attention model's recipe is worth: one thing changed at a time, everything else alike.

    python .ci/ablate.py --data flowers.parquet --minutes 4 --out runs/ablations          on a large card
    python .ci/ablate.py --data drawn:1200 --small --epochs 12 --seeds 2 --search 256      on a laptop, in an hour

Each run has as many minutes (or epochs) as another, and the base is trained with several seeds: what differs by less than
they do is chance. Samples are judged by KID against --held_out pictures, or where there are none against those trained on.
What is in --out already is not made again. --install puts the figures and a few samples of each into nbs/results."""
import argparse, math, re, shutil, warnings
from pathlib import Path
import torch
from flowerdiff.data import grid_picture, load_pictures, without_split
from flowerdiff.evaluation import Extractor, Reference
from flowerdiff.pretrained import load, write_whole
from flowerdiff.training import posthoc, read_log, read_recipe, train
from make_weights import AVERAGES, cost, kept, score, top, with_preset, write_json

SMALL = dict(size=24, batch_size=24, lr=2e-3, warmup=50, net=dict(widths=[32, 64, 96], attention=[1], dropout=.1))
RUNS = {   # what is asked: name -> what differs from the recipe
    'prediction': {'eps': dict(prediction='eps'), 'x0': dict(prediction='x0'), 'edm': dict(prediction='edm')},
    'noise levels': {'log-normal (EDM)': dict(noise='log_normal', noise_options=dict(mean=-1.2, std=1.2), weight='edm'), 'log-normal (EDM2)': dict(noise='log_normal', noise_options=dict(mean=-.8, std=1.6), weight='edm'), 'plain weight': dict(weight='plain')},
    'dropout': {'0': dict(net=dict(dropout=0.)), '0.25': dict(net=dict(dropout=.25))},
    'augmentation': {'0': dict(augment=0.), '0.3': dict(augment=.3)}}

def settings(a, change):
    "The recipe with a change; what a change says of the network is added to what the recipe says of it."
    base = {k: v for k, v in read_recipe('attention').items() if k not in ('minutes', 'epochs', 'held_out')} | (SMALL if a.small else {})
    return base | change | dict(net=base['net'] | change.get('net', {}))

def run(name, a, change, seed=0):
    "Train with a change (what is there is taken up again), and judge: KID, the errors on known and unseen pictures, samples."
    folder, s = a.out/re.sub('[^a-z0-9.]+', '-', name.lower()).strip('-'), settings(a, change)
    train(a.pictures, folder, a.minutes, a.epochs, resume=True, device=a.device, held_out=a.unseen, seed=seed, **s)
    def judge():
        m = load(folder, a.device)
        x = m.sample(8, seed=0)
        write_whole(a.out/f'samples/{folder.name}.jpg', lambda p: grid_picture(x, 8).save(p, 'JPEG', quality=88, subsampling=0))
        levels, steps = read_log(folder, 'levels')[-1], read_log(folder)[-1]
        return dict(score(m, a, a.ref), steps=steps['step'], seconds=steps['seconds'], epochs=steps['epoch'], levels={k: levels[k]['errors'] for k in ('train', 'held_out') if k in levels}, sigmas=levels['train']['sigmas'], change=change, samples=f'{folder.name}.jpg')
    return kept(a.out/f'{folder.name}.json', judge)

def of_averages(a, folder):
    "KID of the base for each length of its average."
    m, out = load(folder, a.device), {}
    for length in (.01, *AVERAGES, .28): m.net.load_state_dict(posthoc(folder, length)); out[str(length)] = score(m, a, a.ref)
    return out

def of_guidance(a, folder):
    "KID of the base for each guidance, in two intervals, ten steps each."
    m = load(folder, a.device)
    each = {name: [(g, m.preset | dict(guidance=g, interval=list(interval))) for g in (1., 1.3, 1.7, 2.2, 3., 5.)] for name, interval in (('everywhere', (0., math.inf)), ('between 0.2 and 2', (.2, 2.)))}
    return {name: [dict(score(tried := with_preset(m, p), a, a.ref), guidance=g, nfe=cost(tried)) for g, p in ps] for name, ps in each.items()}

def of_samplers(a, folder):
    "KID of the base for each sampler and number of evaluations."
    m, out = load(folder, a.device), {}
    for s in ('ddim', 'heun', 'dpmpp_2m', 'dpmpp_3m', 'unipc', 'ipndm'):
        presets = [m.preset | dict(sampler=s, steps=(n + 1)//2 if s == 'heun' else n) for n in (5, 10, 20, 40)]
        out[s] = [dict(score(tried := with_preset(m, p), a, a.ref), nfe=cost(tried)) for p in presets]
        print(s, [f"{f['nfe']:g}: {1000*f['value']:.1f}" for f in out[s]], flush=True)
    return out

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True); p.add_argument('--out', type=Path, default=Path('runs/ablations')); p.add_argument('--minutes', type=float); p.add_argument('--epochs', type=float)
    p.add_argument('--search', type=int, default=1024); p.add_argument('--seeds', type=int, default=3); p.add_argument('--held_out', default='validation'); p.add_argument('--device')
    p.add_argument('--small', action='store_true'); p.add_argument('--install', action='store_true')
    a = p.parse_args()
    warnings.filterwarnings('ignore', 'FD of')
    size, drawn = settings(a, {})['size'], a.data.startswith('drawn')
    a.pictures = load_pictures(a.data, size, None if drawn else without_split(a.data, size, a.held_out), verbose=False)
    a.unseen = None if drawn else load_pictures(a.data, size, a.held_out, verbose=False)
    a.ref = Reference(a.data, Extractor(device=a.device), size, a.held_out)
    base = [run(f'base {seed}', a, {}, seed) for seed in range(a.seeds)]
    of_base = {what: kept(a.out/f'of-{what}.json', lambda: f(a, a.out/'base-0')) for what, f in (('averages', of_averages), ('guidance', of_guidance), ('samplers', of_samplers))}
    runs = {what: {name: run(f'{what} {name}', a, change) for name, change in each.items()} for what, each in RUNS.items()}
    write_json(a.out/'ablations.json', dict(data=a.data, pictures=len(a.pictures), size=size, settings=settings(a, {}), search=a.search, device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu', base=base, runs=runs, **of_base))
    if a.install:
        shutil.copytree(a.out/'samples', top/'nbs/results/ablations', dirs_exist_ok=True)
        shutil.copy(a.out/'ablations.json', top/'nbs/results')
