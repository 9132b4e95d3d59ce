"""The scripts of research/: what they refuse, how they choose, and that all of them can be imported."""
import sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch

research = Path(__file__).resolve().parent.parent/'research'
sys.path.insert(0, str(research))
scripts = [p.stem for p in sorted(research.glob('*.py')) if p.stem != 'start']

@pytest.mark.parametrize('name', scripts)
def test_import(name): __import__(name)

# options of bench, and what the message must say
WRONG = [
    (dict(jobs='speed'), "has no 'speed'"),
    (dict(batch=0), 'batch is 0'),
    (dict(seconds=float('nan')), 'seconds is nan'),
    (dict(json='.'), '--json . is a folder'),
    (dict(model='gan'), "unknown model 'gan'"),
    (dict(model='baseline'), 'has no attention U-Net'),
    (dict(device='gpu'), "unknown device 'gpu'"),
]

@pytest.mark.parametrize('options, message', WRONG, ids=[str(options) for options, _ in WRONG])
def test_bench_refuses(options, message, capsys):
    "A mistake is one line and exit status 2, before anything is measured."
    import bench
    with pytest.raises(SystemExit) as stop: bench.bench(**options)
    said = capsys.readouterr().err.strip()
    assert stop.value.code == 2 and message in said and '\n' not in said

def test_bench_without_peers(monkeypatch):
    "Without the peers, the report says what is missing, and what can be measured still is."
    import bench
    monkeypatch.setattr(bench, 'installed', lambda library: library == 'torch')
    spec = bench.full_spec(dict(n_classes=3, widths=(16, 32), attention=(1,), n_emb=32))
    case = bench.Case(spec, 16, 1, 'cpu')
    m = SimpleNamespace(dtype=torch.float32)
    said = bench.report(bench.measure(m, 'tiny', case, ['forward', 'forward_memory'], seconds=0))
    assert 'ratio' not in said
    for peer in bench.PEERS: assert f'pip install {peer}' in said

def test_compiling_may_be_impossible(monkeypatch, capsys):
    import bench
    def fail(*args, **kwargs): raise RuntimeError('no compiler')
    monkeypatch.setattr(torch, 'compile', fail)
    case = bench.Case(bench.full_spec(dict(widths=(16, 32), attention=(1,))), 16, 1, 'cpu')
    assert bench.compare_compiled(SimpleNamespace(dtype=torch.float32), case, 0) == ({}, [])
    assert 'no compiler' in capsys.readouterr().err

def test_snapshot_is_not_from_the_future(tmp_path, monkeypatch):
    "Of a run longer than its peers' training, a snapshot from within their time is judged."
    import train_peers
    from flowerdiff.core import FlowerDiffError
    (tmp_path/'snapshots').mkdir()
    for step in (100, 200, 300): (tmp_path/f'snapshots/{step:08}.safetensors').touch()
    log = [dict(step=s, seconds=60.*s/100) for s in range(10, 301, 10)]
    monkeypatch.setattr(train_peers, 'read_log', lambda folder: log)
    assert train_peers.snapshot_within(tmp_path, 2.9) == (200, 2.)
    with pytest.raises(FlowerDiffError, match='no snapshot of its first 0.5 minutes'):
        train_peers.snapshot_within(tmp_path, .5)

def test_search_survives_impossible_presets(monkeypatch):
    "An impossible preset is skipped, one that costs too much too, and the best of the rest wins."
    import make_weights as w
    from flowerdiff.core import FlowerDiffError
    def plan_of(m, preset): return None if preset['steps'] == 0 else SimpleNamespace(nfe=preset['steps'])
    def score(self, preset, seed=None):
        if preset['steps'] == 3: raise FlowerDiffError('NaN')
        return dict(value=1/preset['steps'], error=0.)
    monkeypatch.setattr(w, 'plan_of', plan_of)
    monkeypatch.setattr(w.Search, 'score', score)
    search = w.Search(None, None, nfe=5)
    assert search.best_of(dict(steps=s) for s in (0, 1, 2, 3, 4, 9)) == dict(steps=4)
    assert len(search.tried) == 3
    with pytest.raises(FlowerDiffError, match='no preset'): w.Search(None, None, 5).best_of([dict(steps=9)])

def test_search_follows_the_held_out_classes():
    "Samples that are compared with held-out images have their classes."
    from common import held_out_classes
    held_out = SimpleNamespace(labels=torch.tensor([0, 0, 1]), class_names=['iris', 'rose'])
    m = SimpleNamespace(classes=['rose', 'iris', 'lily'])
    classes = held_out_classes(m, SimpleNamespace(held_out=held_out))
    assert sorted(classes) == [0, 1, 1]
    held_out.class_names = ['iris', 'unknown']
    assert held_out_classes(m, SimpleNamespace(held_out=held_out)) is None
    assert held_out_classes(m, SimpleNamespace(held_out=None)) is None

def test_versions_are_told_apart(capsys):
    "Results that differ, and results that are gone, are both found; what rounding does is not."
    import compare_versions as v
    old = {'training, a, x': torch.ones(3), 'training, a, gone': torch.ones(1)}
    old['metrics, kid'] = torch.tensor(np.nan)
    new = {'training, a, x': torch.ones(3) + 1e-7, 'metrics, kid': torch.tensor(np.nan)}
    assert v.compare(old, new) == ['training, a, gone: inf']
    new['training, a, x'] += 1e-4
    assert len(v.compare(old, new)) == 2
