"""Time images of 256 px, next to images of 64 px and to diffusers' network for 256 px: `python research/bench_enlarge.py`

It writes nbs/results/bench_enlarge.json, which the page nbs/bench.ipynb shows. It takes ten minutes on two cores."""
import json, statistics, sys, time
from pathlib import Path
import torch
from flowerdiff.baseline_unet import net_cost
from flowerdiff.models import Model, load
from bench import Case, compare, describe_machine, interleaved, peak_mb, run_python
from common import top, write_json

RESULT = top/'nbs/results/bench_enlarge.json'
MODELS = 'attention', 'baseline'
IMAGES, SMALL, LARGE = 60, 64, 256
# google/ddpm-celebahq-256 and its sisters take as many time steps
STEPS = 1000

def ddpm_unet():
    "Build the network of google/ddpm-celebahq-256, with random weights."
    from diffusers import UNet2DModel
    attention = [False]*4 + [True, False]
    def kinds(way, where): return tuple(f"{'Attn' if a else ''}{way}Block2D" for a in where)
    return UNet2DModel(
        sample_size=LARGE,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=kinds('Down', attention),
        up_block_types=kinds('Up', reversed(attention)),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6).eval()

def time_in_turns(
    jobs:dict, # name -> a function without arguments
    images:int, # that each makes
    turns:int,
)->dict: # name -> milliseconds for each image, turn by turn
    "Time jobs on the CPU, in turns."
    return interleaved(jobs, 0, Case({}, LARGE, images, 'cpu'), turns)

def compare_sizes(
    m:Model, # of 64 px
    turns:int,
)->dict: # a row as from compare; its ratio is that of 256 px over 64 px
    "Time sixty images with and without enlarging."
    def make(size): return lambda: m.sample(IMAGES, size=size)
    jobs = {f'{size} px': make(size) for size in (SMALL, LARGE)}
    times = time_in_turns(jobs, IMAGES, turns)
    return compare(f'{m.config.model}, ms/image', *jobs, times)

def compare_evaluations(
    m:Model, # of 64 px
    turns:int,
)->dict: # ours: ms for an image; theirs: ms for one evaluation; mparams, gflop: of their network
    "Time one of our images, and one evaluation of diffusers' network."
    net = ddpm_unet()
    x = torch.randn(1, 3, LARGE, LARGE)
    @torch.inference_mode()
    def theirs(): return net(x, 500).sample
    def ours(): return m.sample(1, size=LARGE)
    times = time_in_turns(dict(ours=ours, theirs=theirs), 1, turns)
    with torch.device('meta'): mparams, gflop = net_cost(ddpm_unet(), LARGE)
    return times | dict(mparams=mparams, gflop=gflop, steps=STEPS)

def first_image(
    name:str, # of a model
)->dict: # seconds to load, for a first and a second image; MB at the peak, libraries and all
    "Make images of 256 px in a process that has done nothing else."
    began, out = time.perf_counter(), {}
    def lap(what):
        nonlocal began
        now = time.perf_counter()
        out[what], began = now - began, now
    m = load(name, 'cpu')
    lap('load')
    for what in ('first', 'second'):
        m.sample(1, size=LARGE)
        lap(what)
    m.sample(IMAGES, size=LARGE)
    return out | dict(peak_mb=peak_mb('cpu'))

def seconds_text(
    values:list, # milliseconds
)->str:
    "Format the median and the range of times."
    s = [ms/1000 for ms in values]
    return f'{statistics.median(s):.2f} s ({min(s):.2f} to {max(s):.2f})'

def size_line(
    r:dict, # from compare_sizes
)->str:
    "Format the times of both sizes."
    name, _ = r['what'].split(',', 1)
    small, large = (r[key]*IMAGES/1000 for key in ('ours_median', 'peer_median'))
    spread = f"{r['low']:.2f} to {r['high']:.2f}, {r['turns']} turns"
    return f"{name}: {IMAGES} images of {SMALL} px {small:.1f} s, of {LARGE} px {large:.1f} s: {r['ratio']:.2f} times ({spread})"

def first_lines(
    f:dict, # from first_image
)->list: # lines
    "Format what a new process took."
    times = f"load {f['load']:.1f} s, first image {f['first']:.2f} s, second {f['second']:.2f} s"
    peak = f"its peak memory, after {IMAGES} images of {LARGE} px: {f['peak_mb']:,.0f} MB"
    return [f'in a new process: {times}', peak]

def evaluation_lines(
    d:dict, # from compare_evaluations
)->list: # lines
    "Format the time of an image, and what a thousand evaluations would take."
    steps, ours, theirs = d['steps'], d['ours'], d['theirs']
    hours = statistics.median(theirs)*steps/3.6e6
    ratio = statistics.median(steps*b/a for a, b in zip(ours, theirs))
    cost = f"{d['mparams']:.0f} M parameters, {d['gflop']:.0f} GFLOP"
    return [
        f'an image of {LARGE} px, one at a time: {seconds_text(ours)}',
        f"one evaluation of diffusers' network ({cost}): {seconds_text(theirs)}",
        f'{steps:,} of them, computed: {hours:.1f} hours an image, {ratio:,.0f} times as long']

def report(
    found:dict, # what main writes
)->str: # several lines
    "Format what was measured."
    machine = ', '.join(f'{k} {v}' for k, v in found['machine'].items())
    lines = [machine, '', *map(size_line, found['sizes'])]
    lines += ['', *first_lines(found['first'])]
    lines += ['', *evaluation_lines(found['diffusers'])]
    return '\n'.join(lines)

def main():
    models = [load(name, 'cpu') for name in MODELS]
    first = run_python('the first image', __file__, 'first', MODELS[0])
    found = dict(machine=describe_machine('cpu'), first=first)
    found['sizes'] = [compare_sizes(m, 5) for m in models]
    found['diffusers'] = compare_evaluations(models[0], 5)
    print(report(found))
    write_json(RESULT, found)

if __name__ == '__main__':
    if sys.argv[1:2] == ['first']: print(json.dumps(first_image(sys.argv[2])))
    else: main()
