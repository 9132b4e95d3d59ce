"""Train diffusers' example and flowerdiff with two hours of a laptop's processor each, and judge both.

    python research/first_hours.py flowers.parquet --who diffusers     train and sample one
    python research/first_hours.py flowers.parquet --who flowerdiff    the other, at the same time if there are two cores
    python research/first_hours.py flowers.parquet                     what is left of both, and judge

Each has one thread, and time is that of the processor, so that nothing else counts. flowerdiff's includes the previews
and the losses that it measures on the way. diffusers' example, stopped and started again, goes on at its last save;
flowerdiff's at the beginning of a stage. It stops by the clock, so give it a core of its own: what another program takes
from it is lost to it. The result is nbs/results/first_hours.json, with some samples of both beside it, and how far
flowerdiff's had come at some moments. nbs/first_hours.ipynb shows it."""
import importlib.metadata, time
from pathlib import Path
import torch, torch.nn.functional as F
from fastcore.script import call_parse
from flowerdiff.baseline_unet import net_cost
from flowerdiff.checkpoints import posthoc, snapshot_files
from flowerdiff.core import atomic_write, check_choice, make_folder
from flowerdiff.data import load_images, read_folder
from flowerdiff.distances import Extractor, frechet, kid
from flowerdiff.evaluation import Reference, evaluate, folder_generator, real_baseline, table
from flowerdiff.images import make_grid_image, to_float, write_png
from flowerdiff.models import load
from flowerdiff.settings import read_recipe
from flowerdiff.training import epoch_order, random_hflip
from bench import describe_machine
from common import JUDGE_SEED, cached, held_out_classes, read_json, top, with_preset, write_json
from stage_curve import run_stage

RESULT = top/'nbs/results/first_hours.json'

# length of the average that is judged on the way, relative to the training so far
AVERAGE = .1

# diffusers

class Bare(torch.nn.Module):
    "A network of diffusers that returns a tensor, as ours do."
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, t): return self.net(x, t).sample

def diffusers_net(
    size:int, # height and width of the images
    widths:tuple=(128, 128, 256, 256, 512, 512), # channels
):
    "Make the network of diffusers' example."
    from diffusers import UNet2DModel
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

class Example:
    "diffusers' train_unconditional.py with its defaults, --use_ema and --random_flip, as its README runs it."
    def __init__(self,
        images:torch.Tensor, # uint8 (N, 3, H, W)
        file:Path, # to save to; what is there is gone on with
        **net, # options of diffusers_net
    ):
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel
        torch.manual_seed(0)
        self.images, self.file, self.batch = images, file, 16
        self.step, self.seconds = 0, 0.
        self.net = diffusers_net(images.shape[-1], **net)
        weights = list(self.net.parameters())
        self.noise = DDPMScheduler(num_train_timesteps=1000, beta_schedule='linear')
        self.ema = EMAModel(weights, decay=.9999, use_ema_warmup=True, inv_gamma=1., power=.75)
        self.opt = torch.optim.AdamW(weights, lr=1e-4, betas=(.95, .999), weight_decay=1e-6, eps=1e-8)
        steps = 100*(len(images)//self.batch)
        self.rate = get_scheduler('cosine', self.opt, num_warmup_steps=500, num_training_steps=steps)
        if file.exists(): self.load()

    def parts(self): return dict(net=self.net, ema=self.ema, opt=self.opt, rate=self.rate)

    def save(self):
        "Save all that the next step depends on."
        state = {name: part.state_dict() for name, part in self.parts().items()}
        state |= dict(step=self.step, seconds=self.seconds)
        atomic_write(self.file, lambda p: torch.save(state, p))

    def load(self):
        "Go on with what was saved."
        state = torch.load(self.file, weights_only=True)
        self.step, self.seconds = state['step'], state['seconds']
        for name, part in self.parts().items(): part.load_state_dict(state[name])

    def train_step(self):
        "Learn from one batch."
        epoch, i = divmod(self.step, len(self.images)//self.batch)
        numbers = epoch_order(0, epoch, len(self.images)).split(self.batch)[i]
        torch.manual_seed(self.step)
        clean = to_float(random_hflip(self.images[numbers], torch.rand(self.batch)))
        noise = torch.randn_like(clean)
        t = torch.randint(0, 1000, (len(clean),))
        noisy = self.noise.add_noise(clean, noise, t)
        loss = F.mse_loss(self.net(noisy, t).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.)
        self.opt.step()
        self.rate.step()
        self.opt.zero_grad()
        self.ema.step(self.net.parameters())
        self.step += 1

    def train(self,
        minutes:float, # of the processor, in all
        save_minutes:float=10.,
    ):
        "Train until the time is over."
        saved = self.seconds
        while self.seconds < 60*minutes:
            began = time.process_time()
            self.train_step()
            self.seconds += time.process_time() - began
            if self.seconds - saved < 60*save_minutes: continue
            self.save()
            saved = self.seconds
            print(f'diffusers: {saved/60:.0f} minutes, step {self.step}', flush=True)
        self.save()

    def sampler(self,
        steps:int=50, # of DDIM
    ): # sample(n, start)
        "Make what samples the average."
        from diffusers import DDIMPipeline, DDIMScheduler
        self.ema.copy_to(self.net.parameters())
        scheduler = DDIMScheduler.from_config(self.noise.config)
        pipe = DDIMPipeline(self.net.eval(), scheduler)
        pipe.set_progress_bar_config(disable=True)
        def sample(n, start):
            streams = [torch.Generator().manual_seed(i) for i in range(start, start + n)]
            x = pipe(batch_size=n, generator=streams, num_inference_steps=steps, output_type='np').images
            return torch.from_numpy(x).permute(0, 3, 1, 2)*2 - 1
        return sample

def run_diffusers(job):
    "Train diffusers' example and write its samples; returns what it cost."
    example = Example(job.images.images, job.out/'diffusers.pt')
    example.train(job.minutes)
    params, gflop = net_cost(Bare(example.net), job.images.size)
    write_samples(example.sampler(), job.out/'diffusers', job.n)
    about = dict(minutes=example.seconds/60, images=example.step*example.batch)
    return about | dict(mparams=params, gflop=gflop, nfe=50, sampler='DDIM')

# flowerdiff

def run_flowerdiff(job):
    "Train in the stages of the recipe and write samples; returns what it cost."
    recipe = read_recipe('attention_staged')
    stages, init, done = recipe.pop('stages'), None, []
    recipe.pop('held_out')
    for i, stage in enumerate(stages):
        folder = job.out/f'stage-{i}'
        def work(): return run_stage(folder, job.images, job.held_out, stage, init, recipe)
        del stage['epochs']
        stage |= dict(minutes=job.minutes/len(stages), tracks=[.05, .1])
        done.append(cached(folder.with_suffix('.json'), work))
        init = folder
    m = with_preset(load(init), load('attention').config.preset)
    plan = m.plan()
    def sample(n, start): return m.sample(n, classes=job.classes, seed=JUDGE_SEED, start=start, plan=plan)
    write_samples(sample, job.out/'flowerdiff', job.n)
    params, gflop = net_cost(m.net, m.config.size[0])
    about = dict(minutes=sum(s['minutes'] for s in done), images={s['size']: s['images'] for s in done})
    about |= dict(nfe=plan.nfe, sampler=plan.sampler, guidance=plan.guidance.weight)
    return about | dict(mparams=params, gflop=gflop)

# Judge

def write_samples(
    sample, # sample(n, start) -> images in [-1, 1]
    folder:Path, # for numbered files; those that are there stay
    n:int, # images in all
    batch:int=16,
):
    "Write samples one by one."
    make_folder(folder)
    for start in range(0, n, batch):
        files = [folder/f'{i:04}.png' for i in range(start, min(n, start + batch))]
        if all(file.exists() for file in files): continue
        for image, file in zip(sample(len(files), start), files): write_png(image, file, {})

def judge(name, job, ref):
    "Compare the samples of one with held-out images, and show some."
    folder = job.out/name
    grid = make_grid_image(torch.stack(read_folder(folder)[:24]), 8)
    file = RESULT.with_suffix('')/f'{name}.jpg'
    make_folder(file.parent)
    atomic_write(file, lambda p: grid.save(p, 'JPEG', quality=90))
    column = evaluate(folder_generator(folder), ref, against='held_out')
    return column | read_json(job.out/f'{name}.json')

def judge_progress(
    job,
    ref:Reference, # real images
    count:int=6, # moments in a stage
    n:int=256, # samples at each
)->list: # of minutes, images seen so far, size of the stage, FD and KID
    "Judge what flowerdiff had learnt at some moments: the average of the weights until then."
    found, minutes, images = [], 0., 0
    for file in sorted(job.out.glob('stage-*.json')):
        stage, folder = read_json(file), file.with_suffix('')
        m = with_preset(load(folder), load('attention').config.preset)
        steps = [int(f.stem) for f in snapshot_files(folder)]
        for k in range(1, count + 1):
            step = steps[k*len(steps)//count - 1]
            share = step/steps[-1]
            m.net.load_state_dict(posthoc(folder, AVERAGE, step))
            drawn = m.sample(n, classes=job.classes, seed=JUDGE_SEED)
            large = F.interpolate(drawn, job.images.size, mode='bicubic', antialias=True)
            made = ref.extract(large.clamp(-1, 1))
            point = dict(size=stage['size'], minutes=minutes + share*stage['minutes'])
            point['images'] = images + round(share*stage['images'])
            point |= dict(fd=frechet(made, ref.unseen), kid=kid(made, ref.unseen).value)
            print(point, flush=True)
            found.append(point)
        minutes += stage['minutes']
        images += stage['images']
    return found

WHO = dict(diffusers=run_diffusers, flowerdiff=run_flowerdiff)

class Job:
    "The images, the time, and where results go."
    def __init__(self, data, out, minutes, n):
        self.data, self.out, self.minutes, self.n = data, make_folder(out), minutes, n
        self.images = load_images(data, 64, split='test+train')
        self.held_out = load_images(data, 64, split='validation')
        # as frequent as in the images that they are compared with
        self.classes = held_out_classes(load('attention'), self.held_out)

@call_parse
def main(
    data:str, # folder of the images, or as in load_images
    out:str='runs/first_hours', # folder of what is done
    who:str=None, # diffusers or flowerdiff, without judging (both)
    minutes:float=120., # of the processor, for each
    n:int=64, # samples of each
):
    "Train both for the same time, and judge their samples."
    if who: check_choice('--who', who, WHO)
    torch.set_num_threads(1)
    job = Job(data, Path(out), minutes, n)
    for name in [who] if who else WHO: cached(job.out/f'{name}.json', lambda: WHO[name](job))
    if who: return
    ref = Reference(data, Extractor(device='cpu'), 64)
    columns = [judge(name, job, ref) for name in WHO]
    progress = cached(job.out/'progress.json', lambda: judge_progress(job, ref))
    floor = real_baseline(ref, n, against='held_out')
    print(table([*columns, floor]))
    versions = dict(diffusers=importlib.metadata.version('diffusers'))
    result = dict(columns=columns, floor=floor, progress=progress)
    write_json(RESULT, result | dict(machine=describe_machine('cpu'), versions=versions))
