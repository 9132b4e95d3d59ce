"What editing refuses, and that its noises are those of its seeds."
import pytest, torch
# adds its methods to Model
from flowerdiff import editing
from flowerdiff.config import ModelConfig, build
from flowerdiff.core import FlowerDiffError
from flowerdiff.models import Model

def small_model():
    "A model with random weights: 16 pixels, two classes."
    net = dict(n_classes=2, widths=[8, 16])
    config = ModelConfig(16, 'v', 'cosine', 'baseline', net=net, classes=['rose', 'iris'])
    torch.manual_seed(0)
    network = build(config)
    torch.nn.init.normal_(network.out.weight, std=.05)
    return Model(network, config, 'cpu', torch.float32)

m = small_model()
x = m.sample(2, steps=2)
hole = torch.zeros(16, 16)
hole[4:9, 4:9] = 1

def filled(value):
    "The images, with one pixel of another value."
    y = x.clone()
    y[0, 0, 3, 3] = value
    return y

# calls, and what their messages must say
WRONG = [
    (lambda: m.variations([x], .5), 'not a float tensor'),
    (lambda: m.variations(x, .5, size=8), 'size is 8: variations are as large as the images'),
    (lambda: m.variations(x, .5, plan=m.plan()), 'a plan says everything: leave out sigma_max'),
    (lambda: m.variations(x.byte(), .5), 'not a float tensor'),
    (lambda: m.variations(x[0], .5), r'images of shape \(3, 16, 16\): give'),
    (lambda: m.variations(x[:0], .5), r'images of shape \(0, 3, 16, 16\)'),
    (lambda: m.variations(x[..., :8], .5), r'images of shape \(2, 3, 16, 8\)'),
    (lambda: m.variations(filled(float('nan')), .5), 'images go up to nan'),
    (lambda: m.invert(filled(2.)), "say which the images are of"),
    (lambda: m.invert(filled(-2.), classes='rose'), 'images go up to 2: give finite numbers'),
    (lambda: m.sample_from(filled(float('inf'))), 'noise go up to inf'),
    (lambda: m.inpaint(x, hole[:8]), r'give a tensor \(16, 16\), or \(2, 16, 16\)'),
    (lambda: m.inpaint(x, hole.expand(3, -1, -1)), r'or \(2, 16, 16\)'),
    (lambda: m.inpaint(x, [1, 0]), 'the mask has another shape'),
    (lambda: m.inpaint(x, 255*hole), 'outside of'),
    (lambda: m.inpaint(x, hole/0), 'outside of'),
    (lambda: m.interpolate(1, 1), 'both seeds are 1'),
    (lambda: m.interpolate(1, -2), 'seed is -2'),
    (lambda: m.interpolate(1, 2, 1), 'n is 1')]

@pytest.mark.parametrize('call, text', WRONG, ids=[text for _, text in WRONG])
def test_refused_calls(call, text):
    with pytest.raises(FlowerDiffError, match=text) as e: call()
    assert '\n' not in str(e.value)

def test_noise_may_leave_the_range_of_images():
    assert m.sample_from(5*torch.ones(2, 3, 16, 16), steps=2).shape == x.shape

def test_a_mask_for_each_image():
    masks = torch.stack([hole, hole.T.flip(0)])
    y = m.inpaint(x, masks, steps=2)
    for before, after, mask in zip(x, y, masks):
        kept = mask == 0
        assert torch.equal(after[:, kept], before[:, kept])

def test_walks_begin_and_end_with_their_seeds(monkeypatch):
    "The circle goes on beyond the second seed, and stops one step before the first."
    noises = []
    monkeypatch.setattr(Model, 'sample_from', lambda self, noise, **kwargs: noises.append(noise))
    m.interpolate(1, 5, 4)
    m.interpolate(1, 5, 8, loop=True)
    a, b = m.noise(1, 1), m.noise(1, 5)
    line, circle = noises
    ends = torch.cat([a, b])
    assert abs(line[[0, 3]] - ends).max() < 1e-5
    assert abs(circle[[0, 2]] - ends).max() < 1e-5
    # in so few dimensions, the noises are not quite at right angles
    half_way = torch.cosine_similarity(circle[4].flatten(), -a.flatten(), 0)
    assert half_way > .98
    assert len(circle) == 8
