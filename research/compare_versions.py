"""Does this version do the same as an older one? Both run on this machine, each in a process of its own.

    python research/compare_versions.py OLD_COMMIT                            some minutes
    python research/compare_versions.py OLD_COMMIT --parts training,metrics   less than one

Compared are, in float32 on the CPU: images of the old commit's bundled models, by each sampler and preset; the weights
after two short training runs on drawn flowers; and metrics of fixed features. What differs by more than rounding is
listed, and the exit status is 1. A sampler, preset or metric that only the new version has is no difference."""
import inspect, os, shutil, subprocess, sys, tempfile
from pathlib import Path
import numpy as np, torch
from fastcore.script import call_parse
from safetensors.torch import load_file, save_file

top = Path(__file__).resolve().parent.parent
IMAGES = 8
STEPS = 5 # of samplers other than the preset's own

# part: largest difference allowed, relative to numbers above 1
LIMITS = dict(sampling=1e-5, training=1e-6, metrics=1e-6)

# small networks, without augmentation: 30 steps each
RUNS = dict(
    baseline=dict(net=dict(widths=[16, 32])),
    attention=dict(net=dict(widths=[32, 64], attention=[1]), augment=0., tracks=[.1]))
DATA, SIZE, EPOCHS, BATCH = 'drawn:80', 16, 6, 16

# What was changed on purpose: name of a result, or the beginning of it -> the reason
INTENDED = {'metrics, inception_score': 'it is no longer computed'}

# In a process of one version

def use_float32():
    "Make both versions choose float32 on the CPU."
    for name in ('_is_amx_tile_supported', '_is_avx512_bf16_supported'):
        setattr(torch.cpu, name, lambda: False)

def has_module(name):
    "Does this version have a module? (Another version may be installed too, so importing it proves nothing.)"
    import flowerdiff
    return Path(flowerdiff.__file__).with_name(f'{name}.py').exists()

def import_api():
    "Import the functions that have moved or have another name in the old version: load, SAMPLERS, load_images, train."
    from flowerdiff.sampling import SAMPLERS
    if has_module('pretrained'):
        from flowerdiff.data import load_pictures as load_images
        from flowerdiff.pretrained import load
        from flowerdiff.training import train
    else:
        from flowerdiff.data import load_images
        from flowerdiff.models import load
        from flowerdiff.runs import train
    return load, SAMPLERS, load_images, train

def sample_all(folder, weights):
    "Sample each model by each sampler and preset."
    load, samplers, *_ = import_api()
    for config in sorted(weights.glob('*/config.json')):
        m = load(config.parent, 'cpu', torch.float32)
        for preset in m.presets:
            name = f'sampling, {config.parent.name}, {preset}'
            yield name, m.sample(IMAGES, preset=preset, seed=0)
            for sampler in samplers:
                x = m.sample(IMAGES, preset=preset, sampler=sampler, steps=STEPS, seed=0)
                yield f'{name}, {sampler}', x

def train_all(folder, weights):
    "Train small models, and read their weights and averages."
    *_, load_images, train = import_api()
    images = load_images(DATA, SIZE)
    for model, settings in RUNS.items():
        out = folder/f'run-{model}'
        how = dict(epochs=EPOCHS, device='cpu', batch_size=BATCH, seed=1)
        train(images, str(out), model=model, **how, **settings)
        last = max(out.glob('state-*.safetensors'))
        for key, value in load_file(last).items():
            if value.is_floating_point(): yield f'training, {model}, {key}', value

def fixed_features(n, seed, shift=0.):
    "Make features (n, 24) that look like nothing in particular."
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(24, 24))
    return rng.normal(size=(n, 24)) @ mix + shift

def numbers(result):
    "Flatten a number, a named tuple or a dict to pairs of name and number; lists are left out."
    if hasattr(result, '_asdict'): result = result._asdict()
    if not isinstance(result, dict): result = {'': result}
    return [(name, value) for name, value in result.items() if np.ndim(value) == 0]

def measure_all(folder, weights):
    "Compute each metric on fixed features."
    if has_module('distances'): from flowerdiff import distances
    else: from flowerdiff import evaluation as distances
    made, real = fixed_features(300, 1, .3), fixed_features(400, 2)
    held_out = fixed_features(100, 3)
    labels = np.arange(400) % 5
    calls = dict(
        frechet=(made, real),
        kid=(made, real),
        manifold=(real[:300], made),
        memorisation=(made, real, held_out),
        inception_score=(made,),
        linear_probe=(real, labels))
    for metric, args in calls.items():
        f = getattr(distances, metric, None)
        if f is None: continue
        # the older version wants to be told how many classes there are
        if 'n_classes' in inspect.signature(f).parameters: args += 5,
        result = f(*args)
        if callable(result): result = result(made).mean()
        for name, value in numbers(result):
            number = torch.tensor(float(value), dtype=torch.float64)
            yield f'metrics, {metric} {name}'.strip(), number

PARTS = dict(sampling=sample_all, training=train_all, metrics=measure_all)

def measure(folder, weights, parts):
    "Write the results of the version that Python finds first."
    use_float32()
    torch.set_num_threads(1)
    results = {}
    for part in parts.split(','):
        for name, value in PARTS[part](Path(folder), Path(weights)):
            results[name] = value.detach().contiguous()
    save_file(results, Path(folder)/'results.safetensors')

# In the process that compares

def run_version(root, weights, folder, parts):
    "Measure the version whose code is in a folder."
    folder.mkdir()
    own = dict(PYTHONPATH=str(root), FLOWERDIFF_CACHE=str(folder/'cache'), FLOWERDIFF_DEVICE='cpu')
    command = [sys.executable, str(Path(__file__).resolve()), 'measure', str(folder), str(weights), parts]
    with open(folder/'log.txt', 'w') as log:
        done = subprocess.run(command, cwd=folder, env=os.environ | own, stdout=log, stderr=log)
    said = (folder/'log.txt').read_text()[-3000:]
    if done.returncode: sys.exit(f'the version in {root} failed:\n{said}')
    return load_file(folder/'results.safetensors')

def difference(old, new):
    "Find the largest difference of two results, relative to numbers above 1."
    if old.shape != new.shape: return float('inf')
    scale = old.abs().clamp(min=1)
    # equal infinities and NaN are no difference
    same = (old == new) | old.isnan() & new.isnan()
    return torch.where(same, 0., (old - new).abs()/scale).max().item()

def reason_for(name):
    "Find out why a result was changed on purpose; '' if it was not."
    return next((why for begin, why in INTENDED.items() if name.startswith(begin)), '')

def compare(old, new):
    "Print a table of the differences; returns the names of results that should not differ."
    groups, bad = {}, []
    for name, value in old.items():
        d = difference(value, new[name]) if name in new else float('inf')
        part, which = name.split(', ')[:2]
        reason = reason_for(name)
        if reason: print(f'{name}: {d:.2g}, intended: {reason}')
        elif d > LIMITS[part]: bad.append(f'{name}: {d:.2g}')
        if part == 'metrics': which = ''
        if not reason: groups.setdefault((part, which), []).append(d)
    print(f"{'part':10} {'model':10} {'results':>8} {'difference':>11} {'allowed':>8}")
    for (part, which), ds in groups.items():
        print(f'{part:10} {which:10} {len(ds):8} {max(ds):11.2g} {LIMITS[part]:8.0e}')
    return bad

# call_parse runs what it decorates, so this comes before
if __name__ == '__main__' and sys.argv[1:2] == ['measure']: sys.exit(measure(*sys.argv[2:]))

@call_parse
def compare_versions(
    commit:str, # the old version, such as main or HEAD~1
    parts:str=','.join(PARTS), # what to compare, with commas between
):
    "Compare this version with an older one."
    git = ['git', '-C', str(top), 'worktree']
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        # a copy, because somebody may go on working on this version
        shutil.copytree(top/'flowerdiff', root/'new/flowerdiff')
        subprocess.run([*git, 'add', '--quiet', '--detach', root/'old', commit], check=True)
        try:
            weights = root/'old/flowerdiff/weights'
            old = run_version(root/'old', weights, root/'results-old', parts)
            new = run_version(root/'new', weights, root/'results-new', parts)
        finally: subprocess.run([*git, 'remove', '--force', root/'old'], check=True)
    bad = compare(old, new)
    print('\n'.join(bad) or 'no differences')
    sys.exit(bool(bad))
