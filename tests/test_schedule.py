"Guards for flowerdiff.schedule: what it refuses, and what must not change."
import math

import pytest, torch
from flowerdiff.core import FlowerDiffError
from flowerdiff.schedule import *
from flowerdiff.denoiser import *
from refused import check_refused

def seeded(): return torch.Generator().manual_seed(0)

images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8, generator=seeded())
linear, one = schedule_sigmas('linear'), torch.ones(1)

# (call, what the message must say)
REFUSED = [
    (lambda: schedule_sigmas('quadratic'), "unknown schedule 'quadratic': use linear, "),
    (lambda: schedule_sigmas('cosine', shift=0), 'shift is 0'),
    (lambda: schedule_sigmas('cosine', shift=-1), 'shift is -1'),
    (lambda: schedule_sigmas('cosine', shift=math.nan), 'shift is nan'),
    (lambda: schedule_sigmas('cosine', 1), 'T is 1'),
    (lambda: Denoiser(None, 'w'), "unknown prediction 'w': use eps, x0, v, edm"),
    (lambda: scalings('w', one), "unknown prediction 'w'"),
    (lambda: loss_weight('max_snr', 'v', one), "unknown loss weight 'max_snr': use plain, "),
    (lambda: loss_weight('min_snr', 'v', one, gamma=0), 'gamma is 0'),
    (lambda: measure_sigma_data(images.float()), 'give bytes'),
    (lambda: sample_sigmas('pink', 4, linear), "unknown noise distribution 'pink': use uniform, "),
    (lambda: check_combination('w'), "'w'"),
    (lambda: check_combination('v', 'w'), "unknown loss weight 'w'"),
    (lambda: check_combination('v', noise='w'), "unknown noise distribution 'w'"),
    (lambda: check_combination('eps', zero_snr=True), 'use v, x0 or edm'),
    (lambda: check_combination('v', 'min_snr', zero_snr=True), 'use plain, uniform or edm'),
    (lambda: check_combination('v', noise='log_normal', zero_snr=True), 'never reaches the end'),
    (lambda: check_combination('v', noise='cosine', shift=2.), 'does not follow the schedule'),
    (lambda: check_combination('v', noise_options=dict(mean=0)), 'it has none'),
    (lambda: check_combination('v', noise='log_normal', noise_options=dict(low=3)), 'it has mean, std'),
    (lambda: check_combination('v', noise='log_normal', noise_options=dict(std=-1)), 'std of noise'),
    (lambda: check_combination('v', noise='log_normal', noise_options=dict(mean='1')), "'1'"),
    (lambda: check_combination('v', noise='log_normal', noise_options=dict(mean=math.inf)), 'inf'),
    (lambda: linear_sigmas(1001, linear), 'steps is 1001: give a whole number from 1 to 1000'),
    (lambda: trailing_sigmas(0, linear), 'steps is 0'),
    (lambda: karras_sigmas(0), 'steps is 0'),
    (lambda: karras_sigmas(5, rho=0), 'rho is 0'),
    (lambda: karras_sigmas(5, 2., 1.), 'from 1.0 down to 2.0'),
    (lambda: log_snr_sigmas(-3), 'steps is -3'),
    (lambda: log_snr_sigmas(3, 0.), 'give sigma_max > sigma_min > 0'),
    (lambda: check_sigmas([1, 2, 0]), '1.0 is followed by 2.0'),
    (lambda: check_sigmas([2, 2, 0]), '2.0 is followed by 2.0'),
    (lambda: check_sigmas([2, math.nan, 0]), 'nan'),
    (lambda: check_sigmas([math.inf, 1, 0]), 'inf'),
    (lambda: check_sigmas([2, -1]), '-1'),
    (lambda: check_sigmas([3.]), 'at least two'),
    (lambda: check_sigmas(3.), 'at least two'),
]

@pytest.mark.parametrize('call, message', REFUSED)
def test_refused(call, message): check_refused(call, message)

@pytest.mark.parametrize('weight', WEIGHTS)
@pytest.mark.parametrize('prediction', SCALINGS)
def test_other_combinations_are_allowed(prediction, weight):
    check_combination(prediction, weight, 'log_normal', noise_options=dict(mean=-1, std=2.))

@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('weight', WEIGHTS)
@pytest.mark.parametrize('prediction', ('v', 'x0', 'edm'))
def test_zero_snr_refuses_the_weights_that_vanish(schedule, weight, prediction):
    w = loss_weight(weight, prediction, schedule_sigmas(schedule, zero_snr=True))
    last = (w[-1]/w.median()).item()
    try:
        check_combination(prediction, weight, zero_snr=True)
        assert last > .1
    except FlowerDiffError as error:
        assert 'falls to 0' in str(error)
        assert last < 1e-5

@pytest.mark.parametrize('schedule', SCHEDULES)
@pytest.mark.parametrize('shift', (.25, 1, 4))
def test_schedules_rise_and_zero_snr_ends_at_4096(schedule, shift):
    usual = schedule_sigmas(schedule, shift=shift)
    rescaled = schedule_sigmas(schedule, shift=shift, zero_snr=True)
    for sigmas in (usual, rescaled):
        assert (sigmas.diff() > 0).all()
    assert rescaled[-1].item() == pytest.approx(4096, abs=.01)

@pytest.mark.parametrize('schedule', SCHEDULES)
def test_sigmas_of_a_schedule_are_its_alpha_bar(schedule):
    a = alpha_bar(SCHEDULES[schedule]())
    torch.testing.assert_close(signal_rate(schedule_sigmas(schedule))**2, a, rtol=0, atol=1e-12)

def test_sigma_data_is_exact():
    direct = (images.double()/127.5 - 1).std(correction=0).item()
    for x in (images, images.permute(0, 2, 3, 1)):
        assert measure_sigma_data(x) == pytest.approx(direct, abs=1e-12)

def test_column_keeps_dtype():
    x = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    scalar = torch.tensor(.1, dtype=torch.float64)
    for sigma in (.1, scalar, scalar.expand(2)):
        column = as_column(sigma, x)
        assert column.shape == (2, 1, 1, 1)
        assert column.dtype == x.dtype
        assert (column == .1).all()

class Scaled(torch.nn.Module):
    "A network in 16 bits."
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(.5, dtype=torch.bfloat16))

    def forward(self, x, c_noise):
        assert x.dtype == torch.bfloat16
        assert c_noise.dtype == torch.float32
        return self.scale*x

def test_denoiser_returns_the_dtype_of_the_image():
    denoise = Denoiser(Scaled(), 'edm')
    x = torch.randn(2, 3, 4, 4)
    assert denoise(x, 1.).dtype == torch.float32
    assert denoise.loss(x, torch.ones(2), x).dtype == torch.float32

@pytest.mark.parametrize('kind', SIGMA_DISTRIBUTIONS)
def test_samples_depend_on_the_generator_alone(kind):
    first = sample_sigmas(kind, 16, linear, generator=seeded())
    again = sample_sigmas(kind, 16, linear, generator=seeded())
    assert torch.equal(first, again)
    assert first.dtype == torch.float32

@pytest.mark.parametrize('kind', SIGMA_DISTRIBUTIONS)
def test_quantiles_are_finite_at_the_ends(kind):
    low, high = SIGMA_DISTRIBUTIONS[kind](torch.tensor([0., 1.]), linear.float())
    assert 0 < low < high < math.inf

def test_spacings_of_a_schedule():
    assert torch.equal(trailing_sigmas(1000, linear)[:-1], linear.flip(0))
    assert torch.equal(linear_sigmas(1000, linear), trailing_sigmas(1000, linear))
    assert trailing_sigmas(7, linear)[0] == linear[-1]
    both_ends = linear_sigmas(7, linear)
    assert both_ends[0] == linear[-1]
    assert both_ends[-2] == linear[0]

def test_spacings_of_a_range():
    ends = karras_sigmas(10)[[0, -2, -1]].tolist()
    assert ends == pytest.approx([80, .02, 0], abs=1e-9)
    steps = log_snr(log_snr_sigmas(8)[:-1]).diff()
    torch.testing.assert_close(steps, steps[0].expand(7), rtol=0, atol=1e-9)
    assert SPACINGS['exponential'] is SPACINGS['log_snr']

def test_check_sigmas_returns_float64():
    for sigmas in ([3, .1, 0], torch.tensor([3, .1, 0], dtype=torch.float64)):
        s = check_sigmas(sigmas)
        assert s.tolist() == [3, .1, 0]
        assert s.dtype == torch.float64

class OnMPS(torch.Tensor):
    "A tensor that refuses float64, as those on Apple's GPUs do."
    device = torch.device('mps')

    def cpu(self): return self.as_subclass(torch.Tensor)

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(out, cls) and out.dtype == torch.float64: raise TypeError('MPS has no float64')
        return out

on_mps = linear.float().as_subclass(OnMPS)

def test_the_stand_in_refuses_float64():
    with pytest.raises(TypeError):
        on_mps.double()

@pytest.mark.parametrize('kind', SIGMA_DISTRIBUTIONS)
def test_quantiles_on_mps(kind):
    u = torch.rand(8, generator=seeded())
    sigma = SIGMA_DISTRIBUTIONS[kind](u.as_subclass(OnMPS), on_mps)
    assert torch.equal(sigma.cpu(), SIGMA_DISTRIBUTIONS[kind](u, linear.float()))

def test_spacings_on_mps():
    assert torch.equal(trailing_sigmas(9, on_mps), trailing_sigmas(9, linear.float()))

def test_check_sigmas_on_mps(monkeypatch):
    as_tensor = torch.as_tensor
    def refuse(x, **kw):
        assert not isinstance(x, OnMPS)
        return as_tensor(x, **kw)
    # the stand-in does not hear of this function
    monkeypatch.setattr(torch, 'as_tensor', refuse)
    assert check_sigmas(on_mps.flip(0)).dtype == torch.float64
