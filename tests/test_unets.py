"Guards for flowerdiff.baseline_unet and flowerdiff.attention_unet."
import json
from pathlib import Path

import pytest, torch
from safetensors.torch import load_file
import flowerdiff
from flowerdiff.attention_unet import AttentionUNet, SelfAttention
from flowerdiff.baseline_unet import BaselineUNet, net_cost
from flowerdiff.core import FlowerDiffError
from flowerdiff.images import draw_flowers, to_float
from flowerdiff.schedule import add_noise
from flowerdiff.denoiser import Denoiser

WEIGHTS = Path(flowerdiff.__file__).parent/'weights'
NETS = dict(baseline=BaselineUNet, attention=AttentionUNet)
SMALL = dict(
    baseline=dict(widths=(8, 16)),
    attention=dict(widths=(32, 64), attention=(1,), n_emb=32),
)
both = pytest.mark.parametrize('name', NETS)

def small(name, **options):
    "Make a small network whose layers are all random."
    torch.manual_seed(0)
    net = NETS[name](**SMALL[name], **options).eval()
    for p in net.parameters(): torch.nn.init.normal_(p, std=.1)
    return net

def batch(n=3, channels=3, h=16, w=16):
    "Make noisy images and noise levels."
    torch.manual_seed(1)
    return torch.randn(n, channels, h, w), torch.linspace(-1, 1, n)

@both
def test_bundled_weights_load_and_denoise(name):
    config = json.loads((WEIGHTS/name/'config.json').read_text())
    weights = load_file(WEIGHTS/name/'model.safetensors')
    net = NETS[name](**config['net']).eval()
    net.load_state_dict({k: v.float() for k, v in weights.items()})
    denoise = Denoiser(net, config['prediction'])
    x0 = to_float(draw_flowers(4)[0])
    torch.manual_seed(0)
    noisy = add_noise(x0, .5, torch.randn_like(x0))
    with torch.inference_mode():
        clean = denoise(noisy, .5)
    assert (clean - x0).std() < .25

# checkpoints of an optimizer know parameters by their order
ORDER = dict(
    baseline='embed embed_label inp enc down mid up dec out',
    attention='embed embed_label embed_augment inp enc dec mid norm out',
)

@both
def test_parameters_keep_their_order(name):
    options = dict(n_augment=3) if name == 'attention' else {}
    net = NETS[name](n_classes=2, **options)
    parts = [k.split('.')[0] for k, _ in net.named_parameters()]
    assert list(dict.fromkeys(parts)) == ORDER[name].split()

@both
@pytest.mark.parametrize('channels', (1, 3, 4))
@pytest.mark.parametrize('h, w', ((16, 16), (32, 48), (8, 4)))
def test_channels_and_sizes(name, channels, h, w):
    net = small(name, channels=channels)
    x, c = batch(1, channels, h, w)
    assert net(x, c).shape == x.shape

@both
def test_cost_of_other_channels(name):
    params, gflop = net_cost(small(name, channels=1), 16)
    more_params, more_gflop = net_cost(small(name, channels=4), 16)
    assert 0 < params < more_params
    assert 0 < gflop < more_gflop

@pytest.mark.parametrize('fold', (1, 2, 3))
def test_patch_sizes(fold):
    net = small('attention', fold=fold)
    x, c = batch(1, h=2*fold, w=4*fold)
    assert net(x, c).shape == x.shape
    with pytest.raises(FlowerDiffError, match=f'multiples of {2*fold}'):
        net(x[:,:,:fold], c)

@both
def test_new_networks_predict_nothing(name):
    x, c = batch()
    assert not NETS[name]()(x, c).any()

@both
def test_refuses_sizes(name):
    x, c = batch(1, h=50, w=64)
    with pytest.raises(FlowerDiffError, match='images of 50 x 64: height and width must be multiples of 16'):
        NETS[name]()(x, c)

@both
def test_refuses_labels_without_classes(name):
    x, c = batch(2)
    with pytest.raises(FlowerDiffError, match='knows no classes'):
        small(name)(x, c, torch.tensor([0, 1]))

@both
def test_images_do_not_depend_on_their_batch(name):
    net = small(name, n_classes=5)
    together = *batch(), torch.tensor([0, 4, 5])
    with torch.inference_mode():
        alone = [net(*[a[i:i+1] for a in together]) for i in range(3)]
        torch.testing.assert_close(net(*together), torch.cat(alone), rtol=0, atol=1e-4)

@both
def test_labels_and_noise_levels_matter(name):
    net = small(name, n_classes=5)
    x, c = batch()
    with torch.inference_mode():
        out = net(x, c)
        labelled = net(x, c, torch.zeros(3, dtype=torch.int64))
        noisier = net(x, c + .5)
    assert (out - labelled).abs().max() > 1e-3
    assert (out - noisier).abs().max() > 1e-3

@both
def test_no_label_is_the_last_label(name):
    net = small(name, n_classes=5)
    x, c = batch()
    with torch.inference_mode():
        torch.testing.assert_close(net(x, c), net(x, c, torch.full((3,), 5)), rtol=0, atol=1e-6)

def test_no_augmentation_is_a_zero_vector():
    net = small('attention', n_augment=7)
    x, c = batch()
    with torch.inference_mode():
        out = net(x, c)
        zeros = net(x, c, augment=torch.zeros(3, 7))
        ones = net(x, c, augment=torch.ones(3, 7))
    assert torch.equal(out, zeros)
    assert (out - ones).abs().max() > 1e-3

def test_attention_sees_all_positions():
    torch.manual_seed(0)
    attention = SelfAttention(32)
    torch.nn.init.normal_(attention.out.weight, std=.1)
    x = torch.randn(1, 32, 4, 6, requires_grad=True)
    attention(x)[0,:,0,0].sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()

@both
def test_runs_in_bfloat16(name):
    net = small(name, n_classes=5)
    x, c = batch()
    with torch.inference_mode():
        full = net(x, c)
        net.to(torch.bfloat16, memory_format=torch.channels_last)
        out = net(x.bfloat16(), c.bfloat16())
    assert out.dtype == torch.bfloat16
    assert (out.float() - full).norm() < .05*full.norm()
