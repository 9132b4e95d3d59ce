"""Train the peers on the same images by the same clock, and judge their images as ours are judged.

    python research/train_peers.py flowers.parquet --minutes 4 --ours runs/bundled/attention,runs/bundled/baseline

The peers are diffusers' example of unconditional training with its default network and settings, and
denoising-diffusion-pytorch's Trainer with the settings of its README. Both get their images as tensors from memory, so
that no disk slows them down. --ours names runs of flowerdiff, which are judged as they were after as many minutes.
Samples: 50 DDIM steps, and on --few images each library's own default. What is in --out already is not made again."""
import contextlib, importlib.metadata, os, tempfile, time, warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
import torch, torch.nn.functional as F
from accelerate import Accelerator
from fastcore.script import call_parse, store_true
from torchvision.transforms.functional import to_pil_image
from flowerdiff.baseline_unet import net_cost
from flowerdiff.core import check
from flowerdiff.data import load_images, without_split
from flowerdiff.distances import Extractor
from flowerdiff.evaluation import Generator, Reference, evaluate, model_generator, real_baseline, table
from flowerdiff.models import load
from flowerdiff.checkpoints import posthoc, read_log
from common import cached, describe_device, write_json

DIFFUSERS, DDPM = 'diffusers', 'denoising-diffusion-pytorch'

class Flowers(torch.utils.data.Dataset):
    "Images in [0, 1], or in [-1, 1] if signed, mirrored at random, as both peers want them."
    def __init__(self, data, signed=False): self.images, self.signed = data.images, signed

    def __len__(self): return len(self.images)

    def __getitem__(self, i):
        x = self.images[i].float()/255
        if torch.rand(()) < .5: x = x.flip(-1)
        return x*2 - 1 if self.signed else x

class TrainedPeer(NamedTuple):
    "A peer after its training."
    steps: int # of the optimizer
    batch: int # images in a step
    sample: Callable # sample(n, seed, start, steps) -> images in [-1, 1]
    default_steps: int # how many its pipeline takes by itself
    cost: tuple # parameters in millions, GFLOP for one image and evaluation

def endless(loader):
    "Batches of a loader, epoch after epoch."
    while True: yield from loader

def train_for(step, job):
    "Call a training step until the minutes are over; returns how many. The first, which prepares things, does not count."
    n = 0
    step()
    job.wait()
    began = time.monotonic()
    while time.monotonic() - began < 60*job.minutes:
        step()
        n += 1
    job.wait()
    return n

@contextlib.contextmanager
def silence():
    "Swallow what is printed."
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        with contextlib.redirect_stderr(nowhere): yield

# diffusers

class Bare(torch.nn.Module):
    "A network of diffusers that returns a tensor, as ours do."
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t): return self.net(x, t).sample

def diffusers_net(size, quick):
    "The network of diffusers' example."
    from diffusers import UNet2DModel
    widths = (32, 32) if quick else (128, 128, 256, 256, 512, 512)
    plain = len(widths) - 2
    down = ['Down']*plain + ['AttnDown', 'Down']
    up = ['Up', 'AttnUp'] + ['Up']*plain
    return UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=[f'{k}Block2D' for k in down],
        up_block_types=[f'{k}Block2D' for k in up])

def diffusers_example(data, job):
    "examples/unconditional_image_generation/train_unconditional.py with its defaults and --use_ema, as its README runs it."
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel
    net, batch = diffusers_net(data.size, job.quick), 16
    accelerator = Accelerator(cpu=job.device == 'cpu')
    ddpm = DDPMScheduler(num_train_timesteps=1000, beta_schedule='linear')
    warm = dict(use_ema_warmup=True, inv_gamma=1., power=.75)
    ema = EMAModel(net.parameters(), decay=.9999, model_cls=UNet2DModel, model_config=net.config, **warm)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(.95, .999), weight_decay=1e-6, eps=1e-8)
    loader = torch.utils.data.DataLoader(Flowers(data, signed=True), batch, shuffle=True)
    rate = get_scheduler('cosine', opt, num_warmup_steps=500, num_training_steps=100*len(loader))
    net, opt, loader, rate = accelerator.prepare(net, opt, loader, rate)
    ema.to(accelerator.device)
    batches = endless(loader)
    def step():
        clean = next(batches)
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (len(clean),), device=clean.device)
        noisy = ddpm.add_noise(clean, noise, t)
        loss = F.mse_loss(net(noisy, t, return_dict=False)[0].float(), noise)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(net.parameters(), 1.)
        opt.step()
        rate.step()
        opt.zero_grad()
        ema.step(net.parameters())
        # its example logs every loss, which waits for the device
        loss.detach().item()
    steps = train_for(step, job)
    net = accelerator.unwrap_model(net).eval()
    ema.copy_to(net.parameters())
    ddim = DDIMScheduler.from_config(ddpm.config)
    pipelines = {True: DDPMPipeline(net, ddpm), False: DDIMPipeline(net, ddim)}
    def sample(n, seed, start, steps):
        pipe = pipelines[steps == 1000]
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed((seed << 32) + start)
        x = pipe(batch_size=n, generator=generator, num_inference_steps=steps, output_type='np').images
        return torch.from_numpy(x).permute(0, 3, 1, 2)*2 - 1
    return TrainedPeer(steps, batch, sample, 1000, net_cost(Bare(net), data.size))

# denoising-diffusion-pytorch

def placeholder_folder(data):
    "A folder of images, because its Trainer wants one; a loader from memory takes its place."
    folder = Path(tempfile.mkdtemp())
    for i in range(200):
        image = to_pil_image(data.images[i % len(data)])
        image.save(folder/f'{i:03}.png')
    return folder

def ddpm_trainer(data, job):
    "denoising-diffusion-pytorch's Trainer, with the settings of its README."
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
    on_gpu, folder = job.device != 'cpu', placeholder_folder(data)
    net = Unet(dim=8 if job.quick else 64, dim_mults=(1, 2, 4, 8), flash_attn=on_gpu)
    diffusion = GaussianDiffusion(net, image_size=data.size, timesteps=1000, sampling_timesteps=250)
    trainer = Trainer(
        diffusion, folder,
        train_batch_size=32,
        train_lr=8e-5,
        train_num_steps=700_000,
        gradient_accumulate_every=2,
        ema_decay=.995,
        amp=on_gpu,
        calculate_fid=False,
        save_and_sample_every=10**9,
        results_folder=tempfile.mkdtemp())
    loader = torch.utils.data.DataLoader(Flowers(data), 32, shuffle=True)
    trainer.dl = endless(trainer.accelerator.prepare(loader))
    def step():
        trainer.train_num_steps = trainer.step + 1
        with silence(): trainer.train()
    steps = train_for(step, job)
    average = trainer.ema.ema_model.eval()
    def sample(n, seed, start, steps):
        torch.manual_seed((seed << 32) + start)
        average.sampling_timesteps, average.is_ddim_sampling = steps, steps < 1000
        with silence(), torch.inference_mode(): x = average.sample(batch_size=n)
        return x.clamp(0, 1).cpu()*2 - 1
    return TrainedPeer(steps, 2*32, sample, 250, net_cost(average.model, data.size))

PEERS = {DIFFUSERS: diffusers_example, DDPM: ddpm_trainer}

# Judge

def judge_peer(name, peer, job, steps, n):
    "Judge a peer that samples in a number of steps."
    def make(n, seed, start): return peer.sample(n, seed, start, steps), steps
    how = dict(sampler='DDIM' if steps < 1000 else 'DDPM', steps=steps)
    size = tuple(job.ref.train.images.shape[2:])
    generator = Generator(f'{name}, {steps} steps', size, make, facts=how)
    params, gflop = peer.cost
    about = dict(minutes=job.minutes, trained_steps=peer.steps, pictures_seen=peer.steps*peer.batch)
    about |= dict(mparams=params, gflop=gflop, versions_of_peer=importlib.metadata.version(name))
    return evaluate(generator, job.ref, n, job.seeds) | about

def train_and_judge(name, data, job):
    "Train a peer and judge it, twice: 50 steps of DDIM, and its own default."
    peer = PEERS[name](data, job)
    short, own = (4, 5) if job.quick else (50, peer.default_steps)
    return [judge_peer(name, peer, job, short, job.n), judge_peer(name, peer, job, own, job.few)]

def snapshot_within(folder, minutes):
    "Find the last snapshot of a run from within its first minutes: its step, and when that was."
    log, found = read_log(folder), None
    for file in sorted(Path(folder, 'snapshots').glob('*.safetensors')):
        step = int(file.stem)
        # the first line of the log from the snapshot's step on; the snapshot is not younger
        after = [line['seconds']/60 for line in log if line['step'] >= step]
        if after and after[0] <= minutes: found = step, after[0]
    check(found, f"{folder} has no snapshot of its first {minutes:g} minutes: give more of them, or train with tracks")
    return found

def judge_ours(folder, job):
    "Judge a run of ours as it was after as many minutes, averaged over a tenth of the time until then."
    m = load(folder, job.device)
    step, minutes = snapshot_within(folder, job.minutes)
    m.net.load_state_dict(posthoc(folder, .1, step))
    generator = model_generator(m, f'flowerdiff {Path(folder).name}, {m.plan().nfe:g} evaluations')
    batch = m.config.training['settings']['batch_size']
    params, gflop = net_cost(m.net, m.config.size[0])
    about = dict(minutes=minutes, trained_steps=step, pictures_seen=step*batch)
    about |= dict(mparams=params, gflop=gflop, versions_of_peer=None)
    return [evaluate(generator, job.ref, job.n, job.seeds) | about]

def cost_line(c):
    "Say what a column cost."
    seen = f"{c['minutes']:.1f} minutes, {c['trained_steps']:,} steps, {c['pictures_seen']:,} images seen"
    work = f"{c['gflop']:.2f} GFLOP x {c['nfe']} evaluations = {c['gflop']*c['nfe']:.0f} GFLOP an image"
    return f"{c['name']}: {seen}, {c['mparams']:.1f} M parameters, {work}"

@call_parse
def train_peers(
    data:str, # parquet file or folder, folder of images, Hub id, torchvision, drawn or drawn:N
    out:str='runs/peers', # folder for results
    minutes:float=4., # of training for each
    who:str=','.join(PEERS), # which peers, with commas between
    ours:str='', # folders of our runs, with commas between
    held_out:str='validation', # split that is not trained on
    n:int=2048, # samples to judge by
    few:int=256, # samples with each peer's own default
    seeds:int=1, # how often to judge
    size:int=64, # height and width of the images in pixels
    device:str=None, # cuda or cpu (the best there is)
    quick:store_true=False, # tiny networks, to try the script
):
    "Train the peers, and judge them next to runs of flowerdiff."
    warnings.filterwarnings('ignore', 'FD of')
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    wait = torch.cuda.synchronize if device.startswith('cuda') else lambda: None
    job = SimpleNamespace(minutes=minutes, device=device, quick=quick, wait=wait)
    job.n, job.few, job.seeds = n, few, seeds
    if data.startswith('drawn'): held_out, split = None, None
    else: split = without_split(data, size, held_out)
    images = load_images(data, size, split, verbose=False)
    job.ref = Reference(data, Extractor(device=device), size, held_out)
    columns, out = [], Path(out)
    for name in filter(None, who.split(',')):
        columns += cached(out/f'{name}.json', lambda: train_and_judge(name, images, job))
    for folder in filter(None, ours.split(',')):
        columns += cached(out/f'ours-{Path(folder).name}.json', lambda: judge_ours(folder, job))
    baseline = real_baseline(job.ref, n)
    print(table([*columns, baseline]))
    for column in columns: print(cost_line(column))
    write_json(out/'peers.json', dict(columns=columns, floor=baseline, device=describe_device()))
