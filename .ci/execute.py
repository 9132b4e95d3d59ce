"""Run notebooks from top to bottom by nbdev's rules, and store what they show: `python .ci/execute.py [NOTEBOOK ...]`

Without names, all of them. With `--check` nothing is stored: a notebook fails whose stored text is not what running it gives. Each runs in a process of its own. Cells marked `#| eval: false` or `#| slow` are not run and
keep the outputs they have; with FLOWERDIFF_SLOW=1 the slow ones run too. Pictures are stored as JPEG where that is smaller.
If a cell fails, its notebook stays as it was. Pictures of a data set are never stored, so FLOWERDIFF_DATA is not heeded."""
import base64, io, os, re, subprocess, sys
from pathlib import Path
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import clean_nb
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.process import NBProcessor
from PIL import Image
import torch
from flowerdiff.data import pick_device

top = Path(__file__).resolve().parent.parent

def is_run(cell, flags):
    "Whether nbdev would run this cell"
    d = getattr(cell, 'directives_', {})
    return cell.cell_type == 'code' and d.get('eval:', [''])[0].lower() != 'false' and not flags & d.keys()

def smaller(data):
    "Keep a PNG as JPEG where that takes much less room: noise and pictures do, plots do not."
    if 'image/png' not in data: return
    data.pop('image/jpeg', None)
    png, buf = ''.join(data['image/png']), io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB').save(buf, 'JPEG', quality=87, subsampling=0)
    jpg = base64.b64encode(buf.getvalue()).decode()
    if len(png) > 20_000 and len(jpg) < .6*len(png): data.pop('image/png'); data['image/jpeg'] = jpg

def execute(path, flags=frozenset()):
    "Run the notebook at `path`, without the cells that carry one of `flags`; returns it with its new outputs."
    nb = NBProcessor(path, rm_directives=False, process=True).nb
    os.chdir(path.parent); sys.path.insert(0, str(top))
    CaptureShell(path, mpl_format='png').run_all(nb, exc_stop=True, preproc=lambda c: not is_run(c, flags))
    return nb

clock = re.compile(r'\d ?(s|ms|minutes|MB|pictures/s)\b|/tmp/|\r|that are installed')   # lines that differ from run to run, or from one environment to another
VARIES = '# varies: '   # a comment in a cell all of whose text does, with the reason

def shown(cell):
    "The lines of text that a cell has printed or returned, without those that tell of the clock"
    if VARIES in cell.source: return []
    texts = [o.get('text') or o.get('data', {}).get('text/plain', '') for o in cell.get('outputs', []) if o.get('name') != 'stderr' and not {'image/png', 'image/jpeg'} & {*o.get('data', {})}]
    return [line for t in texts for line in ''.join(t).splitlines() if not clock.search(line)]

def same(a, b, rel=.05, off=.02):
    "Whether two lines say the same: the same words, and numbers that are near each other (if computed alike: the stored ones are from a processor with bfloat16)"
    if pick_device('cpu').dtype != torch.bfloat16: rel = float('inf')
    number = r'-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?'
    x, y = ([float(n.replace(',', '')) for n in re.findall(number, t)] for t in (a, b))
    return re.sub(r'\s+', ' ', re.sub(number, '', a)) == re.sub(r'\s+', ' ', re.sub(number, '', b)) and all(abs(p - q) <= off + rel*max(abs(p), 1e-9) for p, q in zip(x, y))

def stale(before, after):
    "Cells whose stored text is not what running them gives: (position, stored line, new line)"
    for i, (old, new) in enumerate(zip(before.cells, after.cells)):
        a, b = shown(old), shown(new)
        if len(a) != len(b): yield i, f'{len(a)} lines', f'{len(b)} lines: {b[:3]}'
        else: yield from ((i, x, y) for x, y in zip(a, b) if not same(x, y))

def run_one(path, check):
    "Run a notebook; store its outputs, or compare them with those that are stored."
    before, nb = read_nb(path), execute(path, set() if os.environ.get('FLOWERDIFF_SLOW') == '1' else {*get_config(path=top).tst_flags.split()})
    if check: return '\n'.join(f'{path.name}, cell {i}: stored is {a!r}, now it is {b!r}' for i, a, b in stale(before, nb) if not os.environ.get('FLOWERDIFF_DATA')) or 0   # other pictures give other numbers
    for c in nb.cells:
        if 'outputs' in c: c.outputs = [o for o in c.outputs if not (o.get('name') == 'stderr' and '\r' in ''.join(o['text']))]   # progress bars
        for o in c.get('outputs', []): smaller(o.get('data', {}))
    clean_nb(nb); write_nb(nb, path)

if __name__ == '__main__':
    mode, *names = sys.argv[1:] if sys.argv[1:] and sys.argv[1].startswith('--') else ['', *sys.argv[1:]]
    if mode == '--one': sys.exit(run_one(Path(names[0]), len(names) > 1))
    env = {k: v for k, v in os.environ.items() if k != 'FLOWERDIFF_DATA'} | {'MPLBACKEND': 'agg'}
    paths, failed = [Path(p).resolve() for p in names] or sorted(nbglob(top/'nbs', as_path=True)), []
    for p in paths:
        print(p.name, flush=True)
        if subprocess.run([sys.executable, __file__, '--one', p, *[mode]*bool(mode)], env=env, stdin=subprocess.DEVNULL).returncode: failed.append(p.name)
    sys.exit(f'failed, see above: {", ".join(failed)}' if failed else 0)
