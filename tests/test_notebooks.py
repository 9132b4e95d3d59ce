"""The notebooks are the tests: each is run from top to bottom by nbdev's own rules, in a process of its own, and must
say what is stored in it.

    pytest                      all notebooks, without the cells marked `#| slow`
    FLOWERDIFF_SLOW=1 pytest    all notebooks, with those cells
"""
import os, re, subprocess, sys
from pathlib import Path
import pytest
from nbdev.doclinks import nbglob

top = Path(__file__).resolve().parent.parent
notebooks = sorted(nbglob(top/'nbs', as_path=True))

def every(paths):
    "Run a test for each notebook."
    names = [str(p.relative_to(top/'nbs')) for p in paths]
    return pytest.mark.parametrize('nb', paths, ids=names)

@every(notebooks)
def test_notebook(nb):
    "Run a notebook, and compare what it says with what is stored."
    env = dict(os.environ)
    env.pop('FLOWERDIFF_DATA', None)
    command = [sys.executable, top/'.ci/execute.py', '--one', nb, '--check']
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f'{nb.name}:\n{done.stdout}'

def test_readme_python(tmp_path):
    "The Python in README.md, run from top to bottom as printed."
    readme = (top/'README.md').read_text(encoding='utf-8')
    blocks = re.findall(r'``` *python\n(.*?)```', readme, re.S)
    assert len(blocks) >= 3
    subprocess.run([sys.executable, '-c', '\n'.join(blocks)], cwd=tmp_path, check=True)
