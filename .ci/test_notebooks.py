"""The notebooks are the tests: each is run from top to bottom by nbdev's own rules, in a process of its own.

    pytest                      all notebooks, without the cells marked `#| slow`
    FLOWERDIFF_SLOW=1 pytest    the notebooks that have slow cells, with those cells
"""
import os, re, subprocess, sys
from pathlib import Path
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

top = Path(__file__).resolve().parent.parent
cfg = get_config(path=top)
slow = os.environ.get('FLOWERDIFF_SLOW') == '1'
skip = [] if slow else cfg.tst_flags.split()
code = """import sys; from pathlib import Path; from nbdev.test import test_nb
passed, _ = test_nb(Path(sys.argv[1]), skip_flags=sys.argv[3:], basepath=sys.argv[2])
sys.exit(not passed)"""

def is_slow(nb): return re.search(r'"#\|\s*slow\b', nb.read_text(encoding='utf-8'))

notebooks = [nb for nb in sorted(nbglob(top/'nbs', as_path=True)) if is_slow(nb) or not slow]

@pytest.mark.parametrize('nb', notebooks, ids=[str(nb.relative_to(top/'nbs')) for nb in notebooks])
def test_notebook(nb):
    env = {**os.environ, 'MPLBACKEND': 'agg'}  # never a window
    done = subprocess.run([sys.executable, '-c', code, nb, top, *skip], cwd=nb.parent, env=env, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f'{nb.name}: see the traceback above'
