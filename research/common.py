"""What the scripts of this folder share: result files, and the score of a way to sample."""
import json
from dataclasses import replace
from pathlib import Path
import numpy as np, torch
from flowerdiff.core import atomic_write
from flowerdiff.data import ImageDataset
from flowerdiff.distances import kid
from flowerdiff.evaluation import Reference
from flowerdiff.models import Model

top = Path(__file__).resolve().parent.parent

# What is chosen by samples of one seed is judged on another. `flowerdiff_eval` takes the seeds 0, 1, 2.
SEARCH_SEED, JUDGE_SEED = 100, 101

def write_json(
    file:Path, # to make or replace
    content, # plain data
):
    "Write a JSON file."
    text = json.dumps(content, indent=1) + '\n'
    atomic_write(file, lambda p: p.write_text(text))

def read_json(file:Path): return json.loads(file.read_text())

def cached(
    file:Path, # where the result is kept
    make, # a function without arguments
):
    "Read a result, or make and write it: a script that was stopped goes on where it was."
    if not file.exists(): write_json(file, make())
    return read_json(file)

def describe_device():
    "Name the device of a result."
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu'

def with_preset(
    m:Model,
    preset:dict, # fields of Preset
)->Model: # of the same network
    "Give a model another default preset."
    config = replace(m.config, preset=preset)
    return Model(m.net, config, str(m.device), m.dtype)

def held_out_classes(
    m:Model,
    held:ImageDataset, # held-out images, or None
)->list: # class numbers; None: as frequent as in training
    "List classes as frequent as in the held-out images, shuffled."
    labelled = held is not None and held.labels is not None
    if not labelled or not m.classes: return None
    labels = held.labels.tolist()
    names = [held.class_names[i] for i in labels]
    if not {*names} <= {*m.classes}: return None
    order = np.random.default_rng(0).permutation(len(names))
    return [m.classes.index(names[i]) for i in order]

def score(
    m:Model, # sampled by its default preset
    ref:Reference, # real images
    n:int, # samples
    seed:int=SEARCH_SEED,
)->dict: # value, error: KID and its standard error
    "Compare samples with the held-out images by KID; where none are held out, with the others."
    plan, classes = m.plan(), held_out_classes(m, ref.held_out)
    parts = []
    for start in range(0, n, 256):
        size = min(256, n - start)
        parts.append(m.sample(size, classes=classes, seed=seed, start=start, plan=plan))
    real = ref.known if ref.unseen is None else ref.unseen
    made = ref.extract(torch.cat(parts))
    return kid(made, real)._asdict()
