"""Measure images enlarged to 256 px, next to bicubic and Lanczos interpolation.

    python research/enlarge_figures.py --data FOLDER            metrics of the bundled enlarger, in half an hour
    python research/enlarge_figures.py --data FOLDER --search   ways to sample it, compared on other images and seeds
    python research/enlarge_figures.py --data FOLDER --install  and write nbs/results/enlarge.json and the card

FOLDER holds parquet files of 64 and of 256 px; of a single file, the other size is made. Enlarged are photos of the
split `validation`, which no model has seen, shrunk here, and as the file of 64 px has them; and generated images. The
enlarger learns from the split `test` alone, so that settings can be chosen by `train`. Images and features are kept in
--out: stopped, and started again, the script goes on where it was."""
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
import numpy as np, torch
from fastcore.script import call_parse, store_true
from PIL import Image
from safetensors.numpy import load_file, save_file
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from flowerdiff.core import atomic_write, check, counted, make_folder
from flowerdiff.data import ImageDataset, fingerprint, load_images
from flowerdiff.distances import Extractor, frechet, kid, manifold
from flowerdiff.enlarging import FACTOR, enlarge_bicubic, shrink
from flowerdiff.evaluation import METRICS, Reference, model_card, real_baseline, summarise
from flowerdiff.images import to_float, to_uint8
from flowerdiff.models import LOW_SIGMA, Model, load
from common import JUDGE_SEED, SEARCH_SEED, held_out_classes, top, write_json

SMALL, LARGE = 64, 256
MODELS = 'attention', 'baseline'
# settings are chosen by photos that neither the enlarger has seen nor anything is judged by
SEARCH_SPLIT = 'train'
CHUNK = 60
FILED = 'photos of the 64 px file'
RESULT = top/'nbs/results/enlarge.json'
CARD = top/'flowerdiff/weights/enlarge.md'

# Ways to enlarge

class Way(NamedTuple):
    "A way to enlarge images."
    name: str # for the table
    nfe: int # network evaluations for each image
    enlarge: Callable # enlarge(low, seed, start) -> images four times as large
    key: str # for the files of its results

def enlarge_lanczos(
    low:torch.Tensor, # float (N, 3, h, w) in [-1, 1]
)->torch.Tensor: # float (N, 3, 4h, 4w) in [-1, 1]
    "Enlarge images with Pillow's Lanczos filter."
    h, w = low.shape[2:]
    out = []
    for x in to_uint8(low):
        image = to_pil_image(x)
        image = image.resize((FACTOR*w, FACTOR*h), Image.Resampling.LANCZOS)
        out.append(pil_to_tensor(image))
    return to_float(torch.stack(out))

def filter_way(name, f):
    "Enlarge by a function of the images alone."
    def enlarge(low, seed, start): return f(low)
    return Way(name, 0, enlarge, name)

AS_IT_IS = filter_way('', lambda low: low)
BICUBIC = filter_way('bicubic', enlarge_bicubic)
LANCZOS = filter_way('Lanczos', enlarge_lanczos)

def enlarger_way(
    enlarger:Model,
    settings:dict, # of Model.enlarge
)->Way:
    "Enlarge by an enlarger."
    settings = dict(settings)
    low_sigma = settings.pop('low_sigma', LOW_SIGMA)
    plan = enlarger.plan(**settings)
    how = dict(plan=plan, low_sigma=low_sigma)
    def enlarge(low, seed, start):
        return enlarger.enlarge(low, seed=seed, start=start, **how)
    levels = ', '.join(f'{s:.3g}' for s in plan.sigmas)
    name = f'{plan.sampler} [{levels}], low_sigma {low_sigma:g}'
    weights = [p.double().sum().item() for p in enlarger.net.parameters()]
    key = fingerprint(weights, name, plan.options)
    return Way(name, plan.nfe, enlarge, key)

# with little noise at the start, an enlarger takes what is missing for known to be smooth
LEVELS = [4, 0], [1.2, 0], [.8, 0], [.5, 0], [4, .5, 0], [1.2, .2, 0], [.8, .15, 0], [1.2, .3, .08, 0]
BASE = dict(sampler='ddim', sigmas=[.8, 0], low_sigma=.015)
SEARCHED = [BASE | dict(sigmas=levels) for levels in LEVELS]
SEARCHED += [BASE | dict(low_sigma=low) for low in (.002, .005, .01, .02, .03)]
SEARCHED += [BASE | dict(sampler=name, sigmas=[1.2, .2, 0]) for name in ('dpmpp_2m', 'euler_ancestral')]

# What is enlarged

@dataclass
class Job:
    "Photos to shrink and enlarge, and what the results are compared with."
    out: Path # folder for what is kept
    extract: Extractor # of features
    photos: torch.Tensor # uint8 (n, 3, 256, 256)
    filed: torch.Tensor # float (n, 3, 64, 64): the same as the file of 64 px has them
    originals: np.ndarray # (n, D) their features
    real: np.ndarray # (N, D) features of photos, to compare generated images with
    seed: int # of generated images, and of the detail

def judge_job(
    out:Path,
    refs:dict, # size -> Reference
    n:int, # how many to enlarge
)->Job:
    "Take held-out photos."
    ref = refs[LARGE]
    photos = ref.held_out.images[:n]
    filed = to_float(refs[SMALL].held_out.images[:n])
    return Job(out, ref.extract, photos, filed, ref.unseen[:n], ref.unseen, JUDGE_SEED)

def search_job(
    out:Path,
    extract:Extractor, # of features
    photos:ImageDataset, # of 256 px
    small:ImageDataset, # the same of 64 px
    n:int, # how many to enlarge
)->Job:
    "Take some photos of all classes."
    order = np.random.default_rng(0).permutation(len(photos))
    some, features = order[:n], extract(photos.images)
    filed = to_float(small.images[some])
    return Job(out, extract, photos.images[some], filed, features[some], features, SEARCH_SEED)

def shrink_photos(
    photos:torch.Tensor, # uint8 (N, 3, H, W)
)->torch.Tensor: # float (N, 3, H/4, W/4) in [-1, 1]
    "Shrink photos as in training, and round them to 8 bits, as a file would."
    small = shrink(to_float(photos))
    return to_float(to_uint8(small))

def kept(
    file:Path,
    make:Callable, # a function without arguments
)->dict: # name -> array
    "Read arrays, or make and write them."
    if not file.exists():
        arrays = make()
        atomic_write(file, lambda p: save_file(arrays, p))
    return load_file(file)

def generate(
    job:Job,
    m:Model, # sampled by its default preset
    name:str, # of the model
    classes:list, # class numbers
)->torch.Tensor: # float (n, 3, 64, 64)
    "Draw as many images as there are photos."
    n = len(job.photos)
    def make():
        parts = []
        for start in range(0, n, CHUNK):
            size = min(CHUNK, n - start)
            x = m.sample(size, classes=classes, seed=job.seed, start=start)
            parts.append(x)
        return dict(images=torch.cat(parts).numpy())
    file = job.out/f'{name}-{job.seed}-{n}.safetensors'
    return torch.tensor(kept(file, make)['images'])

# Metrics

def psnr(
    x:torch.Tensor, # uint8 (N, ...)
    original:torch.Tensor, # likewise
)->np.ndarray: # (N,) in dB
    "Compute the peak signal-to-noise ratio of each image."
    error = (x.float() - original.float()).square()
    error = error.flatten(1).mean(1)
    return 10*(255**2/error).log10().numpy()

def measure(
    job:Job,
    name:str, # of the images
    low:torch.Tensor, # (n, 3, 64, 64)
    way:Way, # to enlarge them
    pairs:bool=False, # they were made from job.photos
)->dict: # features (n, D), and psnr (n,) of pairs
    "Enlarge images, and compute their features and how near they are to their originals."
    n = len(low)
    def make():
        found = dict(features=[], psnr=[])
        for start in range(0, n, CHUNK):
            some = slice(start, start + CHUNK)
            x = way.enlarge(low[some], job.seed, start)
            x = to_uint8(x)
            found['features'].append(job.extract(x))
            if pairs: found['psnr'].append(psnr(x, job.photos[some]))
        return {key: np.concatenate(parts) for key, parts in found.items() if parts}
    file = job.out/f'{name}-{job.seed}-{n}-{way.key}.safetensors'
    return kept(file, make)

def metrics(
    found:dict, # from measure
    real:np.ndarray, # (N, D) features of photos
    originals:np.ndarray=None, # (n, D) features of the original of each image
)->dict: # metrics by name
    "Compare images with photos and, where there are originals, each with its own."
    made = found['features']
    n = min(len(made), len(real))
    value, error = kid(made, real)
    out = dict(fd=frechet(made, real), kid=value, kid_error=error)
    out |= manifold(real[:n], made[:n])
    if originals is None: return out
    apart = np.linalg.norm(made - originals, axis=1)
    out['psnr'] = float(found['psnr'].mean())
    out['distance'] = float(apart.mean())
    return out

# Choose

def metrics_text(
    row:dict, # metrics
)->str:
    "Format the metrics to choose by."
    text = f"FD {row['fd']:6.2f}, KID x 1000 {1000*row['kid']:6.2f}"
    if 'psnr' not in row: return text
    return f"{text}, PSNR {row['psnr']:.2f}, distance {row['distance']:.2f}"

def compare_ways(
    job:Job,
    ways:list, # of Way
    classes:list, # of generated images, class numbers
):
    "Print what each way achieves, and at the end all of them, best first."
    name, *_ = MODELS
    made, found = generate(job, load(name), name, classes), []
    for way in [BICUBIC, LANCZOS, *ways]:
        photos = measure(job, FILED, job.filed, way, pairs=True)
        photos = metrics(photos, job.originals, job.originals)
        others = metrics(measure(job, name, made, way), job.real)
        line = f'{way.nfe} {way.name:50}  photos: {metrics_text(photos)}  {name}: {metrics_text(others)}'
        print(line, flush=True)
        found.append((others['fd'], line))
    lines = [line for _, line in sorted(found)]
    print('\nBest first, by FD of generated images:', *lines, sep='\n')

# Judge

@dataclass
class Judge:
    "What images are compared with, and the columns so far."
    job: Job
    refs: dict # size -> Reference
    columns: list # like those of evaluate

    def add(self, name, size, nfe, found, wanted, originals=None):
        "Describe images, and return their metrics."
        ref = self.refs[size]
        row = metrics(found, ref.unseen, originals)
        right = ref.probe(found['features']) == wanted
        row['accuracy'] = float(right.mean())
        about = dict(name=name, size=size, n=len(wanted), nfe=nfe)
        self.columns.append(about | dict(figures=summarise([row])))
        return row

    def add_baselines(self):
        "Judge real images as if they were samples."
        for size, ref in self.refs.items():
            real = real_baseline(ref, len(self.job.photos), against='held_out')
            self.columns.append(real | dict(name='photos', size=size))

    def add_photos(self, name, low, ways):
        "Judge photos that were shrunk, enlarged in some ways."
        job, n = self.job, len(low)
        wanted = self.refs[LARGE].held_classes[:n]
        for way in ways:
            found = measure(job, name, low, way, pairs=True)
            self.add(f'{name}, {way.name}', LARGE, way.nfe, found, wanted, job.originals)

    def add_generated(self, name, ways):
        "Judge generated images, as they are and enlarged; returns their FD by way."
        m = load(name)
        nfe = m.plan().nfe
        classes = held_out_classes(m, self.refs[LARGE].held_out)
        low = generate(self.job, m, name, classes)
        wanted = np.array(m.classes)[classes][:len(low)]
        found = measure(self.job, name, low, AS_IT_IS)
        fd = {SMALL: self.add(name, SMALL, nfe, found, wanted)['fd']}
        for way in ways:
            found = measure(self.job, name, low, way)
            row = self.add(f'{name}, {way.name}', LARGE, nfe + way.nfe, found, wanted)
            fd[way.name] = row['fd']
        return fd

def judge(
    job:Job,
    ours:Way, # its name is for the table
    refs:dict, # size -> Reference
)->dict: # columns, and ratios: model -> FD of enlarged images over that of small ones
    "Judge enlarged photos and enlarged generated images, next to real ones."
    j = Judge(job, refs, [])
    j.add_baselines()
    j.add_photos('photos', shrink_photos(job.photos), [BICUBIC, LANCZOS, ours])
    j.add_photos(FILED, job.filed, [BICUBIC, LANCZOS, ours])
    ratios = {}
    for name in MODELS:
        fd = j.add_generated(name, [BICUBIC, ours])
        ratios[name] = fd[ours.name]/fd[SMALL]
    return dict(columns=j.columns, ratios=ratios)

# Show

SHOWN = {key: METRICS[key] for key in ('fd', 'kid', 'precision', 'recall', 'accuracy')}
SHOWN |= dict(psnr=('PSNR in dB', 1, 2), distance=('feature distance', 1, 2))

def cell(
    column:dict,
    key:str, # of SHOWN
)->str:
    "Format a metric, with its confidence interval."
    found = column['figures'].get(key)
    if not found: return ''
    _, factor, digits = SHOWN[key]
    numbers = [found['mean']]
    if found['interval'] is not None: numbers.append(found['interval'])
    return ' ± '.join(f'{factor*x:.{digits}f}' for x in numbers)

def table(
    found:dict, # from judge
)->str: # Markdown
    "Format all metrics, those of large images first."
    titles = ['images', 'pixels', 'evaluations']
    titles += [title for title, *_ in SHOWN.values()]
    rows = [titles, ['---']*len(titles)]
    for c in sorted(found['columns'], key=lambda c: -c['size']):
        facts = c['name'], c['size'], c.get('nfe', '-')
        cells = [cell(c, key) for key in SHOWN]
        rows.append([*map(str, facts), *cells])
    lines = [' | '.join(row) for row in rows]
    return '\n'.join(f'| {line} |' for line in lines)

LIMITS = """It adds detail and corrects nothing: a small image without a clear shape becomes a sharp one without a
clear shape. The detail is invented, so it is nothing to measure or to tell a plant by. It learnt from flowers only."""
JUDGED = """
## How good

Each row: {n:,} images, compared with the {real:,} photos of the `validation` split, which no model has seen. Images of
256 px are compared with photos of 256 px, those of 64 px with photos of 64 px. Extractor: {extractor}, on {device}.
`enlarge` is this model: {way}. The rows `photos` are the real-vs-real baseline.

{table}

- The enlarged photos are the photos they are compared with, shrunk and enlarged. So they can come nearer than the
  baseline does. PSNR and feature distance are means over pairs of original and result.
- FD of enlarged images as a multiple of that of the small ones: {ratios}.
- With fewer images than features, FD is too large: compare it at equal N only, or look at KID.

[What the metrics mean](https://flowerdiff.github.io/flowerdiff/distances.html).

## Licence

The licence of the code does not cover the weights.
[A notice of their own](https://github.com/flowerdiff/flowerdiff/blob/main/flowerdiff/weights/LICENSE.md) does.
"""

def card(
    enlarger:Model,
    found:dict, # the result
)->str: # Markdown
    "Write the model card of an enlarger."
    about = ' '.join(LIMITS.split())
    baseline = found['columns'][0]
    facts = {key: baseline[key] for key in ('n', 'real')}
    facts['ratios'] = ', '.join(f'{ratio:.2f} ({name})' for name, ratio in found['ratios'].items())
    facts['table'] = table(found)
    return model_card(enlarger, 'enlarge', about=about) + JUDGED.format_map(found | facts)

# All of it

def describe(
    enlarger:Model,
    way:Way, # of this model
    ref:Reference,
)->dict: # plain data
    "Say what was judged, by which images and where."
    steps = enlarger.config.training['steps']
    data = dict(key=ref.train.key)
    name = f"{way.name}, {counted(way.nfe, 'evaluation')}"
    return dict(way=name, trained_steps=steps, data=data, extractor=ref.extract.name, device=str(enlarger.device))

@call_parse
def enlarge_figures(
    data:str=None, # folder with parquet files of 64 and 256 px, or one of them; None: $FLOWERDIFF_DATA
    enlarger:str='enlarge', # as in load
    out:str='runs/enlarge', # folder for what is kept
    n:int=None, # images (1020; 128 to search)
    settings:str='', # of Model.enlarge, as JSON: {...} to judge, [{...}, ...] to search among
    search:store_true=False, # compare settings, on photos and seeds that nothing is judged by
    install:store_true=False, # write the result and the card
):
    "Measure images enlarged to 256 px."
    m, extract = load(enlarger), Extractor()
    out = make_folder(Path(out))
    if search:
        known = m.config.training['data']['splits']
        seen = f"{enlarger} has seen the photos of {SEARCH_SPLIT}: nothing can be chosen by them"
        check(SEARCH_SPLIT not in known, seen)
        photos, small = [load_images(data, size, SEARCH_SPLIT) for size in (LARGE, SMALL)]
        chosen = json.loads(settings) if settings else SEARCHED
        ways = [enlarger_way(m, s) for s in chosen]
        classes = held_out_classes(load(MODELS[0]), photos)
        return compare_ways(search_job(out, extract, photos, small, n or 128), ways, classes)
    refs = {size: Reference(data, extract, size) for size in (LARGE, SMALL)}
    large = refs[LARGE]
    ours = enlarger_way(m, json.loads(settings or '{}'))
    found = describe(m, ours, large)
    found |= judge(judge_job(out, refs, n or 1020), ours._replace(name='enlarge'), refs)
    print(table(found), found['ratios'], sep='\n\n')
    write_json(out/'enlarge.json', found)
    if not install: return
    write_json(RESULT, found)
    atomic_write(CARD, lambda p: p.write_text(card(m, found)))
