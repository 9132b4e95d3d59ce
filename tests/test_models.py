"""Models: what is refused when weights and config disagree, and that a seed decides the images."""
import json, shutil
import pytest, torch
from flowerdiff.config import ModelConfig, build
from flowerdiff.core import FlowerDiffError
from flowerdiff.models import BUNDLED, Model, bundled, load, read_weights
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
