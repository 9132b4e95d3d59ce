"""The notebooks are the tests: each is run from top to bottom by nbdev's own rules, in a process of its own, and must say
what is stored in it.

    pytest                      all notebooks, without the cells marked `#| slow`
    FLOWERDIFF_SLOW=1 pytest    all notebooks, with those cells; and those that load pictures once more, on a folder of
                                pictures without labels
"""
import os, re, subprocess, sys
from pathlib import Path
import pytest
from nbdev.doclinks import nbglob

top = Path(__file__).resolve().parent.parent
slow = os.environ.get('FLOWERDIFF_SLOW') == '1'
notebooks = sorted(nbglob(top/'nbs', as_path=True))

def run(nb, **env):
    env = {k: v for k, v in os.environ.items() if k != 'FLOWERDIFF_DATA'} | {'MPLBACKEND': 'agg'} | env  # never a window
    done = subprocess.run([sys.executable, top/'.ci/execute.py', '--one', nb, '--check'], env=env, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f'{nb.name}: see above'

@pytest.mark.parametrize('nb', notebooks, ids=[str(nb.relative_to(top/'nbs')) for nb in notebooks])
def test_notebook(nb): run(nb)

loading = [nb for nb in notebooks if 'load_pictures(os.environ' in nb.read_text(encoding='utf-8')]

@pytest.mark.skipif(not slow, reason='with FLOWERDIFF_SLOW=1')
@pytest.mark.parametrize('nb', loading, ids=[str(nb.relative_to(top/'nbs')) for nb in loading])
def test_without_labels(nb, tmp_path):
    from PIL import Image
    from flowerdiff.data import draw_flowers
    for i, im in enumerate(draw_flowers(160)[0]): Image.fromarray(im.permute(1, 2, 0).numpy()).save(tmp_path/f'{i}.png')
    run(nb, FLOWERDIFF_DATA=str(tmp_path), FLOWERDIFF_SLOW='')

def test_readme_python(tmp_path):
    "The Python in README.md, run from top to bottom as printed."
    blocks = re.findall(r'``` *python\n(.*?)```', (top/'README.md').read_text(encoding='utf-8'), re.S)
    assert len(blocks) >= 3
    subprocess.run([sys.executable, '-c', '\n'.join(blocks)], cwd=tmp_path, check=True, env={**os.environ, 'MPLBACKEND': 'agg'})
