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
    classes = held_out_classes(m, held_out)
    assert sorted(classes) == [0, 1, 1]
    held_out.class_names = ['iris', 'unknown']
    assert held_out_classes(m, held_out) is None
    assert held_out_classes(m, None) is None

def test_versions_are_told_apart(capsys):
    "Results that differ, and results that are gone, are both found; what rounding does is not."
    import compare_versions as v
    old = {'training, a, x': torch.ones(3), 'training, a, gone': torch.ones(1)}
    old['metrics, kid'] = torch.tensor(np.nan)
    new = {'training, a, x': torch.ones(3) + 1e-7, 'metrics, kid': torch.tensor(np.nan)}
    assert v.compare(old, new) == ['training, a, gone: inf']
    new['training, a, x'] += 1e-4
    assert len(v.compare(old, new)) == 2

# Enlarging

NAMES = ['iris', 'rose']

def enlarge_job(folder, n=8):
    "Drawn flowers to enlarge, with their means over a grid as features."
    import enlarge_figures as e
    from flowerdiff.images import draw_flowers
    photos, _ = draw_flowers(n, 64)
    photos = photos.clamp(max=250)
    def extract(x):
        x = torch.nn.functional.adaptive_avg_pool2d(x.float(), 4)
        return x.flatten(1).double().numpy()
    features = extract(photos)
    return e, e.Job(folder, extract, photos, features, features, seed=0)

def test_enlarged_photos_are_compared_with_their_originals(tmp_path):
    "Photos that come back 4 bytes too bright have a PSNR that can be computed by hand."
    e, job = enlarge_job(tmp_path)
    calls = []
    def enlarge(low, seed, start):
        calls.append((seed, start, len(low)))
        return (job.photos[start:start + len(low)].float() + 4)/127.5 - 1
    way = e.Way('brighter', 2, enlarge, 'key')
    low = e.shrink_photos(job.photos)
    assert low.shape == (8, 3, 16, 16)
    found = [e.measure(job, 'photos', low, way, pairs=True) for _ in range(2)]
    # the second time, the result is read from its file
    assert calls == [(0, 0, 8)]
    made = e.metrics(found[1], job.originals, job.originals)
    assert made['psnr'] == pytest.approx(20*np.log10(255/4), abs=1e-4)
    # each of the features is 4 too large
    width = job.originals.shape[1]
    assert made['distance'] == pytest.approx(4*width**.5)
    assert 'psnr' not in e.metrics(found[0], job.originals)

def test_filters_come_near_to_what_was_shrunk(tmp_path):
    e, job = enlarge_job(tmp_path)
    low = e.shrink_photos(job.photos)
    grey = e.psnr(torch.full_like(job.photos, 128), job.photos)
    for way in (e.BICUBIC, e.LANCZOS):
        found = e.measure(job, 'photos', low, way, pairs=True)
        assert found['psnr'].mean() > grey.mean() + 5

def small_stage():
    "An untrained stage."
    from flowerdiff.config import ModelConfig, build
    from flowerdiff.models import Model
    net = dict(widths=[8, 16])
    training = dict(steps=7)
    config = ModelConfig(64, 'edm', 'cosine', 'enlarge', net=net, sigma_data=.1, training=training)
    return Model(build(config), config, 'cpu')

def test_settings_that_differ_are_kept_apart():
    import enlarge_figures as e
    stage = small_stage()
    base = dict(sigmas=[.1, 0])
    other = [dict(sigmas=[.2, 0]), dict(low_sigma=.02), dict(sampler='ddim')]
    ways = [e.stage_way(stage, base | more) for more in [{}, *other]]
    keys = [way.key for way in ways]
    assert len({*keys}) == 4 and {way.nfe for way in ways} == {1}
    assert e.stage_way(stage, base).key == keys[0]
    stage.net.out.bias += 1
    assert e.stage_way(stage, base).key != keys[0]

def photo_reference(e, job, photos):
    "Photos to compare with, of which every second one is a rose."
    labels = torch.arange(len(photos)) % 2
    held = SimpleNamespace(images=photos, labels=labels, class_names=NAMES)
    classes = np.array(NAMES)[labels]
    def probe(features): return classes[:len(features)]
    return SimpleNamespace(held_out=held, unseen=job.extract(photos), held_classes=classes, probe=probe)

def test_stage_is_judged_and_has_a_card(tmp_path, monkeypatch):
    "The whole way with few images: real ones, enlarged photos, enlarged generated images, and the card."
    e, job = enlarge_job(tmp_path)
    low = e.shrink_photos(job.photos)
    filed = (low*127.5 + 127.5).round().byte()
    refs = {256: photo_reference(e, job, job.photos), 64: photo_reference(e, job, filed)}
    def sample(n, classes, seed, start): return low[start:start + n].flip(3)
    m = SimpleNamespace(classes=NAMES[::-1], plan=lambda: SimpleNamespace(nfe=10), sample=sample)
    baseline = dict(n=8, real=8, figures=dict(fd=dict(mean=1., interval=.5)))
    monkeypatch.setattr(e, 'load', lambda name: m)
    monkeypatch.setattr(e, 'real_baseline', lambda *args, **kwargs: baseline)
    stage = small_stage()
    ours = e.stage_way(stage, dict(sigmas=[.1, 0]))
    found = e.judge(job, ours._replace(name='enlarge'), refs)
    rows = {(c['name'], c['size']): c for c in found['columns']}
    assert rows['attention, enlarge', 256]['nfe'] == 11
    small, large = (rows[key]['figures']['fd']['mean'] for key in (('attention', 64), ('attention, enlarge', 256)))
    assert found['ratios']['attention'] == large/small
    assert {'fd', 'kid', 'psnr', 'distance', 'accuracy'} <= rows['photos, enlarge', 256]['figures'].keys()
    text = e.card(stage, found | dict(way='one way', extractor='pixels', device='cpu'))
    for part in ("load('enlarge').enlarge(", '1.00 ± 0.50', '| attention, enlarge | 256 | 11 |', '## Licence', '"steps": 7'):
        assert part in text

# Busy machines

def test_busy_machines_are_compared():
    "Medians, as multiples of the idle time of spinning threads."
    import bench_busy as b
    def turns(*seconds): return [dict(sampling=s) for s in seconds]
    found = dict(spinning={0: turns(2., 1., 3.), 1: turns(8., 9., 7.), 2: turns(20., 20., 20.)},
                 passive={0: turns(2.1, 2.1, 9.), 1: turns(4., 4., 4.), 2: turns(5., 5., 5.)})
    rows = b.summarise(found)
    assert [r['seconds'] for r in rows] == [[2., 8., 20.], [2.1, 4., 5.]]
    said = b.table(rows)
    assert '| sampling | spinning | 2.0 s (1.00) | 8.0 s (4.00) | 20.0 s (10.00) |' in said
    assert '| sampling | passive | 2.1 s (1.05) | 4.0 s (2.00) | 5.0 s (2.50) |' in said
