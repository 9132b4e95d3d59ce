"""Time sampling, training and a run of the dashboard beside busy neighbours: `python research/bench_busy.py`

Threads share the work of a network, and wait for the slowest of them. Where another process has a core, they wait
long. This measures how much that costs, for three ways to wait. It writes nbs/results/bench_busy.json, which the page
nbs/bench.ipynb shows. It takes some ten minutes on two cores, and wants a machine that does nothing else."""
import json, os, signal, statistics, subprocess, sys, time
from contextlib import contextmanager
from flowerdiff.jobs import SampleJob, SampleSettings
from flowerdiff.models import load
from bench import Candidate, describe_machine, make_case, train_job
from common import top, write_json

RESULT = top/'nbs/results/bench_busy.json'
# what is set before PyTorch is imported; spinning is what OpenMP does by default
WAYS = dict(
    spinning={},
    passive=dict(OMP_WAIT_POLICY='PASSIVE'),
    single=dict(OMP_NUM_THREADS='1'))
NEIGHBOURS = 0, 1, 2
MODEL, IMAGES, STEPS, TURNS = 'attention', 12, 1, 3

# One way, in a process of its own

def make_jobs()->dict: # name -> a function without arguments
    "Prepare what is timed."
    m = load(MODEL, 'cpu')
    step = train_job(make_case(m, MODEL, 16), Candidate(channels_last=True))
    def sample(): m.sample(IMAGES)
    def train():
        for _ in range(STEPS): step()
    def dashboard():
        job = SampleJob(SampleSettings(MODEL, IMAGES), m)
        job.start()
        job.thread.join()
    return dict(sampling=sample, training=train, dashboard=dashboard)

def serve():
    "Time all jobs whenever a line comes in, and print their seconds as JSON."
    jobs = make_jobs()
    for job in jobs.values(): job()
    print('ready', flush=True)
    for _ in sys.stdin:
        seconds = {}
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            seconds[name] = time.perf_counter() - began
        print(json.dumps(seconds), flush=True)

# All ways, in turns

def start_worker(
    settings:dict, # environment variables
)->subprocess.Popen:
    "Start a process that times jobs in one way."
    left = {k: v for k, v in os.environ.items() if not k.startswith('OMP_')}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = subprocess.Popen([sys.executable, __file__, 'serve'], env=left | settings, **pipes)
    assert worker.stdout.readline() == 'ready\n'
    # threads that spin while they wait for work would be neighbours of the other ways
    worker.send_signal(signal.SIGSTOP)
    return worker

def ask(worker:subprocess.Popen)->dict: # job -> seconds
    "Let a worker time its jobs once."
    worker.send_signal(signal.SIGCONT)
    print(file=worker.stdin, flush=True)
    seconds = json.loads(worker.stdout.readline())
    worker.send_signal(signal.SIGSTOP)
    return seconds

@contextmanager
def busy(
    n:int, # processes
):
    "Keep processes of low priority busy, each in a session of its own, as programs of a desktop are."
    command = ['nice', '-n', '19', sys.executable, '-c', 'while True: pass']
    processes = [subprocess.Popen(command, start_new_session=True) for _ in range(n)]
    try: yield
    finally:
        for p in processes: p.kill()

def measure(
    turns:int,
)->dict: # way -> neighbours -> job -> seconds, turn by turn
    "Time all ways beside all numbers of neighbours."
    workers = {name: start_worker(settings) for name, settings in WAYS.items()}
    found = {name: {n: [] for n in NEIGHBOURS} for name in WAYS}
    for _ in range(turns):
        for n in NEIGHBOURS:
            with busy(n):
                for name, worker in workers.items(): found[name][n].append(ask(worker))
    for worker in workers.values(): worker.kill()
    return found

def summarise(
    found:dict, # from measure
)->list: # of rows
    "Take medians: a row for each way and job, with the seconds beside each number of neighbours."
    rows = []
    for way, by_neighbours in found.items():
        for job in next(iter(by_neighbours.values()))[0]:
            seconds = [statistics.median(turn[job] for turn in turns) for turns in by_neighbours.values()]
            rows.append(dict(way=way, job=job, seconds=seconds))
    return rows

def table(
    rows:list, # from summarise
)->str: # Markdown
    "Format the times, and how many times as long each is as the idle time of spinning threads."
    idle = {r['job']: r['seconds'][0] for r in rows if r['way'] == 'spinning'}
    lines = ['| job | threads | idle | beside one program | beside two |', '|---'*5 + '|']
    for r in sorted(rows, key=lambda r: list(idle).index(r['job'])):
        cells = [f"{s:.1f} s ({s/idle[r['job']]:.2f})" for s in r['seconds']]
        lines.append('| ' + ' | '.join([r['job'], r['way'], *cells]) + ' |')
    return '\n'.join(lines)

def main():
    rows = summarise(measure(TURNS))
    write_json(RESULT, dict(machine=describe_machine('cpu'), images=IMAGES, steps=STEPS, turns=TURNS, rows=rows))
    print(table(rows))

if __name__ == '__main__': serve() if sys.argv[1:] == ['serve'] else main()
