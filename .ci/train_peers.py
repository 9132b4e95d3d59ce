"""Train the peers on the same pictures by the same clock, and judge their pictures as ours are judged.

    python .ci/train_peers.py --data flowers.parquet --minutes 4 --ours runs/bundled/attention runs/bundled/baseline

The peers are diffusers' example of unconditional training with its default network and settings, and
denoising-diffusion-pytorch's Trainer with the settings of its README. Both get their pictures as tensors from memory, so
that no disk slows them down. --ours names runs of flowerdiff, which are judged as they were after as many minutes.
Samples: 50 DDIM steps, and on --few pictures each library's own default. What is in --out already is not made again."""
import argparse, contextlib, importlib.metadata, os, tempfile, time, warnings
from pathlib import Path
import torch
from accelerate import Accelerator
from torchvision.transforms.functional import to_pil_image
from flowerdiff.baseline_unet import net_cost
from flowerdiff.data import load_pictures, without_split
from flowerdiff.evaluation import Extractor, Maker, Reference, evaluate, floor, table
from flowerdiff.pretrained import load
from flowerdiff.training import posthoc, read_log
from make_weights import kept, write_json

class Flowers(torch.utils.data.Dataset):
    "Pictures in [0, 1], mirrored at random, as both peers want them."
    def __init__(self, pictures, change=lambda x: x): self.images, self.change = pictures.images, change
    def __len__(self): return len(self.images)
    def __getitem__(self, i):
        x = self.images[i].float()/255
        return self.change(x.flip(-1) if torch.rand(()) < .5 else x)

def steady(make_step, minutes, sync):
    "Call `step()` until the minutes are over; preparing is not counted. Returns how many steps that were."
    step, n = make_step(), 0
    step(); sync(); began = time.monotonic()
    while time.monotonic() - began < 60*minutes: step(); n += 1
    sync()
    return n

def diffusers_example(pictures, a, sync):
    "examples/unconditional_image_generation/train_unconditional.py with its defaults and --use_ema, as its README runs it."
    from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
    from diffusers.optimization import get_scheduler
    from diffusers.training_utils import EMAModel
    size, widths = pictures.size, (128, 128, 256, 256, 512, 512) if not a.quick else (32, 32)
    plain, last = ['Down'] * (len(widths) - 2) + ['AttnDown', 'Down'], ['Up', 'AttnUp'] + ['Up']*(len(widths) - 2)
    net = UNet2DModel(sample_size=size, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=widths, down_block_types=[f'{k}Block2D' for k in plain], up_block_types=[f'{k}Block2D' for k in last])
    team, ddpm, batch = Accelerator(cpu=a.device == 'cpu'), DDPMScheduler(num_train_timesteps=1000, beta_schedule='linear'), 16
    ema = EMAModel(net.parameters(), decay=.9999, use_ema_warmup=True, inv_gamma=1., power=.75, model_cls=UNet2DModel, model_config=net.config)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(.95, .999), weight_decay=1e-6, eps=1e-8)
    data = torch.utils.data.DataLoader(Flowers(pictures, lambda x: x*2 - 1), batch, shuffle=True)
    net, opt, data, rate = team.prepare(net, opt, data, get_scheduler('cosine', opt, num_warmup_steps=500, num_training_steps=100*len(data)))
    ema.to(team.device)
    def forever():
        while True: yield from data
    def make_step(batches=forever()):
        def step():
            clean = next(batches); noise, t = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),), device=clean.device)
            loss = torch.nn.functional.mse_loss(net(ddpm.add_noise(clean, noise, t), t, return_dict=False)[0].float(), noise)
            team.backward(loss); team.clip_grad_norm_(net.parameters(), 1.); opt.step(); rate.step(); opt.zero_grad()
            ema.step(net.parameters()); loss.detach().item()
        return step
    steps = steady(make_step, a.minutes, sync)
    net = team.unwrap_model(net).eval()
    ema.copy_to(net.parameters())
    quick, whole = DDIMPipeline(net, DDIMScheduler.from_config(ddpm.config)), DDPMPipeline(net, ddpm)
    def sample(n, seed, start, steps):
        pipe = whole if steps == 1000 else quick; pipe.set_progress_bar_config(disable=True)
        x = pipe(batch_size=n, generator=torch.Generator().manual_seed((seed << 32) + start), num_inference_steps=steps, output_type='np').images
        return torch.from_numpy(x).permute(0, 3, 1, 2)*2 - 1
    return steps, batch, sample, 1000, net_cost(Bare(net), size)

class Bare(torch.nn.Module):
    "A network of diffusers that answers with a tensor, as ours do."
    def __init__(self, net): super().__init__(); self.net = net
    def forward(self, x, t): return self.net(x, t).sample

def trainer(pictures, a, sync):
    "denoising-diffusion-pytorch's Trainer, with the settings of its README."
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
    size, dim = pictures.size, 64 if not a.quick else 8
    net = Unet(dim=dim, dim_mults=(1, 2, 4, 8), flash_attn=a.device != 'cpu')
    diffusion = GaussianDiffusion(net, image_size=size, timesteps=1000, sampling_timesteps=250)
    folder = Path(tempfile.mkdtemp()); (folder/'pictures').mkdir()
    for i in range(200): to_pil_image(pictures.images[i % len(pictures)]).save(folder/f'pictures/{i:03}.png')   # it wants a folder; the loader below takes its place
    t = Trainer(diffusion, folder/'pictures', train_batch_size=32, train_lr=8e-5, train_num_steps=700_000, gradient_accumulate_every=2, ema_decay=.995, amp=a.device != 'cpu', calculate_fid=False, save_and_sample_every=10**9, results_folder=folder/'out')
    loader = t.accelerator.prepare(torch.utils.data.DataLoader(Flowers(pictures), 32, shuffle=True))
    def forever():
        while True: yield from loader
    t.dl = forever()
    def make_step():
        def step():
            t.train_num_steps = t.step + 1
            with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere): t.train()
        return step
    steps = steady(make_step, a.minutes, sync)
    made = t.ema.ema_model.eval()
    def sample(n, seed, start, steps):
        torch.manual_seed((seed << 32) + start)
        made.sampling_timesteps, made.is_ddim_sampling = steps, steps < 1000
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stderr(nowhere), torch.inference_mode(): return made.sample(batch_size=n).clamp(0, 1).cpu()*2 - 1
    return steps, 64, sample, 250, net_cost(made.model, size)

PEERS = {'diffusers': diffusers_example, 'denoising-diffusion-pytorch': trainer}

def facts(name, a, steps, batch, cost): return dict(minutes=a.minutes, trained_steps=steps, pictures_seen=steps*batch, mparams=cost[0], gflop=cost[1], versions_of_peer=None if name == 'flowerdiff' else importlib.metadata.version(name))

def of_peer(name, a, pictures, ref, sync):
    "Train one and judge it, twice: 50 steps of DDIM, and its own default."
    steps, batch, sample, own, cost = PEERS[name](pictures, a, sync)
    def maker(k): return Maker(f'{name}, {k} steps', pictures.size, lambda n, seed, start: (sample(n, seed, start, k), k), facts=dict(sampler='DDIM' if k < 1000 else 'DDPM', steps=k))
    return [evaluate(maker(k), ref, n, a.seeds) | facts(name, a, steps, batch, cost) for k, n in ((50 if not a.quick else 4, a.n), (own if not a.quick else 5, a.few))]

def of_ours(folder, a, ref):
    "A run of ours as it was after so many minutes: the snapshot nearest to then, averaged over a tenth of the time so far."
    m, log = load(folder, a.device), read_log(folder)
    there = [int(f.stem) for f in sorted(Path(folder, 'snapshots').glob('*.safetensors'))]
    when = {l['step']: l['seconds']/60 for l in log}
    step = min(there, key=lambda s: abs(min((abs(k - s), v) for k, v in when.items())[1] - a.minutes))
    m.net.load_state_dict(posthoc(folder, .1, step))
    name = Path(folder).name
    maker = Maker(f'flowerdiff {name}, 10 evaluations', m.size, lambda n, seed, start: (m.sample(n, seed=seed, start=start), m.nfe), facts=dict(sampler=m.preset['sampler'], steps=m.preset['steps']))
    return [evaluate(maker, ref, a.n, a.seeds) | facts('flowerdiff', a, step, m.config['training']['settings']['batch_size'], net_cost(m.net, m.size)) | dict(minutes=min((abs(k - step), v) for k, v in when.items())[1])]

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--data', required=True); p.add_argument('--out', type=Path, default=Path('runs/peers')); p.add_argument('--minutes', type=float, default=4.)
    p.add_argument('--who', nargs='*', default=list(PEERS)); p.add_argument('--ours', nargs='*', default=[]); p.add_argument('--held_out', default='validation')
    p.add_argument('--n', type=int, default=2048); p.add_argument('--few', type=int, default=256); p.add_argument('--seeds', type=int, default=1)
    p.add_argument('--size', type=int, default=64); p.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu'); p.add_argument('--quick', action='store_true')
    a = p.parse_args()
    warnings.filterwarnings('ignore', 'FD of')
    sync = torch.cuda.synchronize if a.device.startswith('cuda') else lambda: None
    drawn = a.data.startswith('drawn')
    pictures = load_pictures(a.data, a.size, None if drawn else without_split(a.data, a.size, a.held_out), verbose=False)
    ref = Reference(a.data, Extractor(device=a.device), a.size, a.held_out)
    columns = sum((kept(a.out/f'{name}.json', lambda: of_peer(name, a, pictures, ref, sync)) for name in a.who), [])
    columns += sum((kept(a.out/f'ours-{Path(f).name}.json', lambda: of_ours(f, a, ref)) for f in a.ours), [])
    print(table(columns + [floor(ref, a.n)]))
    for c in columns: print(f"{c['name']}: {c['minutes']:.1f} minutes, {c['trained_steps']:,} steps, {c['pictures_seen']:,} pictures seen, {c['mparams']:.1f} M parameters, {c['gflop']:.2f} GFLOP x {c['nfe']} evaluations = {c['gflop']*c['nfe']:.0f} GFLOP a picture")
    write_json(a.out/'peers.json', dict(columns=columns, floor=floor(ref, a.n), device=torch.cuda.get_device_name() if a.device.startswith('cuda') else 'cpu'))
