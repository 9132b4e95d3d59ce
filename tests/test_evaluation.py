"Metrics against other libraries, calls that must be refused, and faults that must not come back."
import json, os, pickle, subprocess, sys, warnings
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from torchvision.transforms.v2.functional import to_pil_image
from flowerdiff import evaluation
from flowerdiff.config import ModelConfig, build
from flowerdiff.core import FlowerDiffError
from flowerdiff.data import ImageDataset, fingerprint
from flowerdiff.distances import (EXTRACTORS, Extractor, ExtractorSpec, frechet, kid, manifold, matched_parts,
                                  memorisation)
from flowerdiff.evaluation import (Generator, Reference, evaluate, folder_generator, model_card,
                                   model_generator, pipeline_generator, real_baseline, summarise, table, watch_fd)
from flowerdiff.images import DRAWN_NAMES, draw_flowers, read_image, to_float
from flowerdiff.models import Model

RESULTS = Path(__file__).resolve().parent.parent/'nbs/results'

def normal(*shape, seed=0): return np.random.default_rng(seed).normal(size=shape)

def random_net(file=None):
    "A small network with fixed random weights: images of 8 pixels to 16 features."
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3*8*8, 16))
    weights = torch.randn(16, 3*8*8, generator=torch.Generator().manual_seed(0))
    net[1].weight.data, net[1].bias.data = weights, torch.zeros(16)
    return net

@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    "Each test has a cache of its own, and an extractor that takes no time."
    monkeypatch.setenv('FLOWERDIFF_CACHE', str(tmp_path/'cache'))
    monkeypatch.setitem(EXTRACTORS, 'random', ExtractorSpec(random_net, 8, (127.5,)*3, (127.5,)*3))

def extractor(): return Extractor('random', device='cpu')

class OnMps(torch.Tensor):
    "What Apple's GPUs do with float64."
    def double(self): raise TypeError('Cannot convert a MPS Tensor to float64 dtype')
    def cpu(self): return self.as_subclass(torch.Tensor)

def test_no_float64_on_a_gpu():
    extract, images = extractor(), draw_flowers(3, 8)[0]
    wanted, forward = extract(images), extract.net.forward
    extract.net.forward = lambda x: forward(x).as_subclass(OnMps)
    assert (extract(images) == wanted).all()

def test_features_of_grey_and_transparent_images():
    "As those of the colours that a person sees."
    extract, images = extractor(), draw_flowers(3, 8)[0]
    grey = images[:, :1]
    assert (extract(grey) == extract(grey.expand(-1, 3, -1, -1))).all()
    opaque, clear = [torch.cat([images, torch.full_like(grey, alpha)], 1) for alpha in (255, 0)]
    assert np.allclose(extract(opaque), extract(images), atol=1e-4)
    assert np.allclose(extract(clear), extract(torch.full_like(images, 255)), atol=1e-4)

def test_features_with_little_memory(capsys):
    "Batches are halved once for all, and the features are the same."
    extract, images = extractor(), draw_flowers(40, 8)[0]
    wanted, forward, sizes = extract(images), extract.net.forward, []
    def limited(x):
        sizes.append(len(x))
        if len(x) > 4: raise RuntimeError('MPS backend out of memory (MPS allocated: 9 GB)')
        return forward(x)
    extract.net.forward = limited
    for _ in range(2): assert np.allclose(extract(images), wanted)
    assert [n for n in sizes if n > 4] == [16, 8] and sum(n for n in sizes if n <= 4) == 80
    assert capsys.readouterr().err == 'out of memory with 16 images at a time: from now on 4\n'

def drawn(n, seed=0, size=16, **changes):
    images, labels = draw_flowers(n, size, seed)
    data = ImageDataset(images, labels, DRAWN_NAMES, 'drawn', None, {}, fingerprint(images, labels))
    return replace(data, **changes)

def reference(**changes): return Reference(drawn(60, 1, **changes), extractor(), held_out=drawn(36, 2, **changes))

def small_model(n_classes=12, **training):
    classes = DRAWN_NAMES[:n_classes]
    config = ModelConfig(16, 'v', 'cosine', net=dict(n_classes=n_classes, widths=[32], attention=[]), classes=classes,
                         training=training)
    torch.manual_seed(0)
    return Model(build(config), config, 'cpu', torch.float32)

def images_of(data): return lambda n, seed, start: (data.images[start:start+n], None)

def copier(ref): return Generator('copier', (16, 16), images_of(ref.train), max=60)

# against other libraries

def torchmetric(metric, a, b, **options):
    "What a metric of torchmetrics says about features."
    same = torch.nn.Identity()
    same.num_features = a.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        m = metric(feature=same, **options).set_dtype(torch.float64)
        for x, real in ((a, True), (b, False)): m.update(torch.tensor(x), real=real)
        return m.compute()

# one subset has no error
@pytest.mark.filterwarnings('ignore:One or more sample')
def test_frechet_and_kid_as_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance
    a = normal(400, 64)
    b = 1.2*normal(400, 64, seed=1) @ normal(64, 64, seed=2)/8 + .1
    fd = torchmetric(FrechetInceptionDistance, a, b)
    assert frechet(a, b) == pytest.approx(float(fd), rel=1e-6)
    value, _ = torchmetric(KernelInceptionDistance, a, b, subsets=1, subset_size=400)
    assert kid(a, b, subsets=1).value == pytest.approx(float(value), rel=1e-6)

def test_frechet_with_fewer_images_than_features():
    # points in a plane of the space: the closed form holds there
    basis = np.linalg.qr(normal(300, 20))[0]
    a = normal(40, 20, seed=1)
    b = 1.5*normal(40, 20, seed=2) + .3
    wide = frechet(a @ basis.T, b @ basis.T)
    assert wide == pytest.approx(frechet(a, b), rel=1e-4)

def test_precision_and_recall_as_torch_fidelity():
    from torch_fidelity.metric_prc import prc_features_to_metric
    a, b = normal(300, 8), 1.3*normal(300, 8, seed=1)
    theirs = prc_features_to_metric(torch.tensor(b), torch.tensor(a), prc_neighborhood=3, verbose=False)
    ours = manifold(a, b)
    for name in ('precision', 'recall'): assert ours[name] == pytest.approx(theirs[name], abs=1e-6)

def test_inception_as_torch_fidelity(tmp_path, monkeypatch):
    import torch_fidelity.feature_extractor_inceptionv3 as theirs
    torch.manual_seed(0)
    with monkeypatch.context() as m:
        m.setattr(theirs, 'load_state_dict_from_url', lambda *a, **kw: {})
        m.setattr(torch.nn.Module, 'load_state_dict', lambda *a, **kw: None)
        net = theirs.FeatureExtractorInceptionV3('any', ['2048'])
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in norms:
        layer.running_mean.normal_(0, .1)
        layer.running_var.uniform_(.5, 2)
    file = tmp_path/'inception.pth'
    torch.save(net.state_dict(), file)
    spec = EXTRACTORS['inception']._replace(sha256=sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(EXTRACTORS, 'inception', spec)
    images, _ = draw_flowers(2, 299)
    want = net(images)[0].double().numpy()
    got = Extractor('inception', file, 'cpu')(images)
    assert abs(got - want).max() < 1e-5*abs(want).max()

class Program:
    "What a pickle runs when it is read as a program."
    def __reduce__(self): return print, ('run',)

def test_weights_are_read_as_tensors_only(tmp_path, monkeypatch, capsys):
    "Even a file with the expected checksum runs nothing."
    file = tmp_path/'inception.pth'
    torch.save(dict(weight=Program()), file)
    spec = EXTRACTORS['inception']._replace(sha256=sha256(file.read_bytes()).hexdigest())
    monkeypatch.setitem(EXTRACTORS, 'inception', spec)
    with pytest.raises(pickle.UnpicklingError): Extractor('inception', file, 'cpu')
    assert 'run' not in capsys.readouterr().out

# extractors

def test_features_do_not_depend_on_mode_batch_or_type():
    extract = Extractor(device='cpu')
    images, _ = draw_flowers(6)
    f = extract(images)
    extract.net.train()
    part = extract(images[2:5])
    assert abs(part - f[2:5]).max() < 1e-3
    floats = extract(to_float(images[:2]))
    assert abs(floats - f[:2]).max() < 1e-3

def test_only_tf32_is_switched_off():
    cudnn, seen = torch.backends.cudnn, []
    def settings(): return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    extract, before = extractor(), settings()
    extract.net.register_forward_pre_hook(lambda *_: seen.append(settings()))
    extract(draw_flowers(2, 8)[0])
    assert seen == [(*before[:3], False)]
    assert settings() == before
    cudnn.benchmark = True
    try: extract(draw_flowers(2, 8)[0])
    finally: cudnn.benchmark = before[1]
    assert seen[-1][:2] == (before[0], True)

def test_weights_are_downloaded_once_and_checked(tmp_path, monkeypatch):
    calls = []
    def download(url, path):
        calls.append(url)
        torch.save(random_net().state_dict(), path)
    def built(file):
        net = random_net()
        net.load_state_dict(torch.load(file))
        return net
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    wrong = ExtractorSpec(built, 8, (0.,)*3, (1.,)*3, 'https://example.org/far.pth', 'other')
    monkeypatch.setitem(EXTRACTORS, 'far', wrong)
    with pytest.raises(FlowerDiffError, match='SHA-256'): Extractor('far', device='cpu')
    data = (tmp_path/'cache/far.pth').read_bytes()
    right = wrong._replace(sha256=sha256(data).hexdigest())
    monkeypatch.setitem(EXTRACTORS, 'far', right)
    features = Extractor('far', device='cpu')(draw_flowers(2, 8)[0])
    assert features.shape == (2, 16)
    assert len(calls) == 1

# refused calls

def no_network(*args): raise OSError('no route to host')

def folder_with(path, *sizes):
    path.mkdir()
    for i, size in enumerate(sizes): Image.new('RGB', size).save(path/f'{i}.png')
    return path

def bad_calls(path):
    "Calls, and what their messages must say."
    ref = reference()
    alone = Reference(drawn(60), extractor(), held_out=None)
    flat = np.zeros((9, 4))
    nan = flat.copy()
    nan[3, 1] = np.nan
    (path/'other.pth').write_bytes(b'not these')
    broken = folder_with(path/'broken', *[(16, 16)]*6)
    (broken/'5.png').write_bytes(b'no image')
    mixed = folder_with(path/'mixed', *[(16, 16)]*6, (16, 20))
    few = folder_with(path/'few', (16, 16))
    return [
        (lambda: Extractor('dinov2'), 'unknown extractor .dinov2.: use effnet_lite0, inception'),
        (lambda: Extractor('inception'), 'no route to host.*weights=, --weights'),
        (lambda: Extractor('inception', path/'nowhere.pth'), 'nowhere.pth is not the file.*download https'),
        (lambda: Extractor('inception', path/'other.pth'), 'other.pth is not the file.*SHA-256'),
        (lambda: Extractor('effnet_lite0', path/'other.pth'), 'leave it out'),
        (lambda: frechet(flat[:1], flat), r'shape \(1, 4\): give \(N, 4\), for at least 2 images'),
        (lambda: kid(flat, nan), 'without NaN'),
        (lambda: frechet(flat, flat[:,:2]), r'shape \(9, 2\)'),
        (lambda: manifold(flat[:5], flat), 'at least 6'),
        (lambda: memorisation(flat, flat, flat[0]), r'shape \(4,\)'),
        (lambda: Reference(path/'nowhere', extractor()), 'nowhere'),
        (lambda: evaluate(copier(ref), ref, 5000), 'n is 5000: give a whole number from 6 to 60'),
        (lambda: evaluate(copier(ref), ref, 6, 0), 'seeds is 0'),
        (lambda: evaluate(copier(ref), ref, 6, against='test'), "unknown against .test.: use all, held_out"),
        (lambda: real_baseline(alone, 6, against='held_out'), 'use all$'),
        (lambda: evaluate(copier(ref)._replace(size=(8, 8)), ref), r'\(8, 8\) px: load real ones of that size'),
        (lambda: model_generator(small_model(), classes='tulip'), "unknown class .tulip."),
        (lambda: model_generator(small_model(), sampler='fast'), "sampler"),
        (lambda: pipeline_generator(path/'few'), 'cannot be loaded as a diffusers pipeline with a U-Net'),
        (lambda: folder_generator(few), 'holds 1 images of 1 sizes: give a folder with at least 6'),
        (lambda: folder_generator(path/'nowhere'), 'there is no folder'),
        (lambda: folder_generator(mixed), 'holds 7 images of 2 sizes'),
        # what cannot be read is left out, as in training
        (lambda: folder_generator(broken), 'holds 5 images of 1 sizes: give a folder with at least 6')]

def test_a_folder_is_read_as_in_training(tmp_path, capsys):
    folder = folder_with(tmp_path/'d', *[(16, 16)]*8)
    (folder/'7.png').write_bytes(b'no image')
    (folder/'._0.png').write_bytes(b'a note of the Finder')
    assert folder_generator(folder).max == 7
    assert 'cannot be read: cannot identify image file (1): 7.png' in capsys.readouterr().err

def test_refused_calls(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'download_url_to_file', no_network)
    for call, text in bad_calls(tmp_path):
        with pytest.raises(FlowerDiffError, match=text) as e: call()
        assert '\n' not in str(e.value)

def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'efficientnet_lite_pytorch', None)
    with pytest.raises(FlowerDiffError, match=r"efficientnet_lite_pytorch.*pip install 'flowerdiff\[eval\]'"): Extractor()

# memorisation

def with_classes(n, share, seed):
    "Points of two classes far apart, a share of them of the first."
    classes = np.where(np.arange(n) < share*n, 'rose', 'iris')
    return normal(n, 2, seed=seed) + 20*(classes == 'iris')[:,None], classes

@pytest.mark.parametrize('share', [.9, .5])
def test_ratio_of_real_images_is_1_when_the_class_mixes_differ(share):
    train, c = with_classes(4000, .9, 1)
    held, h = with_classes(400, .5, 2)
    ratios = []
    for seed in range(3, 8):
        real, _ = with_classes(2000, share, seed)
        ratios.append(memorisation(real, train, held, c, h).ratio)
    assert np.mean(ratios) == pytest.approx(1, abs=.04)
    # without classes, the difference of the mixes looks like memorisation, or like its opposite
    assert abs(memorisation(real, train, held).ratio - 1) > .1

def test_parts_have_the_class_mix_of_the_held_out_images():
    classes = np.repeat(['a', 'b', 'c'], (30, 12, 2))
    held_classes = np.repeat(['b', 'c', 'a', 'd'], (4, 3, 5, 6))
    held, parts = matched_parts(classes, held_classes)
    assert len(parts) == 1
    for names in (held_classes[held], classes[parts[0]]):
        counts = np.unique(names, return_counts=True)
        assert dict(zip(*counts)) == dict(a=5, b=4, c=2)
    _, parts = matched_parts(classes[:42], held_classes[:4])
    assert [len(part) for part in parts] == [4]*3

def test_without_common_classes_all_images_are_alike():
    held, parts = matched_parts(np.array(['']*9), np.array(['a', 'b']))
    assert sorted(held) == [0, 1]
    assert [len(part) for part in parts] == [2]*4

def test_copies_from_a_large_training_set():
    train, held = normal(600, 12), normal(200, 12, seed=1)
    ratio, copies, pairs = memorisation(train + 1e-3, train, held)
    assert copies == 1
    assert .5 < ratio < 1
    assert (pairs[:,0] == pairs[:,1]).all()

# references

def metrics_of(ref): return real_baseline(ref, 20, 2)['figures']

def test_reference_without_such_a_split():
    for source in (drawn(60), 'drawn:60'):
        ref = Reference(source, extractor(), 16)
        assert ref.held_out is None
        assert len(ref.all) == 60
        assert 'ratio' not in metrics_of(ref)

def test_reference_of_a_source_and_images_held_out():
    ref = Reference('drawn:60', extractor(), 16, held_out=drawn(36, 2))
    assert (len(ref.known), len(ref.unseen)) == (60, 36)
    assert 'ratio' in metrics_of(ref)

def test_reference_of_a_folder_with_splits(tmp_path):
    images, labels = draw_flowers(48, 16)
    for i, (image, label) in enumerate(zip(images, labels)):
        split = 'train' if i % 4 else 'val'
        folder = tmp_path/split/DRAWN_NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        to_pil_image(image).save(folder/f'{i}.png')
    for name in ('validation', 'val'):
        ref = Reference(tmp_path, extractor(), 16, name)
        assert (len(ref.train), len(ref.held_out)) == (36, 12)
    assert Reference(tmp_path, extractor(), 16, 'test').held_out is None

OTHER_NAMES = [f'other {name}' for name in DRAWN_NAMES]

@pytest.mark.parametrize('changes', [dict(labels=None, class_names=[]), dict(class_names=OTHER_NAMES)])
def test_held_out_images_without_the_same_classes(changes):
    held = drawn(36, 2, **changes)
    ref = Reference(drawn(60, 1), extractor(), held_out=held)
    assert 'ratio' in metrics_of(ref)
    assert 'accuracy' not in metrics_of(ref)
    assert 'ratio' in evaluate(copier(ref), ref, 20)['figures']

def test_classes_are_matched_by_name():
    names = sorted(DRAWN_NAMES)
    held = drawn(36, 2)
    numbers = [names.index(DRAWN_NAMES[i]) for i in held.labels]
    renumbered = replace(held, class_names=names, labels=torch.tensor(numbers))
    one = Reference(drawn(60, 1), extractor(), held_out=held)
    two = Reference(drawn(60, 1), extractor(), held_out=renumbered)
    assert metrics_of(one) == metrics_of(two)

def count_calls(monkeypatch):
    "Count the images that extractors are asked about."
    asked, call = [], Extractor.__call__
    def counted(self, images):
        asked.append(len(images))
        return call(self, images)
    monkeypatch.setattr(Extractor, '__call__', counted)
    return asked

def test_features_are_kept(tmp_path, monkeypatch):
    asked = count_calls(monkeypatch)
    first, again = reference(), reference()
    assert asked == [60, 36]
    assert (again.known == first.known).all()

def test_damaged_features_are_made_again(tmp_path, monkeypatch):
    first = reference()
    for file in (tmp_path/'cache').glob('features-*'): file.write_bytes(file.read_bytes()[:50])
    assert (reference().known == first.known).all()

def test_features_of_another_format_or_extractor_are_not_used(monkeypatch):
    first, asked = reference(), count_calls(monkeypatch)
    monkeypatch.setattr(evaluation, 'CACHE_FORMAT', evaluation.CACHE_FORMAT + 1)
    reference()
    assert asked == [60, 36]
    monkeypatch.setitem(EXTRACTORS, 'random', EXTRACTORS['random']._replace(mean=(0.,)*3))
    assert not (reference().known == first.known).all()

def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('FLOWERDIFF_CACHE', str(tmp_path/'file'))
    assert reference().known.shape == (60, 16)

# generators

def test_any_class():
    ref = reference()
    free = evaluate(model_generator(small_model(), classes='any', steps=1), ref, 6, 1)['figures']
    assert 'accuracy' not in free
    half = model_generator(small_model(), classes=['any', DRAWN_NAMES[3]], steps=1)
    assert half.labels(3, 0).tolist() == [None, DRAWN_NAMES[3], None]
    assert 'accuracy' not in evaluate(half, ref, 6, 1)['figures']
    one = model_generator(small_model(), classes=DRAWN_NAMES[3], steps=1)
    assert 'accuracy' in evaluate(one, ref, 6, 1)['figures']

def test_model_without_classes():
    g = model_generator(small_model(0), steps=1)
    assert g.labels is None and 'accuracy' not in evaluate(g, reference(), 6, 1)['figures']

def test_seen_held_out_images():
    held = drawn(36, 2, split='validation')
    ref = Reference(drawn(60, 1), extractor(), held_out=held)
    data = dict(splits=dict(train=1, validation=1))
    g = model_generator(small_model(data=data), steps=1)
    assert 'ratio' not in evaluate(g, ref, 6, 1)['figures']

def test_folder_holds_the_pixels_that_training_sees(tmp_path):
    # grey, transparent, turned
    Image.new('L', (8, 8), 100).save(tmp_path/'0.png')
    Image.new('RGBA', (8, 8), (9, 9, 9, 0)).save(tmp_path/'1.png')
    for i in range(2, 6): Image.new('RGB', (8, 8), (i, 0, 0)).save(tmp_path/f'{i}.png')
    images, _ = folder_generator(tmp_path).make(6, 0, 0)
    seen = [read_image(tmp_path/f'{i}.png') for i in range(6)]
    assert torch.equal(images, torch.stack(seen))
    assert (images[1] == 255).all()

def test_pipeline_from_a_folder(tmp_path):
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
    net = UNet2DModel(sample_size=16, block_out_channels=(8, 16), norm_num_groups=4,
                      down_block_types=('DownBlock2D',)*2, up_block_types=('UpBlock2D',)*2)
    DDIMPipeline(net, DDIMScheduler()).save_pretrained(tmp_path)
    out = evaluate(pipeline_generator(tmp_path, 2, 'cpu'), reference(), 8, 1)
    assert (out['nfe'], out['sampler']) == (2, 'DDIMScheduler')

JOB = """
import json, os
from accelerate import PartialState
from test_evaluation import *
EXTRACTORS['random'] = ExtractorSpec(random_net, 8, (127.5,)*3, (127.5,)*3)
out = evaluate(model_generator(small_model(), steps=2), reference(), 13, 1)
if PartialState().is_main_process: print(json.dumps(out['figures']), flush=True)
PartialState().wait_for_everyone()
os._exit(0)
"""

def test_two_processes_share_the_work(tmp_path):
    (tmp_path/'job.py').write_text(JOB)
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, os.environ.get('PYTHONPATH', '')])
    env = os.environ | dict(PYTHONPATH=path)
    def figures(*launch):
        command = [sys.executable, *launch, tmp_path/'job.py']
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        return json.loads(done.stdout.splitlines()[-1])
    alone = figures()
    shared = figures('-m', 'accelerate.commands.launch', '--cpu', '--num_processes', '2')
    for k in alone:
        want = pytest.approx(alone[k]['mean'], rel=.02, abs=1e-3)
        assert shared[k]['mean'] == want

# tables and cards

def column(name, n=60, biased=True, **figures):
    figures = {k: dict(mean=v, interval=None, each=[v]) for k, v in figures.items()}
    return dict(name=name, n=n, real=100, biased=biased, extractor='random', seeds=1, device='cpu', figures=figures)

@pytest.mark.parametrize('columns, note', [
    ([column('a', fd=1.), column('b', n=90, fd=2.)], 'FD is too large: compare it at equal N only, or look at KID.'),
    ([column('a', biased=False, copies=.5) | dict(nfe=10)], 'Memorisation: 50 % of a lie closer'),
    # real images copy nothing, however few there are
    ([column('real images', biased=False, copies=.5)], None),
    ([column('a', biased=False, copies=.01) | dict(nfe=10)], None)])
def test_notes(columns, note):
    *_, last = table(columns).splitlines()
    assert (note or 'class accuracy %') in last

def test_tables_of_results_of_earlier_versions():
    old = column('a', fd=71.149, inception_score=2.97) | dict(nfe=10., guidance=4., sampler=None)
    lines = table([old, column('real pictures', fd=21.78)]).splitlines()
    rows = [[text.strip() for text in line.strip('|').split('|')] for line in lines]
    for row in (['name', 'a', 'real pictures'], ['n', '60', '60'], ['real', '100', '100'], ['nfe', '10', '-'],
                ['sampler', '-', '-'], ['guidance', '4', '-'], ['FD', '71.15', '21.78'], ['recall', '-', '-']):
        assert row in rows
    # as Markdown, and with columns of one width
    table_lines = [line for line in lines if line.startswith('|')]
    assert len({len(line) for line in table_lines}) == 1
    assert set(table_lines[1]) == {'|', '-', ' '}

@pytest.mark.parametrize('name', ['attention', 'baseline'])
def test_tables_of_the_stored_results(name):
    found = json.loads((RESULTS/f'{name}.json').read_text())
    text = table([found, found['floor']])
    kid = 1000*found['figures']['kid']['mean']
    assert f'{kid:.2f}' in text and 'held_out' in text

def test_summary():
    rows = [dict(fd=1., accuracy=.5), dict(fd=2.), dict(fd=3., accuracy=.5)]
    out = summarise(rows)
    assert out['fd']['mean'] == 2
    assert out['fd']['interval'] == pytest.approx(4.3027/3**.5, rel=1e-3)
    # a metric that some seeds lack, and that does not vary
    assert out['accuracy'] == dict(mean=.5, interval=None, each=[.5, .5])

TRAINING = dict(steps=25845, pictures_seen=1067168, minutes=239., device='cpu',
                data=dict(key='0', pictures=6145, splits=dict(test=5125, train=1020)), settings=dict(batch_size=32))

KNOWN = ['# me/mine', 'Bad at roses.', '| network | attention, ', '| images | 16 x 16 pixels |', '| predicts | v, cosine schedule |',
         '| preset default | ', '"pictures_seen": 1067168', '"test": 5125', '"batch_size": 32', "load('me/mine')"]

def test_card_says_what_is_known():
    card = model_card(small_model(**TRAINING), 'me/mine', about='Bad at roses.')
    assert card.startswith('---\nlibrary_name')
    for text in KNOWN: assert text in card
    assert '## How good' not in card

def test_card_of_a_model_of_unknown_training():
    card = model_card(small_model(), 'me/mine', [column('a', fd=1.)])
    assert '| network |' in card and '## How good' in card and '| FD ' in card

def test_watch_fd(monkeypatch):
    "FD of the first samples of seed 0, next to images from all parts of many."
    monkeypatch.setitem(EXTRACTORS, 'effnet_lite0', EXTRACTORS['random'])
    monkeypatch.setattr('flowerdiff.evaluation.MAX_REAL', 10)
    config = ModelConfig(8, 'eps', 'linear', 'baseline', net=dict(widths=[8, 16]))
    model = Model(build(config), config, 'cpu')
    images, _ = draw_flowers(24, 8)
    data = ImageDataset(images, None, [], 'drawn', None, {}, 'key')
    extract = extractor()
    wanted = frechet(extract(model.sample(6)), extract(images[::3]))
    assert watch_fd(data, 'cpu', 6)(model) == pytest.approx(wanted)
    few = data.subset([0])
    with pytest.raises(FlowerDiffError, match='next to 1 image'): watch_fd(few, 'cpu')
