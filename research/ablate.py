"""What each choice of the attention model's recipe is worth: one thing changed at a time, everything else alike.

    python research/ablate.py flowers.parquet --minutes 4                     on a large card
    python research/ablate.py drawn:1200 --small --epochs 12 --seeds 2 --search 256    on a laptop, in an hour

Each run has as many minutes (or epochs) as another, and the base is trained with several seeds: what differs by less
than they do is chance. Samples are judged by KID against --held_out images, or where there are none against those
trained on. What is in --out already is not made again. --install puts the metrics and a few samples of each into
nbs/results. The page that shows them is nbs/ablations.ipynb."""
import re, shutil, warnings
from pathlib import Path
from types import SimpleNamespace
from fastcore.script import call_parse, store_true
from flowerdiff.core import FlowerDiffError, atomic_write
from flowerdiff.data import load_images, without_split
from flowerdiff.distances import Extractor
from flowerdiff.evaluation import Reference
from flowerdiff.images import make_grid_image
from flowerdiff.models import load
from flowerdiff.checkpoints import posthoc, read_log
from flowerdiff.runs import train
from flowerdiff.settings import read_recipe
from common import cached, describe_device, score, top, with_preset, write_json
from make_weights import ALWAYS, AVERAGES

SMALL = dict(size=24, batch_size=24, lr=2e-3, warmup=50, net=dict(widths=[32, 64, 96], attention=[1], dropout=.1))
EDM = dict(noise='log_normal', noise_options=dict(mean=-1.2, std=1.2), weight='edm')
EDM2 = dict(noise='log_normal', noise_options=dict(mean=-.8, std=1.6), weight='edm')
# what is asked: name -> what differs from the recipe
CHANGES = {
    'prediction': {'eps': dict(prediction='eps'), 'x0': dict(prediction='x0'), 'edm': dict(prediction='edm')},
    'noise levels': {'log-normal (EDM)': EDM, 'log-normal (EDM2)': EDM2, 'plain weight': dict(weight='plain')},
    'dropout': {'0': dict(net=dict(dropout=0.)), '0.25': dict(net=dict(dropout=.25))},
    'augmentation': {'0': dict(augment=0.), '0.3': dict(augment=.3)}}
LENGTHS = .01, *AVERAGES, .28
WEIGHTS = 1., 1.3, 1.7, 2.2, 3., 5.
INTERVALS = {'everywhere': ALWAYS, 'between 0.2 and 2': (.2, 2.)}
SAMPLERS = 'ddim', 'heun', 'dpmpp_2m', 'dpmpp_3m', 'unipc', 'ipndm'
EVALUATIONS = 5, 10, 20, 40

def settings(job, change):
    "The recipe with a change; what a change says of the network is added to what the recipe says of it."
    recipe = read_recipe('attention')
    for name in ('minutes', 'epochs', 'held_out'): recipe.pop(name, None)
    if job.small: recipe |= SMALL
    net = recipe.get('net', {}) | change.get('net', {})
    return recipe | change | dict(net=net)

# One run

def errors(levels):
    "The errors of a run on known and unseen images, at each noise level."
    return {k: levels[k]['errors'] for k in ('train', 'held_out') if k in levels}

def judge(folder, job, change):
    "Judge a run: KID, errors, and a few samples."
    m = load(folder, job.device)
    image = make_grid_image(m.sample(8, seed=0), 8)
    file = job.out/f'samples/{folder.name}.jpg'
    atomic_write(file, lambda p: image.save(p, 'JPEG', quality=88, subsampling=0))
    levels, last = read_log(folder, 'levels')[-1], read_log(folder)[-1]
    out = score(m, job.ref, job.search)
    out |= dict(steps=last['step'], seconds=last['seconds'], epochs=last['epoch'])
    out |= dict(levels=errors(levels), sigmas=levels['train']['sigmas'])
    return out | dict(change=change, samples=file.name)

def run(name, job, change, seed=0):
    "Train with a change (what is there is taken up again), and judge."
    short = re.sub('[^a-z0-9.]+', '-', name.lower())
    folder = job.out/short.strip('-')
    budget = dict(minutes=job.minutes, epochs=job.epochs)
    where = dict(device=job.device, held_out=job.unseen, resume=True)
    train(job.images, folder, **budget, **where, seed=seed, **settings(job, change))
    return cached(job.out/f'{folder.name}.json', lambda: judge(folder, job, change))

# What can be varied without training again

def score_preset(m, job, **change):
    "Score a variant of the preset."
    tried = with_preset(m, m.config.preset | change)
    return score(tried, job.ref, job.search) | dict(nfe=tried.plan().nfe)

def of_averages(m, folder, job):
    "Score each length of the average that the snapshots can make."
    out = {}
    for length in LENGTHS:
        try: m.net.load_state_dict(posthoc(folder, length))
        except FlowerDiffError as e: print(e)
        else: out[str(length)] = score(m, job.ref, job.search)
    return out

def of_guidance(m, folder, job):
    "Score each guidance, in two intervals, with as many steps."
    out = {}
    for name, interval in INTERVALS.items():
        out[name] = []
        for weight in WEIGHTS:
            change = dict(guidance=weight, interval=list(interval))
            found = score_preset(m, job, **change)
            out[name].append(found | dict(guidance=weight))
    return out

def of_samplers(m, folder, job):
    "Score each sampler and number of evaluations."
    out = {}
    for name in SAMPLERS:
        # Heun takes two evaluations a step, and one in the last
        steps = [(n + 1)//2 if name == 'heun' else n for n in EVALUATIONS]
        out[name] = [score_preset(m, job, sampler=name, steps=s) for s in steps]
        values = [f"{f['nfe']}: {1000*f['value']:.1f}" for f in out[name]]
        print(name, values, flush=True)
    return out

VARIED = dict(averages=of_averages, guidance=of_guidance, samplers=of_samplers)

def vary(what, job):
    "Vary one thing about the first base run."
    folder = job.out/'base-0'
    def make(): return VARIED[what](load(folder, job.device), folder, job)
    return cached(job.out/f'of-{what}.json', make)

def load_data(job, data, held_out):
    "Load the images to train on, those held out, and the reference to judge by."
    size = settings(job, {})['size']
    split = job.unseen = None
    if data.startswith('drawn'): held_out = None
    else:
        split = without_split(data, size, held_out)
        job.unseen = load_images(data, size, held_out, verbose=False)
    job.images = load_images(data, size, split, verbose=False)
    extract = Extractor(device=job.device)
    job.ref = Reference(data, extract, size, held_out)

@call_parse
def ablate(
    data:str, # parquet file or folder, folder of images, Hub id, torchvision, drawn or drawn:N
    out:str='runs/ablations', # folder for runs and results
    minutes:float=None, # of each run
    epochs:float=None, # of each run
    search:int=1024, # samples to judge by
    seeds:int=3, # runs of the base
    held_out:str='validation', # split that is not trained on
    device:str=None, # cuda, mps or cpu (the best there is)
    small:store_true=False, # a small network
    install:store_true=False, # copy the results into nbs/results
):
    "Train and judge the attention model with one choice changed at a time."
    warnings.filterwarnings('ignore', 'FD of')
    job = SimpleNamespace(out=Path(out), device=device, small=small)
    job.minutes, job.epochs, job.search = minutes, epochs, search
    load_data(job, data, held_out)
    base = [run(f'base {seed}', job, {}, seed) for seed in range(seeds)]
    result = dict(data=data, pictures=len(job.images), size=job.images.size)
    result |= dict(settings=settings(job, {}), search=search, device=describe_device(), base=base)
    result |= {what: vary(what, job) for what in VARIED}
    result['runs'] = {}
    for what, changes in CHANGES.items():
        found = {name: run(f'{what} {name}', job, change) for name, change in changes.items()}
        result['runs'][what] = found
    write_json(job.out/'ablations.json', result)
    if not install: return
    shutil.copytree(job.out/'samples', top/'nbs/results/ablations', dirs_exist_ok=True)
    shutil.copy(job.out/'ablations.json', top/'nbs/results')
