"""Enlarging: tiles, batches and crops make the same images, the cascade is its two parts, and what is refused."""
import math
from dataclasses import replace
from functools import partial
import pytest, torch
from flowerdiff import models
from flowerdiff.config import ModelConfig, build
from flowerdiff.enlarging import DetailDenoiser, EnlargeUNet, enlarge_bicubic, in_tiles, shrink, shrink_as_file
from flowerdiff.guidance import Guidance
from flowerdiff.images import draw_flowers, size_pair, to_float
from flowerdiff.core import bundled
from flowerdiff.models import MAX_PIXELS, Model, check_pixels, load, save
from refused import check_refused

small = to_float(draw_flowers(3, 16)[0])

def make(config):
    "Make an untrained model whose output depends on its input."
    torch.manual_seed(0)
    net = build(config)
    for p in net.parameters():
        if p.ndim > 1 and not p.any(): torch.nn.init.normal_(p, std=.05)
    return Model(net, config, 'cpu', torch.float32)

def make_enlarger(channels=3):
    "Make a small model that enlarges."
    preset = dict(spacing=[.5, .1, 0.], clip=True)
    net = dict(widths=[8, 16, 24], n_emb=16)
    config = ModelConfig(64, 'edm', 'cosine', 'enlarge', channels, net, preset, sigma_data=.1)
    return make(config)

def make_base(size=16, channels=3, **settings):
    "Make a small model that draws."
    net = dict(widths=[8, 16], n_classes=0)
    return make(ModelConfig(size, 'v', 'cosine', 'baseline', channels, net, **settings))

@pytest.fixture(scope='module')
def enlarger(): return make_enlarger()

@pytest.fixture(scope='module')
def folder(tmp_path_factory, enlarger):
    "The folder of a model that enlarges."
    path = tmp_path_factory.mktemp('models')/'enlarger'
    save(enlarger.net, enlarger.config, path)
    return path

@pytest.fixture(scope='module')
def base(folder): return make_base(enlarger=str(folder))

def low_images(h, w):
    "Noisy images, and what the network is told about them."
    torch.manual_seed(h)
    x, low = torch.randn(2, 1, 3, h, w)
    return x, dict(low=low, low_sigma=torch.tensor([.1]))

# small images as files have them

BOX, BICUBIC, LANCZOS = 0., .4, .9
WITHOUT = .9

def pale_flower():
    "Draw a flower far from black and white, where files would cut values off."
    return 64 + draw_flowers(1, 64)[0][0]//2

def shrink_flower(which, quality, channels=3):
    "Shrink a drawn flower."
    twice = pale_flower().repeat(2, 1, 1)
    u = torch.tensor([which, quality])
    return shrink_as_file(twice[:channels], u)

def distance(a, b):
    "Find the largest difference."
    return (a.float() - b.float()).abs().max()

def test_small_images_by_each_filter():
    flower = pale_flower()[None].float()
    means = torch.nn.functional.avg_pool2d(flower, 4)
    # Pillow rounds to whole numbers after each axis
    box, bicubic, lanczos = [shrink_flower(which, WITHOUT) for which in (BOX, BICUBIC, LANCZOS)]
    assert distance(box, means[0]) <= 1
    assert distance(bicubic, shrink(flower)[0]) <= 1.5
    assert lanczos.float().std() > bicubic.float().std()

def test_less_quality_more_error():
    exact = shrink_flower(LANCZOS, WITHOUT)
    def error(u): return distance(shrink_flower(LANCZOS, u), exact)
    assert error(0.) > error(.49) > 0
    assert error(.5) == 0

@pytest.mark.parametrize('channels', [1, 3, 4])
def test_small_images_keep_their_channels(channels):
    small = shrink_flower(BOX, 0., channels)
    assert small.shape == (channels, 16, 16) and small.dtype == torch.uint8
    if channels == 4: assert small.equal(shrink_flower(BOX, WITHOUT, 4))

# tiles and crops

@pytest.mark.parametrize('h, w', [(64, 400), (416, 432), (448, 16)])
@torch.inference_mode()
def test_tiles_equal_the_whole(enlarger, h, w):
    "Also where tiles do not divide the image, and where it is narrower than one."
    x, low = low_images(h, w)
    whole = enlarger.denoise(x, .5, **low)
    tiles = in_tiles(enlarger.denoise, enlarger.net.reach, 64)(x, .5, **low)
    assert (tiles - whole).abs().max() < 1e-3
    # the test would notice: a border that is too narrow shows
    narrow = in_tiles(enlarger.denoise, 0, 64)(x, .5, **low)
    assert (narrow - whole).abs().max() > .01

@torch.inference_mode()
def test_a_crop_equals_the_whole(enlarger):
    "Farther from its border than the network looks, a crop has the values of the whole image."
    x, told = low_images(416, 352)
    whole = enlarger.denoise(x, .5, **told)
    top, right = 16, 336
    part = dict(low=told['low'][..., top:, :right], low_sigma=told['low_sigma'])
    crop = enlarger.denoise(x[..., top:, :right], .5, **part)
    reach = enlarger.net.reach
    difference = crop - whole[..., top:, :right]
    assert difference[..., reach:, :-reach].abs().max() < 1e-3
    assert difference.abs().max() > .01

def test_no_call_of_the_network_is_larger_than_a_tile(enlarger, monkeypatch):
    "Its memory is bounded, however large the image."
    low = small[:1].repeat(1, 1, 8, 7)
    whole = enlarger.enlarge(low)
    seen, denoise = [], enlarger.denoise
    def watched(x, sigma, **cond):
        seen.extend(x.shape[-2:])
        return denoise(x, sigma, **cond)
    monkeypatch.setattr(enlarger, 'denoise', watched)
    monkeypatch.setattr(models, 'in_tiles', partial(in_tiles, tile=64))
    tiles = enlarger.enlarge(low)
    assert max(seen) <= 64 + 2*enlarger.net.reach < max(tiles.shape)
    assert torch.allclose(tiles, whole, atol=1e-3)

# the images of a seed

def test_images_do_not_depend_on_the_others(enlarger):
    "Three at once, and one plus two."
    whole = enlarger.enlarge(small, seed=5)
    parts = [enlarger.enlarge(small[:1], seed=5), enlarger.enlarge(small[1:], seed=5, start=1)]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.shape == (3, 3, 64, 64) and whole.abs().max() <= 1
    assert not torch.allclose(enlarger.enlarge(small, seed=6), whole, atol=.01)
    # the same image twice gets noise of its own
    twice = enlarger.enlarge(small[:1].repeat(2, 1, 1, 1))
    assert not torch.allclose(*twice, atol=.01)

@pytest.mark.parametrize('sampler', ('dpmpp_2m', 'ddpm', 'heun'))
def test_start_with_every_kind_of_sampler(enlarger, sampler):
    how = dict(sampler=sampler, steps=3, sigma_max=1.)
    second = enlarger.enlarge(small, **how)[1:2]
    assert torch.equal(enlarger.enlarge(small[1:2], start=1, **how), second)

@pytest.mark.parametrize('h, w', [(1, 1), (7, 13), (16, 5)])
def test_any_height_and_width(enlarger, h, w):
    "What is repeated at the border is cut off again."
    low = small[:1, :, :h, :w]
    large = enlarger.enlarge(low)
    assert large.shape == (1, 3, 4*h, 4*w) and large.isfinite().all()

def what_is_seen(enlarger, monkeypatch, low, **how):
    "Enlarge an image, and return the small image and noise level that the network is told."
    seen, denoise = [], enlarger.denoise
    def watched(x, sigma, low, low_sigma):
        seen.append((low, low_sigma.item()))
        return denoise(x, sigma, low=low, low_sigma=low_sigma)
    monkeypatch.setattr(enlarger, 'denoise', watched)
    enlarger.enlarge(low, **how)
    # the same in all steps
    assert all(torch.equal(low, seen[0][0]) for low, _ in seen)
    return seen[0]

def test_the_border_is_repeated(enlarger, monkeypatch):
    "What the network sees beyond the image are its last row and column."
    low, _ = what_is_seen(enlarger, monkeypatch, small[:1, :, :13, :15], low_sigma=.002)
    assert low.shape == (1, 3, 64, 64)
    below = low[..., 52:, :] - low[..., 51:52, :]
    right = low[..., 60:] - low[..., 59:60]
    assert below.abs().max() < .02
    assert right.abs().max() < .02

@pytest.mark.parametrize('low_sigma', (.002, .05, 1.))
def test_the_network_is_told_the_noise_of_the_small_image(enlarger, monkeypatch, low_sigma):
    low, told = what_is_seen(enlarger, monkeypatch, small[:1], low_sigma=low_sigma)
    noise = low - enlarge_bicubic(small[:1])
    assert told == pytest.approx(low_sigma)
    assert noise.std().item() == pytest.approx(low_sigma, rel=.05)

# the cascade

def test_sample_is_both_parts(base):
    both = base.sample(3, size=64, seed=2, start=4, steps=3)
    drawn = base.sample(3, seed=2, start=4, steps=3)
    assert torch.equal(both, base.enlarge(drawn, seed=2, start=4))
    assert both.shape == (3, 3, 64, 64)

def test_images_of_the_cascade_do_not_depend_on_the_others(base):
    whole = base.sample(3, size=64)
    parts = [base.sample(1, size=64), base.sample(2, size=64, start=1)]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-4)

@pytest.mark.parametrize('size', (None, 16, (16, 16), (16, 24), 32))
def test_other_sizes_are_drawn(size):
    "The model's own, and others that are not four times as large, need no partner."
    drawn, partner = make_base().chain(size)
    assert drawn == size_pair(size or 16)
    assert partner is None

def test_callback_hears_of_both_parts(base):
    "First of all images together, then of each as it is enlarged."
    steps = []
    base.sample(2, size=64, steps=3, callback=steps.append)
    heard = [(s.i, s.n, *s.x.shape) for s in steps]
    drawn = [(i, 3, 2, 3, 16, 16) for i in range(4)]
    enlarged = [(i, 2, 1, 3, 64, 64) for i in range(3)]
    assert heard == drawn + 2*enlarged

def test_partner_is_loaded_once(folder, monkeypatch):
    "On the device and in the precision of the model."
    calls = []
    def watched(*args):
        calls.append(args)
        return load(*args)
    monkeypatch.setattr(models, 'load', watched)
    m = make_base(enlarger=str(folder))
    assert m.enlarger() is m.enlarger() and m.enlarger().enlarger() is m.enlarger()
    assert calls == [(str(folder), 'cpu', torch.float32)]

def test_without_a_partner_the_bundled_one(capsys):
    "And it is said once."
    m = make_base(64)
    for _ in range(2): enlarger = m.enlarger()
    assert enlarger.enlarges and enlarger.shape == (3, 256, 256)
    assert capsys.readouterr().err == 'this model names no enlarger: using the bundled one\n'

def test_bundled_models_name_their_partner(capsys):
    assert {load(name, 'cpu').enlarger().config.model for name in bundled()} == {'enlarge'}
    assert not capsys.readouterr().err

def test_partner_is_no_model_to_draw_with():
    assert 'enlarge' not in bundled()

def test_config_keeps_its_partner(base, folder, tmp_path):
    save(base.net, base.config, tmp_path/'mine')
    again = load(tmp_path/'mine', 'cpu', torch.float32)
    assert again.config == base.config and again.config.enlarger == str(folder)
    assert torch.equal(again.sample(1, size=64), base.sample(1, size=64))

# what is refused

def huge(h, w):
    "An image that takes no memory."
    return torch.zeros(1).expand(1, 3, h, w)

side = math.isqrt(MAX_PIXELS)//4

REFUSED = [
    # a model without a partner
    (lambda s, b: make_base().sample(1, size=64), 'makes images of shape (3, 16, 16) and names no enlarger'),
    (lambda s, b: make_base(32).sample(1, size=128), 'makes images of shape (3, 32, 32) and names no enlarger'),
    (lambda s, b: make_base(64, 1).sample(1, size=256), 'makes images of shape (1, 64, 64) and names no enlarger'),
    (lambda s, b: make_base(32).enlarge(small), 'names no enlarger'),
    # one that is none
    (lambda s, b: make_base(enlarger='baseline').sample(1, size=64), "the enlarger 'baseline' is Model(baseline"),
    (lambda s, b: make_base(enlarger='nowhere').sample(1, size=64), "unknown model 'nowhere'"),
    (lambda s, b: make_base(channels=1, enlarger='enlarge').sample(1, size=64), 'name one of 1 channels that enlarges'),
    # sizes
    (lambda s, b: b.sample(1, size=63), 'images of 63 x 63: height and width must be multiples of 2'),
    (lambda s, b: b.sample(1, size=8000), 'cannot make images of 8000 x 8000'),
    (lambda s, b: b.sample(1, size=10**6), 'size is 1000000'),
    (lambda s, b: b.sample(1, size='large'), "size is 'large'"),
    (lambda s, b: b.sample(1, size=(64, 64, 64)), 'size is (64, 64, 64)'),
    # images to enlarge
    (lambda s, b: s.enlarge(small[:, :1]), 'images have shape (3, 1, 16, 16): give (n, 3, height, width)'),
    (lambda s, b: s.enlarge(small[0]), 'images have shape (3, 16, 16)'),
    (lambda s, b: s.enlarge(small[:0]), 'images have shape (0, 3, 16, 16)'),
    (lambda s, b: s.enlarge([small]), 'images have shape ()'),
    (lambda s, b: s.enlarge(small.numpy()), 'not a float tensor'),
    (lambda s, b: s.enlarge(small.byte()), 'not a float tensor'),
    (lambda s, b: s.enlarge(small*255), 'images go up to'),
    (lambda s, b: s.enlarge(small*math.nan), 'images go up to nan'),
    (lambda s, b: s.enlarge(huge(side + 1, side + 1)), 'the limit is 36 million pixels'),
    (lambda s, b: b.enlarge(huge(10**5, 10**5)), 'cannot make images of 400000 x 400000'),
    # settings
    (lambda s, b: s.enlarge(small, low_sigma=0), 'low_sigma is 0'),
    (lambda s, b: s.enlarge(small, low_sigma=3), 'low_sigma is 3'),
    (lambda s, b: s.enlarge(small, seed=-1), 'seed is -1'),
    (lambda s, b: s.enlarge(small, guidance=2.), 'trained without classes'),
    (lambda s, b: s.enlarge(small, guide=s, guidance=2.), 'enlarging knows no guidance'),
    (lambda s, b: s.enlarge(small, plan='fast'), "plan is 'fast'"),
    # a model that enlarges draws nothing
    (lambda s, b: s.sample(1), 'this model enlarges, and draws nothing: use m.enlarge(images)'),
    (lambda s, b: s.sample(1, size=256), 'this model enlarges, and draws nothing'),
    (lambda s, b: load('enlarge', 'cpu').sample(1), 'this model enlarges, and draws nothing'),
]

@pytest.mark.parametrize('call, message', REFUSED, ids=[message for _, message in REFUSED])
def test_refused(enlarger, base, call, message): check_refused(lambda: call(enlarger, base), message)

def test_largest_image():
    "What is just small enough is not refused."
    check_pixels(4*side, 4*side)

def test_a_plan_with_guidance(enlarger):
    "A plan of the model that draws is not one of its partner."
    plan = make_enlarger().plan()
    check_refused(lambda: enlarger.enlarge(small, plan=replace(plan, guidance=Guidance(2.))), 'm.enlarger().plan()')

def test_low_of_another_size():
    enlarger = DetailDenoiser(EnlargeUNet((16, 24), n_emb=32), 'edm', .1)
    x, low = torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 16, 16)
    check_refused(lambda: enlarger(x, 1., low=low, low_sigma=torch.ones(1)), 'low has shape (1, 3, 16, 16) and x (1, 3, 64, 64)')
