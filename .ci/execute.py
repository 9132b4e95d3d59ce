"""Run notebooks from top to bottom by nbdev's rules, and store what they show: `python .ci/execute.py [NOTEBOOK ...]`

Without names, all of them. With `--check` nothing is stored: a notebook fails whose stored text is not what running it
gives. Each runs in a process of its own. Cells marked `#| eval: false` or `#| slow` are not run and keep the outputs
they have; with FLOWERDIFF_SLOW=1 the slow ones run too. Images are stored as JPEG where that is smaller. If a cell
fails, its notebook stays as it was. Images of a data set are never stored, so FLOWERDIFF_DATA is ignored."""
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
from flowerdiff.core import pick_device

top = Path(__file__).resolve().parent.parent
IMAGES = {'image/png', 'image/jpeg'}

# Run

def is_run(cell, flags):
    "Would nbdev run this cell?"
    directives = getattr(cell, 'directives_', {})
    off = directives.get('eval:', [''])[0].lower() == 'false'
    return cell.cell_type == 'code' and not off and not flags & directives.keys()

def execute(path):
    "Run a notebook, without the cells that are left out today; returns it with its new outputs."
    slow = os.environ.get('FLOWERDIFF_SLOW') == '1'
    flags = set() if slow else {*get_config(path=top).tst_flags.split()}
    nb = NBProcessor(path, rm_directives=False, process=True).nb
    os.chdir(path.parent)
    sys.path.insert(0, str(top))
    # nbdev_export in the last cell would rewrite the package under the notebooks that run beside this one
    os.environ['IN_TEST'] = '1'
    def left_out(cell): return not is_run(cell, flags)
    CaptureShell(path, mpl_format='png').run_all(nb, exc_stop=True, preproc=left_out)
    return nb

# Store

def shrink(data):
    "Keep a PNG as JPEG where that takes much less room: noise and photos do, plots do not."
    if 'image/png' not in data: return
    data.pop('image/jpeg', None)
    png = ''.join(data['image/png'])
    stored, out = io.BytesIO(base64.b64decode(png)), io.BytesIO()
    image = Image.open(stored).convert('RGB')
    image.save(out, 'JPEG', quality=87, subsampling=0)
    jpeg = base64.b64encode(out.getvalue()).decode()
    if len(png) <= 20_000 or len(jpeg) >= .6*len(png): return
    del data['image/png']
    data['image/jpeg'] = jpeg

WIDGET = 'application/vnd.jupyter.widget-view+json'

def is_live(output):
    "Is an output a progress bar or a widget? Without its kernel neither can be shown."
    progress = output.get('name') == 'stderr' and '\r' in ''.join(output['text'])
    return progress or WIDGET in output.get('data', {})

def store(nb, path):
    "Write a notebook with its outputs."
    for cell in nb.cells:
        if 'outputs' not in cell: continue
        outputs = [o for o in cell.outputs if not is_live(o)]
        for o in outputs: shrink(o.get('data', {}))
        cell.outputs = outputs
    clean_nb(nb)
    write_nb(nb, path)

# Compare

# lines that differ from run to run, or from one environment to another
CLOCK = re.compile(r'\d ?(s|ms|minutes|MB|images/s)\b|/tmp/|\r|that are installed')
# a comment in a cell all of whose text does, with the reason
VARIES = '# varies: '
NUMBER = r'-?\d[\d,]*\.?\d*(?:e[-+]?\d+)?'

def shown(cell):
    "The lines of text that a cell has printed or returned, without those that tell of the clock."
    if VARIES in cell.source: return []
    lines = []
    for o in cell.get('outputs', []):
        data = o.get('data', {})
        if o.get('name') == 'stderr' or is_live(o) or IMAGES & data.keys(): continue
        text = o.get('text') or data.get('text/plain', '')
        lines += ''.join(text).splitlines()
    return [line for line in lines if not CLOCK.search(line)]

def numbers(line):
    "The numbers in a line."
    return [float(n.replace(',', '')) for n in re.findall(NUMBER, line)]

def words(line):
    "A line without its numbers."
    return re.sub(r'\s+', ' ', re.sub(NUMBER, '', line))

def same(a, b, rel=.05, off=.02):
    "Do two lines have the same words, and numbers that are near each other?"
    # the stored numbers are from a processor with bfloat16; another computes differently
    if pick_device('cpu').dtype != torch.bfloat16: rel = float('inf')
    pairs = zip(numbers(a), numbers(b))
    def near(p, q): return abs(p - q) <= off + rel*max(abs(p), 1e-9)
    return words(a) == words(b) and all(near(*pair) for pair in pairs)

def stale(before, after):
    "Find cells whose stored text is not what running them gives: position, stored line, new line."
    for i, (old, new) in enumerate(zip(before.cells, after.cells)):
        a, b = shown(old), shown(new)
        if len(a) != len(b):
            yield i, f'{len(a)} lines', f'{len(b)} lines: {b[:3]}'
            continue
        for pair in zip(a, b):
            if not same(*pair): yield i, *pair

def run_one(path, check):
    "Run a notebook; store its outputs, or compare them with those that are stored. Returns what is wrong."
    before, nb = read_nb(path), execute(path)
    if not check: return store(nb, path)
    # other images give other numbers
    if os.environ.get('FLOWERDIFF_DATA'): return None
    found = []
    for i, a, b in stale(before, nb):
        found.append(f'{path.name}, cell {i}: stored is {a!r}, now it is {b!r}')
    return '\n'.join(found) or None

def run_all(paths, mode):
    "Run each notebook in a process of its own; returns what is wrong."
    env = {k: v for k, v in os.environ.items() if k != 'FLOWERDIFF_DATA'}
    env['MPLBACKEND'] = 'agg'
    failed = []
    for path in paths or sorted(nbglob(top/'nbs', as_path=True)):
        print(path.name, flush=True)
        command = [sys.executable, __file__, '--one', path.resolve(), *mode]
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL)
        if done.returncode: failed.append(path.name)
    return f'failed, see above: {", ".join(failed)}' if failed else None

if __name__ == '__main__':
    options = [a for a in sys.argv[1:] if a.startswith('--')]
    paths = [Path(a) for a in sys.argv[1:] if not a.startswith('--')]
    check = ['--check'] if '--check' in options else []
    sys.exit(run_one(paths[0], bool(check)) if '--one' in options else run_all(paths, check))
