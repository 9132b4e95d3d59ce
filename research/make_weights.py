"""Make the bundled models: train each by its recipe, choose its average and how it samples, judge it, and write its card.

    python research/make_weights.py flowers.parquet                  all of it
    python research/make_weights.py flowers.parquet --stages train   a part of it: train, choose, judge
    python research/make_weights.py drawn:300 --quick                the whole way in miniature, with tiny networks

Stopped, and started again, it goes on where it was: training at its last state, the rest at what is not yet in --out.
Whatever is chosen is chosen by KID against the held-out images, which the models never see, on a seed of its own, so
that the metrics on the cards are not those that were searched for. With --install the files go into the package and
nbs/results."""
import itertools, shutil, warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import torch, flowerdiff.cli
from fastcore.script import call_parse, store_true
from flowerdiff.core import FlowerDiffError, atomic_write, check
from flowerdiff.distances import Extractor
from flowerdiff.evaluation import Reference, evaluate, model_card, model_generator, real_baseline, table
from flowerdiff.models import load, save
from flowerdiff.checkpoints import posthoc
from flowerdiff.settings import read_recipe
from common import JUDGE_SEED, SEARCH_SEED, cached, read_json, score, top, with_preset, write_json

NFE = dict(default=10, fast=5, quality=30) # preset: evaluations of the network
AVERAGES = .02, .035, .05, .075, .1, .15, .2 # lengths
SAMPLERS = [
    ('dpmpp_2m', 'log_snr'), ('dpmpp_2m', 'karras'), ('dpmpp_3m', 'log_snr'), ('unipc', 'log_snr'),
    ('ipndm', 'log_snr'), ('ipndm', 'karras'), ('ddim', 'trailing')]
# everywhere, in numbers that JSON knows
ALWAYS = 0., 1e4
WEIGHTS = 1.3, 1.7, 2.2, 3., 4. # of the guidance
INTERVALS = (.2, 2.), (.3, 5.), ALWAYS
TINY = dict(net=dict(widths=[16, 32]), size=16, batch_size=16, tracks=[.05, .1])
LIMITS = """Bad at: what is larger than a blossom (whole plants, bunches, backgrounds with things in them), classes with
few images (the rarest has {rarest} of {all:,}), and everything that is no flower. It makes {height} x {width} pixels."""

# Train

def train(name, job):
    "Train by the recipe; in pieces, if the command is stopped in between."
    folder, recipe = job.out/name, name
    if job.quick:
        recipe = folder.with_suffix('.json')
        small = dict(model=name, epochs=20, held_out=None, warmup=10)
        write_json(recipe, small | TINY)
    where = dict(data=job.data, out=str(folder), device=job.device)
    flowerdiff.cli.train(recipe=str(recipe), resume=True, **where)

# Choose the average of the weights

def kid_text(found):
    "Write a score."
    value, error = 1000*found['value'], 1000*found['error']
    return f'KID x 1000 {value:.2f} +- {error:.2f}'

def load_whole(folder, job):
    "Load a model in float32: what is chosen and stored must not be rounded on the way."
    return load(folder, job.device, torch.float32)

def set_average(m, folder, name):
    "Load an average of a run; 'ema' is the one it has."
    if name != 'ema': m.net.load_state_dict(posthoc(folder, float(name)))

def score_averages(folder, job):
    "Score each average of a run that its snapshots can make."
    m, found = load_whole(folder, job), {}
    names = ['ema', *map(str, AVERAGES)]
    for name in names:
        try: set_average(m, folder, name)
        except FlowerDiffError as e:
            print(f'average {name}: {e}')
            continue
        found[name] = score(m, job.ref, job.search)
        print(f'average {name}: {kid_text(found[name])}', flush=True)
    return found

# Choose how it samples

def plan_of(m, preset):
    "Plan how a preset samples, or return None if it is impossible."
    try: return with_preset(m, preset).plan()
    except FlowerDiffError as e: print(f'{preset}: {e}')

class Search:
    "The presets that were tried for a number of evaluations, with their scores."
    def __init__(self, m, job, nfe):
        self.m, self.job, self.nfe = m, job, nfe
        self.tried = []

    def try_one(self, preset):
        "Score a preset, unless it is impossible or costs too much."
        plan = plan_of(self.m, preset)
        known = any(t['preset'] == preset for t in self.tried)
        if plan is None or known or plan.nfe > self.nfe: return
        try: found = self.score(preset)
        except FlowerDiffError as e: return print(f'{preset}: {e}')
        self.tried.append(found | dict(nfe=plan.nfe, preset=preset))
        print(f'{self.nfe} evaluations, {preset}: {kid_text(found)}', flush=True)

    def score(self, preset, seed=SEARCH_SEED):
        "Score a preset on samples of a seed."
        m = with_preset(self.m, preset)
        return score(m, self.job.ref, self.job.search, seed)

    def ranked(self): return sorted(self.tried, key=lambda t: t['value'])

    def best_of(self, presets):
        "Try presets; returns the best of all so far."
        for preset in presets: self.try_one(preset)
        check(self.tried, f"no preset takes at most {self.nfe} evaluations: allow more")
        return self.ranked()[0]['preset']

def guided_presets(m, preset, nfe, weights):
    "Guided variants of a preset, each with as many steps as the evaluations allow."
    for weight, interval in itertools.product(weights, INTERVALS):
        guided = preset | dict(guidance=weight, interval=list(interval))
        for steps in range(nfe, 1, -1):
            variant = guided | dict(steps=steps)
            plan = plan_of(m, variant)
            if plan is None or plan.nfe > nfe: continue
            if plan.nfe > plan.steps: yield variant
            break

def neighbours(sigmas, factor):
    "Noise levels of which one, neither first nor last, is a little higher or lower."
    for i in range(1, len(sigmas) - 1):
        for f in (factor, 1/factor):
            before, after = sigmas[:i], sigmas[i + 1:]
            moved = sigmas[i]*f
            if before[-1] > moved > after[0]: yield [*before, moved, *after]

def search_spacing(
    m, # its default preset is the one to improve
    n:int=64, # samples
    rounds:int=6, # of changes, ever smaller
)->dict: # a preset
    "Climb to the noise levels that bring the preset nearest to where sixty steps end."
    goal = m.sample(n, sampler='unipc', steps=60, spacing='log_snr')
    def error(sigmas):
        difference = m.sample(n, sigmas=sigmas) - goal
        return difference.square().mean().item()
    plan = m.plan()
    best = list(plan.sigmas)
    least, factor = error(best), 1.4
    for _ in range(rounds):
        for sigmas in neighbours(best, factor):
            if m.plan(sigmas=sigmas).nfe > plan.nfe: continue
            e = error(sigmas)
            if e < least: best, least = sigmas, e
        factor = factor**.7
    return m.config.preset | dict(spacing=best)

def choose_preset(m, job, nfe):
    "Choose how to make an image with `nfe` evaluations: sampler and spacing, lowest noise level, guidance, all levels."
    search = Search(m, job, nfe)
    # a guided one may cost too much with any sampler
    own = m.config.preset | dict(guidance=1., interval=list(ALWAYS))
    # with many evaluations the samplers agree, and where the steps lie matters little
    few = nfe <= 10
    samplers = SAMPLERS[:1]
    if few: samplers = SAMPLERS[:3] if job.quick else SAMPLERS
    ways = [dict(sampler=s, spacing=spacing, steps=nfe) for s, spacing in samplers]
    best = search.best_of(own | way for way in ways)
    lowest = (.002, .005, .01, .05)
    best = search.best_of(best | dict(sigma_min=low) for low in lowest)
    weights = WEIGHTS[-1:] if job.quick else WEIGHTS
    if m.classes: best = search.best_of(guided_presets(m, best, nfe, weights))
    if few:
        effort = (8, 2) if job.quick else ()
        try: best = search.best_of([search_spacing(with_preset(m, best), *effort)])
        except FlowerDiffError as e: print(f'no search for noise levels: {e}')
    judged = search.score(best, JUDGE_SEED)
    print(f'{nfe} evaluations, on another seed: {kid_text(judged)}', flush=True)
    return dict(best=best, judged=judged, tried=search.ranked())

def choose(name, job):
    "Write weights and config of a model, with the best average and presets, to out/weights."
    folder = job.out/name
    def file(part): return job.out/f'{name}-{part}.json'
    found = cached(file('averages'), lambda: score_averages(folder, job))
    best = min(found, key=lambda k: found[k]['value'])
    m = load_whole(folder, job)
    set_average(m, folder, best)
    presets = {}
    for way, nfe in NFE.items():
        chosen = cached(file(way), lambda: choose_preset(m, job, nfe))
        presets[way] = chosen['best']
    more = m.config.more | dict(average=best)
    config = replace(m.config, preset=presets.pop('default'), presets=presets, more=more)
    save(m.net, config, job.out/'weights'/name, torch.float16)

# Judge

def judge_preset(name, job, m, way):
    "Judge a preset of the chosen model."
    title = name if way == 'default' else f'{name}, {way}'
    generator = model_generator(m, title, preset=way)
    return evaluate(generator, job.ref, job.n, job.seeds, job.against)

def limits(m, data):
    "Say what a model is bad at."
    counts = m.config.class_counts or [len(data)]
    height, width = m.config.size
    text = ' '.join(LIMITS.split())
    return text.format(rarest=min(counts), all=sum(counts), height=height, width=width)

def judge(name, job):
    "Write metrics and card of the chosen model."
    folder = job.out/'weights'/name
    m = load(folder, job.device)
    def file(part): return job.out/f'{name}-{part}.json'
    columns = [cached(file(f'judged-{way}'), lambda: judge_preset(name, job, m, way)) for way in NFE]
    baseline = real_baseline(job.ref, job.n or len(job.ref.real[job.against]), against=job.against)
    print(table([*columns, baseline]))
    tried = {way: read_json(file(way))['tried'] for way in NFE}
    result = dict(others=columns[1:], floor=baseline)
    result |= dict(averages=read_json(file('averages')), presets=tried)
    write_json(job.out/f'results/{name}.json', columns[0] | result)
    about = limits(m, job.ref.train)
    card = model_card(load(folder, 'cpu'), name, [*columns, baseline], about)
    atomic_write(folder.with_suffix('.md'), lambda p: p.write_text(card))

@call_parse
def make_weights(
    data:str, # parquet file or folder, folder of images, Hub id, torchvision, drawn or drawn:N
    out:str='runs/bundled', # folder for runs, choices and results
    models:str='attention,baseline', # which models, with commas between
    stages:str='train,choose,judge', # which stages, with commas between
    n:int=None, # samples to judge by (as many as real images)
    seeds:int=3, # how often to judge
    search:int=1024, # samples to choose by
    device:str=None, # cuda, mps or cpu (the best there is)
    quick:store_true=False, # tiny networks and few samples, to try the script
    install:store_true=False, # copy the weights into the package, and the results into nbs/results
):
    "Make the bundled models."
    warnings.filterwarnings('ignore', 'FD of')
    if quick: n, seeds, search = 60, 2, 60
    job = SimpleNamespace(data=data, out=Path(out), device=device, quick=quick)
    job.n, job.seeds, job.search = n, seeds, search
    models, stages = models.split(','), stages.split(',')
    if 'train' in stages:
        for name in models: train(name, job)
    if {'choose', 'judge'} & {*stages}:
        size = TINY['size'] if quick else read_recipe('attention')['size']
        job.ref = Reference(data, Extractor(device=device), size)
        job.against = 'all' if job.ref.unseen is None else 'held_out'
    for name in models:
        if 'choose' in stages: choose(name, job)
        if 'judge' in stages: judge(name, job)
    if not install: return
    shutil.copytree(job.out/'weights', top/'flowerdiff/weights', dirs_exist_ok=True)
    shutil.copytree(job.out/'results', top/'nbs/results', dirs_exist_ok=True)
