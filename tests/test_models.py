"""Models: what is refused when weights and config disagree, and that a seed decides the images."""
import json, shutil
import pytest, torch
from flowerdiff.config import ModelConfig, build
from flowerdiff.core import FlowerDiffError
from flowerdiff.core import BUNDLED, bundled
from flowerdiff.models import Model, load, read_weights
from flowerdiff.sampling import SAMPLERS

@pytest.mark.parametrize('read', (load, read_weights))
@pytest.mark.parametrize('n', (0, 50))
@pytest.mark.parametrize('name', bundled())
def test_other_classes_than_the_weights_know(name, n, read, tmp_path):
    "A config that names other classes would give every label another meaning, in sampling and with --init."
    folder = tmp_path/'model'
    shutil.copytree(BUNDLED/name, folder)
    file = folder/'config.json'
    config = json.loads(file.read_text())
    net, classes = config['net'], config['classes']
    net['n_classes'] = n
    config.update(classes=classes[:n], class_counts=[])
    file.write_text(json.dumps(config))
    expected = f'know 102 classes, and their config names {n}'
    with pytest.raises(FlowerDiffError, match=expected): read(folder)

@pytest.mark.parametrize('name, asked', [
    ('me/m', ('me/m', None)), ('me/m@v1.0', ('me/m', 'v1.0')), ('me/m@refs/pr/3', ('me/m', 'refs/pr/3')),
    ('me/m@' + 'a'*40, ('me/m', 'a'*40)), ('me/m@', None), ('me/m@v 1', None), ('m@v1', None)])
def test_revisions_on_the_hub(name, asked, monkeypatch):
    "A branch, a tag or a commit; everything else is left to huggingface_hub."
    def snapshot_download(repo, revision, allow_patterns):
        assert (repo, revision) == asked
        return BUNDLED/'baseline'
    monkeypatch.setattr('huggingface_hub.snapshot_download', snapshot_download)
    if asked: assert load(name, 'cpu').config.model == 'baseline'
    else:
        with pytest.raises(FlowerDiffError, match='unknown model'): load(name)

@pytest.mark.parametrize('read', (load, read_weights))
def test_weights_cut_short(read, tmp_path):
    folder = tmp_path/'model'
    shutil.copytree(BUNDLED/'baseline', folder)
    file = folder/'model.safetensors'
    half = file.stat().st_size//2
    with file.open('r+b') as f: f.truncate(half)
    with pytest.raises(FlowerDiffError, match='damaged'): read(folder)

@pytest.mark.parametrize('sampler', SAMPLERS)
def test_a_seed_decides_the_images(sampler):
    "Six at once, six again, and two plus four."
    config = ModelConfig(16, 'v', 'cosine', 'baseline', net=dict(n_classes=2, widths=[8, 16]), classes=['rose', 'iris'])
    torch.manual_seed(0)
    net = build(config)
    torch.nn.init.normal_(net.out.weight, std=.05)
    m = Model(net, config, 'cpu', torch.float32)
    plan = m.plan(sampler=sampler, steps=3)
    x = m.sample(6, plan=plan)
    assert x.abs().max() <= 1
    assert torch.equal(m.sample(6, plan=plan), x)
    parts = torch.cat([m.sample(2, plan=plan), m.sample(4, start=2, plan=plan)])
    assert torch.allclose(parts, x, atol=1e-4)

@pytest.fixture(scope='module')
def m(): return load('baseline', 'cpu')

@pytest.mark.parametrize('call, message', [
    (lambda m: m.noise(2, -1), 'seed is -1'),
    (lambda m: m.noise(0), 'n is 0'),
    (lambda m: m.sample(1, plan='fast'), "plan is 'fast'"),
    (lambda m: m.plan(sigmas='abc'), "sigmas is 'abc'"),
    (lambda m: m.plan(sigma_max=True), 'sigma is True'),
    (lambda m: m.plan(sigma_max=1e9), 'sigma is 1e+09: give a noise level this model was trained on'),
    (lambda m: m.sample(1, sampler='ddim', eta='a'), "eta is 'a'"),
    (lambda m: m.sample(1, sampler='ddim', eta=2), 'eta is 2')])
def test_one_clear_line(m, call, message):
    "What a user may get wrong in Python."
    with pytest.raises(FlowerDiffError) as e: call(m)
    assert message in str(e.value)

@pytest.mark.parametrize('changes, message', [
    (dict(classes=[1, 2]), 'give their names as text'),
    (dict(sigma_data=0), 'sigma_data is 0'),
    (dict(sigma_data=float('nan')), 'sigma_data is nan'),
    (dict(schedule='cos'), "unknown schedule 'cos'"),
    (dict(shift=0), 'shift is 0')])
def test_impossible_configs(tmp_path, changes, message):
    "The message names the file."
    folder = tmp_path/'model'
    shutil.copytree(BUNDLED/'baseline', folder)
    file = folder/'config.json'
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | changes))
    with pytest.raises(FlowerDiffError) as e: load(folder)
    assert message in str(e.value) and 'config.json' in str(e.value)

def small(sizes, most):
    "A small model with memory for `most` images at a time; it notes how many it is asked for."
    torch.manual_seed(0)
    config = ModelConfig(8, 'v', 'cosine', 'baseline', net=dict(widths=[16, 32], n_classes=2), classes=['a', 'b'])
    net = build(config)
    torch.nn.init.normal_(net.out.weight, std=.05)
    m = Model(net, config, 'cpu', torch.float32)
    def watch(module, args):
        sizes.append(len(args[0]))
        if len(args[0]) > most: raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
    net.register_forward_pre_hook(watch)
    return m

def test_sampling_with_little_memory(capsys):
    "Batches are halved once for all, and the images are the same."
    sizes = []
    how = dict(n=12, steps=3, guidance=2., classes=['a', 'b'], progress=False)
    wanted = small([], 99).sample(**how)
    m = small(sizes, 5)
    for _ in range(2): assert (m.sample(**how) - wanted).abs().max() < 1e-5
    # 24 guided images: 12, 6, 3
    assert sizes[:4] == [24, 12, 6, 3] and max(sizes[4:]) == 3
    assert capsys.readouterr().err == 'out of memory with 30 images at a time: from now on 3\n'

def test_saved_model_is_the_same(tmp_path):
    m = load('baseline', 'cpu')
    m.save(tmp_path)
    same = load(tmp_path, 'cpu')
    assert same.config == m.config and torch.equal(same.sample(2, steps=2), m.sample(2, steps=2))

def bars(monkeypatch, **how):
    "Sample a little, and return how far each bar that was shown has got."
    shown = []
    class Bar:
        def __init__(self, total, desc, disable, **kwargs):
            self.n, self.total = 0, total
            if not disable: shown.append(self)
        def update(self): self.n += 1
        def __enter__(self): return self
        def __exit__(self, *args): pass
    monkeypatch.setattr('flowerdiff.models.tqdm', Bar)
    load('baseline', 'cpu').sample(2, steps=2, guidance=1, **how)
    return [(bar.n, bar.total) for bar in shown]

def test_bar_gets_to_its_end(monkeypatch):
    assert bars(monkeypatch) == [(3, 3)]
    reports = 3 + 2*len(load('enlarge', 'cpu').plan().sigmas)
    assert bars(monkeypatch, size=256) == [(reports, reports)]

def test_bar_can_be_turned_off(monkeypatch):
    assert not bars(monkeypatch, progress=False)
    # whoever watches has a display of its own
    assert not bars(monkeypatch, callback=print)
    assert len(bars(monkeypatch, callback=print, progress=True)) == 1
