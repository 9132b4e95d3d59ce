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

def test_example_goes_on_where_it_was(tmp_path):
    "A training of diffusers' example that was stopped ends with the weights of one that was not."
    import first_hours as f
    from flowerdiff.images import draw_flowers
    images, _ = draw_flowers(40, 16)
    def example(name): return f.Example(images, tmp_path/name, widths=(32, 32))
    whole, half = example('whole'), example('half')
    for _ in range(4): whole.train_step()
    for _ in range(2): half.train_step()
    half.save()
    other = example('half')
    for _ in range(2): other.train_step()
    assert (other.step, other.rate.get_last_lr()) == (4, whole.rate.get_last_lr())
    assert all(torch.equal(a, b) for a, b in zip(whole.net.parameters(), other.net.parameters()))
    made = whole.sampler(3)(2, 0)
    assert made.shape == (2, 3, 16, 16) and torch.equal(made, other.sampler(3)(2, 0))

def test_samples_that_are_there_stay(tmp_path):
    import first_hours as f
    from flowerdiff.data import read_folder
    calls = []
    def sample(n, start):
        calls.append((n, start))
        return torch.full((n, 3, 8, 8), start/127.5 - 1)
    f.write_samples(sample, tmp_path, 10, batch=4)
    (tmp_path/'0005.png').unlink()
    f.write_samples(sample, tmp_path, 10, batch=4)
    assert calls == [(4, 0), (4, 4), (2, 8), (4, 4)]
    assert [image[0, 0, 0].item() for image in read_folder(tmp_path)] == [0]*4 + [4]*4 + [8]*2

def test_first_hours_are_judged(tmp_path, monkeypatch):
    "The samples of a folder, with what they cost, and a picture of some."
    import first_hours as f
    from test_evaluation import EXTRACTORS, ExtractorSpec, random_net, reference
    monkeypatch.setenv('FLOWERDIFF_CACHE', str(tmp_path/'cache'))
    monkeypatch.setitem(EXTRACTORS, 'random', ExtractorSpec(random_net, 8, (127.5,)*3, (127.5,)*3))
    ref, job = reference(), SimpleNamespace(out=tmp_path)
    def sample(n, start): return f.to_float(ref.held_out.images[start:start + n])
    f.write_samples(sample, tmp_path/'mine', 36)
    f.write_json(tmp_path/'mine.json', dict(minutes=3.))
    monkeypatch.setattr(f, 'RESULT', tmp_path/'results/first.json')
    found = f.judge('mine', job, ref)
    assert (found['minutes'], found['n'], found['real']) == (3., 36, 36)
    assert found['figures']['fd']['mean'] == pytest.approx(0, abs=1e-3)
    assert (tmp_path/'results/first/mine.jpg').read_bytes()[:2] == b'\xff\xd8'

def test_progress_is_judged(tmp_path, monkeypatch):
    "Moments of two stages, in order; samples of the smaller size are enlarged."
    import first_hours as f
    from test_evaluation import EXTRACTORS, ExtractorSpec, random_net, reference
    monkeypatch.setenv('FLOWERDIFF_CACHE', str(tmp_path/'cache'))
    monkeypatch.setitem(EXTRACTORS, 'random', ExtractorSpec(random_net, 8, (127.5,)*3, (127.5,)*3))
    ref = reference()
    shared = dict(model='baseline', net=dict(widths=[32]), tracks=[.05, .1], augment=0., batch_size=12)
    for i, size in enumerate((8, 16)):
        stage = f.run_stage(tmp_path/f'stage-{i}', ref.train, ref.held_out, dict(size=size, epochs=4), None, shared)
        f.write_json(tmp_path/f'stage-{i}.json', stage | dict(minutes=10.))
    job = SimpleNamespace(out=tmp_path, images=ref.train, classes=None)
    extract, drawn = ref.extract, []
    def look(x):
        drawn.append(x)
        return extract(x)
    ref.extract = look
    found = f.judge_progress(job, ref, count=2, n=12)
    assert all(x.shape == (12, 3, 16, 16) and x.abs().max() <= 1 for x in drawn)
    assert len({p['fd'] for p in found}) == 4, 'the weights of different moments are the same'
    assert [p['size'] for p in found] == [8, 8, 16, 16]
    assert [p['minutes'] for p in found] == [5, 10, 15, 20]
    assert [p['images'] for p in found] == [120, 240, 360, 480]

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
    filed = e.shrink_photos(photos)
    return e, e.Job(folder, extract, photos, filed, features, features, seed=0)

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

def small_enlarger():
    "An untrained enlarger."
    from flowerdiff.config import ModelConfig, build
    from flowerdiff.models import Model
    net = dict(widths=[8, 16])
    training = dict(steps=7)
    config = ModelConfig(64, 'edm', 'cosine', 'enlarge', net=net, sigma_data=.1, training=training)
    return Model(build(config), config, 'cpu')

def test_settings_that_differ_are_kept_apart():
    import enlarge_figures as e
    enlarger = small_enlarger()
    base = dict(sigmas=[.1, 0])
    other = [dict(sigmas=[.2, 0]), dict(low_sigma=.02), dict(sampler='ddim')]
    ways = [e.enlarger_way(enlarger, base | more) for more in [{}, *other]]
    keys = [way.key for way in ways]
    assert len({*keys}) == 4 and {way.nfe for way in ways} == {1}
    assert e.enlarger_way(enlarger, base).key == keys[0]
    enlarger.net.out.bias += 1
    assert e.enlarger_way(enlarger, base).key != keys[0]

def photo_reference(e, job, photos):
    "Photos to compare with, of which every second one is a rose."
    labels = torch.arange(len(photos)) % 2
    held = SimpleNamespace(images=photos, labels=labels, class_names=NAMES)
    classes = np.array(NAMES)[labels]
    def probe(features): return classes[:len(features)]
    return SimpleNamespace(held_out=held, unseen=job.extract(photos), held_classes=classes, probe=probe)

def test_enlarger_is_judged_and_has_a_card(tmp_path, monkeypatch):
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
    enlarger = small_enlarger()
    ours = e.enlarger_way(enlarger, dict(sigmas=[.1, 0]))
    found = e.judge(job, ours._replace(name='enlarge'), refs)
    rows = {(c['name'], c['size']): c for c in found['columns']}
    assert rows['attention, enlarge', 256]['nfe'] == 11
    small, large = (rows[key]['figures']['fd']['mean'] for key in (('attention', 64), ('attention, enlarge', 256)))
    assert found['ratios']['attention'] == large/small
    assert {'fd', 'kid', 'psnr', 'distance', 'accuracy'} <= rows['photos, enlarge', 256]['figures'].keys()
    text = e.card(enlarger, found | dict(way='one way', extractor='pixels', device='cpu'))
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

# Ways to train

def test_stages_cost_as_much_as_one_size():
    "A 32 px image is counted as a quarter of a 64 px one; the curve begins where the first stage ends."
    import stage_curve as s
    work = {name: sum(stage['epochs']*(stage['size']/64)**2 for stage in stages) for name, stages in s.plans(8.).items()}
    assert len(work) == 2 and {*work.values()} == {8.}
    first = dict(minutes=3., points=[[.5, 9.], [1., 8.]])
    assert s.curve([first, dict(minutes=4., points=[[.5, 2.], [1., 1.]])]) == [[5., 2.], [7., 1.]]

def test_patches_know_where_they_are():
    "The pixels of an image that says where it is are those of its places; without places an image is whole."
    import compare_training as c
    torch.manual_seed(0)
    net = c.PatchUNet(3)
    images = (c.places(4, 32)*100 + 120).byte()
    sizes = set()
    for _ in range(8):
        patches, cond = net.prepare(images, 4, slice(None))
        assert torch.equal((cond['where']*100 + 120).byte(), patches)
        sizes.add(patches.shape[-1])
    assert sizes == {16, 32}
    torch.nn.init.normal_(net.out.weight)
    x, c_noise, whole = torch.randn(2, 3, 32, 32), torch.zeros(2), c.places(2, 32)
    assert torch.equal(net(x, c_noise), net(x, c_noise, where=whole))
    assert not torch.allclose(net(x, c_noise), net(x, c_noise, where=whole/2), atol=1e-3)

def test_ways_to_train_have_the_same_time(monkeypatch):
    "Measuring is not counted: the clock strikes once in a step."
    import compare_training as c
    from flowerdiff.data import load_images
    monkeypatch.setattr(c, 'SETTINGS', c.SETTINGS | dict(batch_size=4))
    images = load_images('drawn:12', 32, verbose=False)
    for how in c.WAYS.values():
        seconds = iter(range(1000))
        monkeypatch.setattr(c.time, 'process_time', lambda: next(seconds))
        t = c.make_trainer(images, **how)
        before = c.held_out_loss(t, images, 4)
        found = c.train_for(2/60, t, images, points=2)
        (half, _), (end, loss) = found['curve']
        assert (half, end, found['images'], t.step) == (1/60, 2/60, 8, 2)
        assert loss != before
