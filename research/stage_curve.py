"""Compare training in stages with training at 64 px alone: `python research/stage_curve.py FOLDER`

Both begin with nothing, and have the same network, images and settings. A 32 px image costs a quarter of the work of a
64 px one, so stages that see four times as many of them take the same time. The held-out loss at 64 px is measured on
the way. Time is that of the processor: what else the machine does is not counted. The result,
nbs/results/stages.json, is shown by nbs/18_stages.ipynb. It takes 70 minutes of one core for each, and keeps its runs in --out:
stopped, and started again, it begins the run anew that was going."""
import shutil, time
from pathlib import Path
import torch
from fastcore.script import call_parse
from flowerdiff.checkpoints import LogFile
from flowerdiff.data import load_images
from flowerdiff.runs import train
from bench import describe_machine
from common import cached, top, write_json

RESULT = top/'nbs/results/stages.json'
SHARED = dict(model='baseline', lr=8e-4, warmup=200, ema=.998, weight='plain', noise='log_normal')
SMALL = dict(size=32, batch_size=64, noise_options=dict(mean=-.7, std=1.3))
LARGE = dict(size=64, batch_size=32, tail=.4, noise_options=dict(mean=0., std=1.3))

def plans(
    epochs:float, # of 64 px alone
)->dict: # name -> stages
    "Divide the same work in two ways."
    half = epochs/2
    return {
        '64 px alone': [LARGE | dict(epochs=epochs)],
        '32 px, then 64 px': [SMALL | dict(epochs=4*half), LARGE | dict(epochs=half)]}

def run_stage(
    folder:Path, # of the run
    images, # ImageDataset
    held_out, # likewise
    stage:dict, # settings, and epochs
    init:Path, # folder of the stage before, or None
    shared:dict=SHARED, # settings of all stages
)->dict: # minutes of the processor, and held-out losses on the way
    "Train one stage."
    shutil.rmtree(folder, ignore_errors=True)
    size = stage['size']
    began = time.process_time()
    own = shared | stage | dict(init=str(init) if init else None)
    run = train(images.resized(size), folder, held_out=held_out.resized(size), device='cpu', save_minutes=3., **own)
    minutes = (time.process_time() - began)/60
    levels = LogFile(folder/'levels.jsonl').read()
    # the share of the run that was over, and the loss then
    points = [[line['step']/run.step, line['held_out']['loss']] for line in levels]
    return dict(size=size, minutes=minutes, images=run.step*own['batch_size'], points=points)

def curve(
    stages:list, # from run_stage
)->list: # of [minutes since the beginning, held-out loss at 64 px]
    "Find the losses of the last stage, over the time of all."
    *before, last = stages
    start = sum(stage['minutes'] for stage in before)
    return [[start + share*last['minutes'], loss] for share, loss in last['points']]

@call_parse
def main(
    data:str, # folder of the images
    out:str='stage_curve', # folder of the runs
    epochs:float=4., # of 64 px alone
):
    "Train in both ways, and write their curves."
    torch.set_num_threads(1)
    images = load_images(data, 64, split='test+train')
    held_out = load_images(data, 64, split='validation')
    found = {}
    for name, stages in plans(epochs).items():
        done, init = [], None
        for i, stage in enumerate(stages):
            folder = Path(out)/name.replace(' ', '-')/str(i)
            def work(): return run_stage(folder, images, held_out, stage, init)
            file = folder.with_suffix('.json')
            done.append(cached(file, work))
            init = folder
        found[name] = dict(stages=done, curve=curve(done))
        print(name, found[name]['curve'][-1])
    write_json(RESULT, dict(machine=describe_machine('cpu'), settings=SHARED, found=found))
