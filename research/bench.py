"""Compare the speed and memory of flowerdiff with its peers, on this machine.

    python research/bench.py                     a table, in some minutes
    python research/bench.py --json bench.json   and all measurements in a file

The page of the site that explains it is nbs/bench.ipynb."""
import importlib.metadata, importlib.util, inspect, json, os, platform, re, statistics, subprocess, sys, time
from pathlib import Path
from typing import NamedTuple
import torch, torch.nn.functional as F
from fastcore.script import call_parse
from torch.utils.flop_counter import FlopCounterMode
from flowerdiff.attention_unet import AttentionUNet
from flowerdiff.baseline_unet import net_cost
from flowerdiff.cli import check_files, command
from flowerdiff.core import atomic_write, check, check_int, check_known, check_number, first_line, pick_device, user_path
from flowerdiff.models import load

DIFFUSERS, DDPM = PEERS = 'diffusers', 'denoising-diffusion-pytorch'
STEPS = 20 # of DPM-Solver++ in diffusers' pipeline
STATUS = Path('/proc/self/status') # where Linux keeps the peak of a process's memory
JOBS = dict(
    forward='forward pass, ms/picture',
    train='training step, ms/picture',
    sample='sampling, ms/picture',
    compile='forward pass compiled, ms/picture',
    forward_memory='forward pass, peak MB',
    train_memory='training step, peak MB',
    start='60 pictures from nothing')

# The machine

def installed(library): return importlib.util.find_spec(library.replace('-', '_')) is not None

def describe_machine(
    device:str, # 'cpu', 'cuda', ...
)->dict: # what decides the speed: name -> text or number
    "Describe the machine, and the versions of the libraries."
    info = Path('/proc/cpuinfo')
    cpu = re.search(r'model name\s*: (.*)', info.read_text() if info.exists() else '')
    out = dict(cpu=cpu[1] if cpu else platform.processor(), cores=os.cpu_count())
    out |= dict(threads=torch.get_num_threads(), device=device)
    if device.startswith('cuda'): out['gpu'] = torch.cuda.get_device_name(device)
    out['python'] = platform.python_version()
    there = [name for name in ('torch', *PEERS) if installed(name)]
    return out | {name: importlib.metadata.version(name) for name in there}

# What is compared

class Case(NamedTuple):
    "What is compared: one architecture, one batch, one device."
    spec: dict # arguments of AttentionUNet, all of them
    size: int # height and width of an image in pixels
    batch: int # images at once
    device: str # 'cpu', 'cuda', ...
    dim: int = 0 # width of denoising-diffusion-pytorch's U-Net

def full_spec(
    net:dict, # some arguments of AttentionUNet
)->dict: # all of them
    "Add the defaults to arguments of AttentionUNet."
    parameters = inspect.signature(AttentionUNet).parameters
    return {name: p.default for name, p in parameters.items()} | net

def diffusers_unet(
    case:Case, # with the architecture
)->torch.nn.Module: # a UNet2DModel with random weights, for images folded to patches
    "Build diffusers' `UNet2DModel` with the widths, depth and attention of our `AttentionUNet`."
    from diffusers import UNet2DModel, logging
    # it warns of .to(dtype), with an empty list of reasons
    logging.set_verbosity_error()
    s = case.spec
    levels = range(len(s['widths']))
    kinds = ['Attn' if i in s['attention'] else '' for i in levels]
    channels = s['channels']*s['fold']**2
    return UNet2DModel(
        sample_size=case.size//s['fold'],
        in_channels=channels,
        out_channels=channels,
        block_out_channels=tuple(s['widths']),
        layers_per_block=s['depth'],
        attention_head_dim=32,
        norm_num_groups=8,
        dropout=s['dropout'],
        down_block_types=tuple(f'{k}DownBlock2D' for k in kinds),
        up_block_types=tuple(f'{k}UpBlock2D' for k in reversed(kinds)),
        resnet_time_scale_shift='scale_shift',
        time_embedding_dim=s['n_emb'],
        num_class_embeds=s['n_classes'] + 1 if s['n_classes'] else None)

def ddpm_dim(
    gflop:float, # for one image and evaluation
    size:int, # height and width of the image in pixels
)->int: # even, as its embedding wants
    "Find the width at which denoising-diffusion-pytorch's U-Net costs as much."
    from denoising_diffusion_pytorch import Unet
    costs = {}
    for dim in range(8, 514, 2):
        # nothing is computed on this device, but operations are counted
        with torch.device('meta'): _, costs[dim] = net_cost(Unet(dim), size)
        if costs[dim] > gflop: break
    return min(costs, key=lambda d: abs(costs[d] - gflop))

class Candidate(NamedTuple):
    "Who runs, and how."
    who: str = 'flowerdiff' # or one of PEERS
    dtype: str = 'float32' # of the weights; in training that of autocast
    channels_last: bool = False # memory layout
    compiled: bool = False # with torch.compile

    def __str__(self):
        # ours always has that layout
        layout = self.channels_last and self.who != 'flowerdiff'
        words = [self.who, self.dtype] + ['channels_last']*layout + ['compiled']*self.compiled
        return ' '.join(words)

def pairs(
    dtype:str, # our default on the device
)->list: # (ours, peer)
    "Pair our candidates, in float32 and by default, with peers as they come and with diffusers tuned like ours."
    plain, best = Candidate(channels_last=True), Candidate(dtype=dtype, channels_last=True)
    diffusers, ddpm = map(Candidate, PEERS)
    tuned = Candidate(DIFFUSERS, dtype, channels_last=True)
    every = [(plain, diffusers), (best, diffusers), (best, tuned), (plain, ddpm), (best, ddpm)]
    # without 16 bits, plain and best are one
    return [pair for pair in dict.fromkeys(every) if installed(pair[1].who)]

# The jobs

def build_network(
    case:Case,
    c:Candidate,
)->torch.nn.Module: # with random weights, on the case's device
    "Build the network of a candidate."
    torch.manual_seed(0)
    if c.who == 'flowerdiff': net = AttentionUNet(**case.spec)
    elif c.who == DIFFUSERS: net = diffusers_unet(case)
    else:
        from denoising_diffusion_pytorch import Unet
        net = Unet(case.dim)
    layout = torch.channels_last if c.channels_last else torch.preserve_format
    return net.to(case.device, memory_format=layout)

def prepare_call(
    net:torch.nn.Module, # from build_network
    case:Case,
    c:Candidate,
)->tuple: # a function without arguments that returns the network's output, and the noise it is called with
    "Prepare a call of a network, on the same noise, noise levels and labels for everyone."
    torch.manual_seed(0)
    x = torch.randn(case.batch, case.spec['channels'], case.size, case.size)
    t = torch.linspace(-1, 1, case.batch, device=case.device)
    n = case.spec['n_classes']
    label = torch.arange(case.batch, device=case.device) % n if n else None
    if c.who == DIFFUSERS: x = F.pixel_unshuffle(x, case.spec['fold'])
    x = x.to(case.device, next(net.parameters()).dtype)
    if c.who == 'flowerdiff': return lambda: net(x, t, label), x
    if c.who == DDPM: return lambda: net(x, t), x
    if c.channels_last: x = x.contiguous(memory_format=torch.channels_last)
    return lambda: net(x, t, class_labels=label).sample, x

def forward_job(
    case:Case,
    c:Candidate,
): # a function without arguments
    "Prepare a forward pass, as in sampling: weights in the candidate's format, no gradients."
    net = build_network(case, c).eval().to(getattr(torch, c.dtype))
    if c.compiled: net = torch.compile(net)
    call, _ = prepare_call(net, case, c)
    return torch.inference_mode()(call)

def train_job(
    case:Case,
    c:Candidate,
): # a function without arguments
    "Prepare a training step: forward under autocast, backward, AdamW."
    net, dtype = build_network(case, c).train(), getattr(torch, c.dtype)
    call, x = prepare_call(net, case, c)
    opt = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    kind = torch.device(case.device).type
    def step():
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            loss = F.mse_loss(call().float(), x)
        loss.backward()
        opt.step()
        opt.zero_grad()
    return step

def pipeline_job(
    case:Case,
    c:Candidate, # of diffusers
): # a function without arguments that returns images
    "Prepare sampling with diffusers' pipeline and DPM-Solver++, on the same architecture without classes."
    from diffusers import DDPMPipeline, DPMSolverMultistepScheduler
    case = case._replace(spec=case.spec | dict(n_classes=0))
    net = build_network(case, c).eval().to(getattr(torch, c.dtype))
    pipe = DDPMPipeline(net, DPMSolverMultistepScheduler())
    pipe.set_progress_bar_config(disable=True)
    how = dict(batch_size=case.batch, num_inference_steps=STEPS, output_type='pt')
    return lambda: pipe(**how).images.cpu()

def measure_cost(
    case:Case,
    who:str, # 'flowerdiff' or one of PEERS
)->dict: # mparams: parameters in millions, gflop: for one image and evaluation
    "Count parameters and operations, in the very call that is timed."
    c = Candidate(who)
    net = build_network(case, c).eval()
    call, _ = prepare_call(net, case._replace(batch=1), c)
    with FlopCounterMode(display=False) as count, torch.inference_mode(): call()
    params = sum(p.numel() for p in net.parameters())
    return dict(mparams=params/1e6, gflop=count.get_total_flops()/1e9)

# Timing

def interleaved(
    jobs:dict, # name -> function without arguments
    seconds:float, # go on for so long
    case:Case, # of which batch, on which device
    min_turns:int=5, # but make so many turns
)->dict: # name -> milliseconds for each image, turn by turn
    "Time the jobs in turns, every second turn backwards, after warming up."
    def finish():
        # a GPU answers before it is done
        if case.device != 'cpu': torch.accelerator.synchronize(torch.device(case.device))
    def time_one(job):
        finish()
        start = time.perf_counter()
        job()
        finish()
        return (time.perf_counter() - start)*1000/case.batch
    for job in jobs.values(): job()
    times, began, n = {name: [] for name in jobs}, time.perf_counter(), 0
    while n < min_turns or time.perf_counter() - began < seconds:
        order = reversed(jobs) if n % 2 else jobs
        for name in order: times[name].append(time_one(jobs[name]))
        n += 1
    return times

def compare(
    what:str, # the job and its unit
    ours, # name of a candidate
    peer, # name of another
    values:dict, # name -> a number for each turn; less is better
)->dict: # a row of the table; 'ratio' above 1 speaks for us
    "Compute the median of peer/ours within each turn, and the quartiles around it."
    a, b = values[ours], values[peer]
    ratios = [q/p for p, q in zip(a, b)]
    low = mid = high = ratios[0]
    if len(ratios) > 1: low, mid, high = statistics.quantiles(ratios, n=4, method='inclusive')
    medians = dict(ours_median=statistics.median(a), peer_median=statistics.median(b))
    row = dict(what=what, ours=str(ours), peer=str(peer))
    return row | medians | dict(ratio=mid, low=low, high=high, turns=len(a))

# Memory, and the first image: in processes that have done nothing else

def run_python(
    what:str, # for the message
    *args, # of the interpreter
): # what the process printed, from JSON
    "Run Python in a new process."
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True)
    said = (done.stderr.strip() or f'status {done.returncode}').splitlines()[-1]
    check(not done.returncode, f"measuring {what} failed ({said}): try a smaller --batch")
    return json.loads(done.stdout.splitlines()[-1])

def in_new_process(
    name:str, # a function of this module
    *args, # of kinds that JSON knows
): # what it returns
    "Call a function of this module in a new process."
    code = f'import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import bench; '
    code += 'print(json.dumps(getattr(bench, sys.argv[1])(*json.loads(sys.argv[2]))))'
    return run_python(name, '-c', code, name, json.dumps(args))

def peak_mb(
    device:str, # 'cpu', 'cuda', ...
)->float:
    "Read the most memory that was in use at one time since the process began."
    if device.startswith('cuda'): return torch.cuda.max_memory_allocated(device)/2**20
    peak = re.search(r'VmHWM:\s*(\d+)', STATUS.read_text())
    return int(peak[1])/2**10

def measure_memory(
    job:str, # 'forward' or 'train'
    case:list, # values of a Case
    c:list, # values of a Candidate
)->float: # MB
    "Measure the peak memory of a job, beyond what the libraries take."
    for library in PEERS:
        # everyone starts with the same libraries loaded
        if installed(library): importlib.import_module(library.replace('-', '_'))
    if installed(DIFFUSERS): from diffusers import UNet2DModel
    case, c = Case(*case), Candidate(*c)
    # it sets the threads, as load does
    pick_device(case.device)
    before = peak_mb(case.device)
    run = dict(forward=forward_job, train=train_job)[job](case, c)
    for _ in range(3): run()
    return peak_mb(case.device) - before

def measure_start(
    model:str, # as load takes it
    device:str, # 'cpu', 'cuda', ...
)->dict: # pictures, load, cold_preview, cold, warm_preview, warm: seconds; nfe
    "Measure loading, and sampling twice, in a new process."
    return run_python('start', str(Path(__file__).with_name('start.py')), model, device)

# All of it

def compare_compiled(m, case, seconds):
    "Time our own network with and without torch.compile; without a result where that does not work."
    plain = Candidate(dtype=str(m.dtype)[6:], channels_last=True)
    compiled = plain._replace(compiled=True)
    try:
        jobs = {c: forward_job(case, c) for c in (compiled, plain)}
        return interleaved(jobs, seconds, case), [(compiled, plain)]
    # it needs a C++ compiler
    except Exception as e:
        print(f'torch.compile does not work here ({first_line(e)}): left out', file=sys.stderr)
        return {}, []

def compare_sampling(m, case, chosen, seconds):
    "Time sampling with the model's preset against diffusers' pipeline."
    ours = f"flowerdiff {str(m.dtype)[6:]}, {m.plan().nfe:g} evaluations"
    candidates = dict.fromkeys(c for _, c in chosen if c.who == DIFFUSERS)
    peers = {f'{c}, {STEPS} evaluations': pipeline_job(case, c) for c in candidates}
    if not peers: return {}, []
    jobs = {ours: lambda: m.sample(case.batch)} | peers
    return interleaved(jobs, seconds, case, 3), [(ours, p) for p in peers]

def compare_networks(prepare, case, chosen, seconds):
    "Time a job of all candidates."
    candidates = dict.fromkeys(c for pair in chosen for c in pair)
    jobs = {c: prepare(case, c) for c in candidates}
    return interleaved(jobs, seconds, case) if jobs else {}

def compare_memory(job, case, chosen):
    "Measure the memory of a job in three turns, against diffusers only."
    chosen = [pair for pair in chosen if pair[1].who == DIFFUSERS]
    values = {c: [] for pair in chosen for c in pair}
    for _ in range(3):
        for c in values: values[c].append(in_new_process('measure_memory', job, case, c))
    return values, chosen

def measure(
    m, # a Model with an attention U-Net
    model:str, # what it was loaded from
    case:Case, # what is compared
    jobs:list, # keys of JOBS
    seconds:float=20., # for each job that is timed; each gets a few turns in any case
)->dict: # machine, case, networks, missing, rows, values, start
    "Run the jobs."
    every = pairs(str(m.dtype)[6:])
    missing = [p for p in PEERS if not installed(p)]
    there = [who for who in ('flowerdiff', *PEERS) if who not in missing]
    out = dict(machine=describe_machine(case.device), case=case._asdict())
    out['networks'] = {who: measure_cost(case, who) for who in there}
    out |= dict(missing=missing, rows=[], values={}, start=None)
    for job in jobs:
        print(f'measuring: {JOBS[job]} ...', file=sys.stderr)
        chosen = every
        if job == 'start':
            out['start'] = measure_start(model, case.device)
            continue
        if job == 'sample': values, chosen = compare_sampling(m, case, every, seconds)
        elif job == 'compile': values, chosen = compare_compiled(m, case, seconds)
        elif job == 'forward': values = compare_networks(forward_job, case, every, seconds)
        elif job == 'train': values = compare_networks(train_job, case, every, seconds)
        else: values, chosen = compare_memory(job.removesuffix('_memory'), case, every)
        out['rows'] += [compare(JOBS[job], *pair, values) for pair in chosen]
        out['values'][job] = {str(k): v for k, v in values.items()}
    return out

HEADING = 'job', 'ours', 'peer', 'ours', 'peer', 'ratio', 'middle half', 'turns'

def row_cells(row):
    "The cells of a row of the table."
    r, ours = row, row['ours'].removeprefix('flowerdiff ')
    numbers = f"{r['ours_median']:.4g}", f"{r['peer_median']:.4g}", f"{r['ratio']:.2f}x"
    spread = f"{r['low']:.2f}-{r['high']:.2f}" if r['turns'] > 1 else ''
    return r['what'], ours, r['peer'], *numbers, spread, str(r['turns'])

def format_table(
    rows:list, # from compare
)->str: # a line each, below a heading
    "Format rows as text."
    cells = [HEADING, *map(row_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    def line(row):
        texts = [c.ljust(w) for c, w in zip(row[:3], widths)]
        numbers = [c.rjust(w) for c, w in zip(row[3:], widths[3:])]
        return '  '.join(texts + numbers).rstrip()
    return '\n'.join(map(line, cells))

def start_lines(
    s:dict, # from measure_start
)->list: # lines
    "Say how long the first images took."
    first = f"{s['pictures']} pictures, {s['nfe']:g} evaluations each, in a new process: "
    lines = [first + f"import and load {s['load']:.1f} s"]
    for name in ('cold', 'warm'):
        preview = s[f'{name}_preview']
        lines.append(f"    {name}: first preview after {preview:.2f} s, all after {s[name]:.2f} s")
    return lines

def report(
    found:dict, # from measure
)->str: # several lines
    "Format what was measured."
    case, start = found['case'], found['start']
    lines = [', '.join(f'{k} {v}' for k, v in found['machine'].items())]
    lines += [f"batches of {case['batch']}, {case['size']} px", '']
    for who, cost in found['networks'].items():
        lines.append(f"{who}: {cost['mparams']:.2f} M parameters, {cost['gflop']:.2f} GFLOP/picture")
    if found['rows']: lines += ['', format_table(found['rows'])]
    if start: lines += ['', *start_lines(start)]
    for p in found['missing']:
        lines.append(f'{p} is not installed, so nothing is compared with it: pip install {p}')
    return '\n'.join(lines)

def make_case(m, model, batch):
    "The case of a model."
    check(m.config.model == 'attention', f"'{model}' has no attention U-Net, the kind that can be compared: "
          "use attention, or a model trained as such; or --jobs start, which compares with nobody")
    usual = 16 if m.device.type == 'cpu' else 128
    height, width = m.config.size
    check(height == width, f"'{model}' makes images of {height} x {width}: only square ones are compared")
    case = Case(full_spec(m.config.net), height, batch or usual, str(m.device))
    if not installed(DDPM): return case
    gflop = measure_cost(case, 'flowerdiff')['gflop']
    return case._replace(dim=ddpm_dim(gflop, height))

def possible_jobs(jobs, device):
    "Leave out the jobs that cannot be measured here."
    counted = device.startswith('cuda') or device == 'cpu' and STATUS.exists()
    if counted: return jobs
    print('peak memory is measured on Linux and on CUDA only: left out', file=sys.stderr)
    return [j for j in jobs if 'memory' not in j]

@call_parse
@command
def bench(
    model:str='attention', # whose architecture and preset: attention, the folder of a run, or a Hub repository (owner/name)
    batch:int=None, # images at once (16 on a CPU, 128 elsewhere)
    seconds:float=20., # how long each of forward, train and sample takes turns
    jobs:str=None, # some of forward, train, sample, compile, forward_memory, train_memory, start, with commas between (all)
    device:str=None, # cuda, mps or cpu (the best there is)
    json:str=None, # also write all measurements to this file
):
    "Compare flowerdiff with diffusers and denoising-diffusion-pytorch on this machine."
    from json import dumps
    chosen = [j.strip() for j in jobs.split(',')] if jobs else list(JOBS)
    check_known('--jobs', chosen, JOBS)
    if batch is not None: check_int('batch', batch)
    check_number('seconds', seconds, 0)
    check_files(json=json)
    m = load(model, device)
    if chosen == ['start']:
        lines = start_lines(measure_start(model, str(m.device)))
        return print('\n'.join(lines))
    case = make_case(m, model, batch)
    found = measure(m, model, case, possible_jobs(chosen, case.device), seconds)
    text = dumps(found, indent=1) + '\n'
    if json: atomic_write(user_path(json), lambda p: p.write_text(text))
    print(report(found))
