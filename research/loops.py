"""Compare whole training loops, each with what its library does by default: `python research/loops.py`

It writes nbs/results/loops.json, which the page nbs/bench.ipynb shows. It takes some ten minutes on two cores."""
import contextlib, io, statistics, tempfile, time
from pathlib import Path
import torch, torch.nn.functional as F
from accelerate import Accelerator
from datasets import load_dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image
from flowerdiff.data import load_images
from flowerdiff.images import draw_flowers
from flowerdiff.runs import Run
from flowerdiff.settings import Settings
from bench import Case, ddpm_dim, describe_machine, diffusers_unet, full_spec, measure_cost
from common import top, write_json

BATCH, SIZE = 16, 64

def save_flowers(folder):
    "Save 512 drawn flowers as JPEG files."
    images, _ = draw_flowers(512)
    for i, image in enumerate(images): to_pil_image(image).save(folder/f'{i:03}.jpg', quality=95)

def make_run(folder):
    "Make a run of ours."
    settings = Settings('attention', SIZE, BATCH)
    return Run(settings, load_images(str(folder), SIZE), tempfile.mkdtemp(), device='cpu')

def our_loop(folder, step=0):
    "Train as flowerdiff does, from a step on."
    run = make_run(folder)
    run.step = step
    while True:
        run.train_step()
        if run.step % 10 == 0: run.meter.read()
        yield

def bare_loop(folder):
    "Nothing but forward, backward and optimizer, on one batch."
    run = make_run(folder)
    x0, sigma, eps, cond = run.draw_batch()
    while True:
        run.loss(x0, sigma, eps, cond).mean().backward()
        run.opt.step()
        run.opt.zero_grad()
        yield

def diffusers_loop(folder, case):
    "Train as the example of diffusers does, with the same network."
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_scheduler
    accelerator, net = Accelerator(cpu=True), diffusers_unet(case)
    ddpm = DDPMScheduler(num_train_timesteps=1000, beta_schedule='linear')
    change = transforms.Compose([
        transforms.Resize(SIZE), transforms.RandomCrop(SIZE), transforms.RandomHorizontalFlip(),
        transforms.ToTensor(), transforms.Normalize([.5], [.5])])
    data = load_dataset('imagefolder', data_dir=str(folder), split='train')
    data.set_transform(lambda rows: dict(input=[change(im.convert('RGB')) for im in rows['image']]))
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(.95, .999), weight_decay=1e-6)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True)
    rate = get_scheduler('cosine', opt, num_warmup_steps=500, num_training_steps=10_000)
    net, opt, loader, rate = accelerator.prepare(net, opt, loader, rate)
    while True:
        for batch in loader:
            clean = batch['input']
            noise, t = torch.randn_like(clean), torch.randint(0, 1000, (len(clean),))
            noisy = F.pixel_unshuffle(ddpm.add_noise(clean, noise, t), 2)
            out = F.pixel_shuffle(net(noisy, t).sample, 2)
            loss = F.mse_loss(out.float(), noise)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(net.parameters(), 1.)
            opt.step()
            rate.step()
            opt.zero_grad()
            loss.detach().item()
            yield

def ddpm_loop(folder, case):
    "Train as denoising-diffusion-pytorch does, with a network that takes as much work."
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer, Unet
    diffusion = GaussianDiffusion(Unet(case.dim), image_size=SIZE)
    how = dict(calculate_fid=False, save_and_sample_every=10**9, results_folder=tempfile.mkdtemp())
    trainer = Trainer(diffusion, folder, train_batch_size=BATCH, **how)
    while True:
        trainer.train_num_steps = trainer.step + 1
        with contextlib.redirect_stdout(io.StringIO()): trainer.train()
        yield

def rate_of(loop, steps=12):
    "Measure the images per second of some steps."
    began = time.perf_counter()
    for _ in range(steps): next(loop)
    return BATCH*steps/(time.perf_counter() - began)

def take_turns(loops, turns, steps=12):
    "Measure the rates of loops, every second turn backwards, after warming up."
    for loop in loops.values(): rate_of(loop, 3)
    rates = {name: [] for name in loops}
    for k in range(turns):
        order = reversed(loops) if k % 2 else loops
        for name in order: rates[name].append(rate_of(loops[name], steps))
    return rates

def main():
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        save_flowers(folder)
        case = Case(full_spec({}), SIZE, BATCH, 'cpu')
        case = case._replace(dim=ddpm_dim(measure_cost(case, 'flowerdiff')['gflop'], SIZE))
        loops = dict(flowerdiff=our_loop(folder), diffusers=diffusers_loop(folder, case))
        rates = take_turns(loops | dict(denoising_diffusion_pytorch=ddpm_loop(folder, case)), 7)
        own = take_turns(dict(bare=bare_loop(folder), loop=our_loop(folder, 200)), 16, 4)
    found = {}
    for name, each in rates.items():
        ratios = [a/b for a, b in zip(rates['flowerdiff'], each)]
        found[name] = dict(rate=statistics.median(each), ratios=sorted(ratios))
        print(f'{name:28} {found[name]["rate"]:6.1f} images/s   ours: {statistics.median(ratios):.2f}x')
    outside = [100*(bare/loop - 1) for bare, loop in zip(own['bare'], own['loop'])]
    low, middle, high = statistics.quantiles(outside, n=4, method='inclusive')
    print(f'outside forward, backward and optimizer: {middle:.1f} % (middle half {low:.1f} to {high:.1f})')
    write_json(top/'nbs/results/loops.json', dict(machine=describe_machine('cpu'), loops=found))

if __name__ == '__main__': main()
