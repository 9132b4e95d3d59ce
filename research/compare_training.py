"""Compare ways to train, each with as much time of the processor: `python research/compare_training.py FOLDER`

The plain U-Net learns 32 px images from nothing, by AdamW (with two seeds: what differs by less than they do is
chance), by Muon, and from patches. The loss is that of whole held-out images. Time is that of the processor, without
measuring. The result is nbs/results/training.json. What is in --out is not made again."""
import time
from pathlib import Path
import torch
from fastcore.script import call_parse
from flowerdiff.baseline_unet import BaselineUNet, conv3x3
from flowerdiff.data import load_images
from flowerdiff.denoiser import SIGMA_DISTRIBUTIONS
from flowerdiff.images import to_float
from flowerdiff.schedule import schedule_sigmas
from flowerdiff.training import Trainer
from bench import describe_machine
from common import cached, top, write_json

RESULT = top/'nbs/results/training.json'
SETTINGS = dict(batch_size=64, lr=8e-4, warmup=100, ema=.995, weight='plain', noise='log_normal')
NOISE = dict(mean=-.7, std=1.3)

# Patches

def places(
    n:int, # images
    size:int, # height and width
)->torch.Tensor: # (n, 2, size, size): y and x, -1 to 1
    "Say where on the image each pixel is."
    line = torch.linspace(-1, 1, size)
    one = torch.meshgrid(line, line, indexing='ij')
    return torch.stack(one).expand(n, -1, -1, -1)

class PatchUNet(BaselineUNet):
    "A plain U-Net that learns from patches, and knows where they are (Wang et al. 2023)."
    def __init__(self, n_classes:int):
        super().__init__(n_classes)
        self.inp = conv3x3(self.channels + 2, self.inp.out_channels)

    def prepare(self, images, n, mine):
        "Cut patches of half the size out of every other batch."
        size = images.shape[-1]
        half = size//2
        where = places(n, size)
        if torch.rand(()) < .5: return images, dict(where=where)
        corners = torch.randint(0, half + 1, (n, 2)).tolist()
        def cut(x):
            parts = [one[:, i:i + half, j:j + half] for one, (i, j) in zip(x, corners)]
            return torch.stack(parts)
        return cut(images), dict(where=cut(where))

    def forward(self, x, c_noise, label=None, where=None):
        "Predict; without places, for whole images."
        if where is None: where = places(len(x), x.shape[-1])
        return super().forward(torch.cat([x, where], 1), c_noise, label)

# The comparison

WAYS = {
    'AdamW': dict(),
    'AdamW, another seed': dict(seed=1),
    'Muon': dict(optimizer='muon'),
    'patches': dict(net=PatchUNet)}

def make_trainer(
    images, # ImageDataset
    net=BaselineUNet, # class of the network
    seed:int=0,
    **settings, # of Trainer
)->Trainer:
    "Make what trains in one of the ways."
    torch.manual_seed(seed)
    own = net(n_classes=len(images.class_names))
    how = SETTINGS | settings
    return Trainer(own, images, schedule_sigmas('cosine'), device='cpu', seed=seed, noise_options=NOISE, **how)

@torch.no_grad()
def held_out_loss(
    t:Trainer,
    images, # ImageDataset
    n:int=512, # of its images
)->float:
    "Measure the loss of the average on whole images, at eight noise levels."
    x0 = to_float(images.images[:n])
    label = images.labels[:n]
    noise = torch.Generator().manual_seed(0)
    eps = torch.randn(x0.shape, generator=noise)
    u = torch.arange(1, 16, 2)/16
    sigmas = SIGMA_DISTRIBUTIONS[t.noise](u, t.sigmas, **NOISE)
    denoise = t.net.denoiser(t.ema.net, t.prediction, t.sigma_data)
    losses = [denoise.loss(x0, s.expand(len(x0)), eps, t.weight, label=label) for s in sigmas]
    return torch.cat(losses).mean().item()

def train_for(
    minutes:float, # of the processor
    t:Trainer,
    held_out, # ImageDataset
    points:int=6, # how often the loss is measured
)->dict: # images seen, and [minutes, loss] on the way
    "Train, and measure on the way."
    spent, curve = 0., []
    for i in range(1, points + 1):
        while spent < i*minutes*60/points:
            began = time.process_time()
            t.train_step()
            spent += time.process_time() - began
        curve.append([spent/60, held_out_loss(t, held_out)])
        print(curve[-1], flush=True)
    return dict(images=t.step*t.batch, curve=curve)

@call_parse
def main(
    data:str, # folder of the images, or as in load_images
    out:str='runs/compare_training', # folder of what is done
    minutes:float=12., # of the processor, for each way
):
    "Train in each way, and write the losses."
    torch.set_num_threads(1)
    images = load_images(data, 32, split='test+train')
    held_out = load_images(data, 32, split='validation')
    found = {}
    for name, how in WAYS.items():
        print(name)
        file = Path(out)/f"{name.replace(', ', '-').replace(' ', '-')}.json"
        found[name] = cached(file, lambda: train_for(minutes, make_trainer(images, **how), held_out))
    result = dict(machine=describe_machine('cpu'), minutes=minutes, settings=SETTINGS | NOISE, found=found)
    write_json(RESULT, result)
