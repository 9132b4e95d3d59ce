"""The table beside the peers in README.md and on the front page; speeds from the result files of `bench.py` and `loops.py`."""
import json
from pathlib import Path
from statistics import median

results = Path(__file__).resolve().parent.parent/'nbs/results'
PEERS = DIFFUSERS, DDPM = 'diffusers', 'denoising-diffusion-pytorch'
STEPS = ', 10 evaluations', ', 20 evaluations'
# what each of the three offers
FEATURES = dict([
    ('trained flowers', ['64 and 256 px', 'thousands of other models', 'none']),
    ('text prompts', ['no', 'yes', 'no']),
    ('code, prose and tests in one notebook', ['yes', 'no', 'no']),
    ('the same images for a seed, however many at once', ['yes', 'a generator for each image', 'no']),
    ('killed and resumed: the same weights, bit for bit', ['yes', 'not promised', 'not promised']),
    ('metrics next to a real-vs-real baseline', ['FD, KID and more', 'no', 'FID alone']),
    ('dashboard in JupyterLab', ['yes', 'no', 'no'])])

def read(name): return json.loads((results/f'{name}.json').read_text())

def row(what, ours, cells): return f'| {what} | {ours} | ' + ' | '.join(cells) + ' |'

def cell(value, ratio): return f'{value} (**{ratio:.1f}x**)'

def loop(what):
    "Make the row about whole training loops."
    mine, *theirs = read('loops')['loops'].values()
    cells = []
    for t in theirs:
        rate, ratio = t['rate'], median(t['ratios'])
        cells.append(cell(f'{rate:.3g} images/s', ratio))
    return row(what, f"{mine['rate']:.3g} images/s", cells)

def measured(job, ours, peer):
    "Find what was measured of us and a peer."
    for r in read('bench')['rows']:
        same = r['peer'] == peer and r['ours'].startswith(f'flowerdiff {ours}')
        if same and r['what'].startswith(job): return r
    raise KeyError(job, ours, peer)

def job(what, name, ours, peers, notes=('', '')):
    "Make a row about one job, in ms; `notes` say what else differs."
    mine, theirs = notes
    found = [measured(name, ours, p) for p in peers]
    cells = [cell(f"{r['peer_median']:.3g} ms{theirs}", r['ratio']) for r in found]
    cells += ['']*(len(PEERS) - len(peers))
    return row(what, f"{found[0]['ours_median']:.3g} ms{mine}", cells)

def features():
    "Make the rows about what each offers."
    return [row(what, ours, theirs) for what, (ours, *theirs) in FEATURES.items()]

def machine():
    "Name what all this ran on."
    m = read('bench')['machine']
    versions = ', '.join(f'{name} {m[name]}' for name in ('torch', *PEERS))
    return f"{m['cpu']}, {m['cores']} cores, Python {m['python']}, {versions}"

def neighbours():
    "Say what a program beside costs."
    busy = read('bench_busy')
    ways = {r['way']: r['seconds'] for r in busy['rows'] if r['job'] == 'sampling'}
    idle, beside, _ = ways['passive']
    spinning = ways['spinning'][1]
    return (
        f"A laptop is seldom idle. On two cores of an {busy['machine']['cpu']}, {busy['images']} images take "
        f'{idle:.1f} s, and {beside:.1f} s beside a program that keeps a core busy; with waiting threads '
        f"that spin, as PyTorch's do by default, {spinning:.1f} s ([more](https://flowerdiff.github.io/flowerdiff/bench.html)).")

def peer_table():
    "Make the whole table, as Markdown."
    plain = [f'{p} float32' for p in PEERS]
    usual = plain[0] + STEPS[1]
    tuned = f'{DIFFUSERS} bfloat16 channels_last{STEPS[1]}'
    lines = [
        row('', 'flowerdiff', PEERS), '|---|---|---|---|', *features(),
        loop('whole training loop, as each comes'),
        job('one evaluation of the network, as each comes', 'forward pass, ms', 'bfloat16', plain),
        job('the same, all in float32', 'forward pass, ms', 'float32', plain),
        job('an image, as each comes', 'sampling', 'bfloat16', [usual], STEPS),
        job('the same, both in bfloat16', 'sampling', 'bfloat16', [tuned], STEPS),
        '', f'{machine()}. In bold: how many times as fast flowerdiff is.',
        '', neighbours()]
    return '\n'.join(lines)
