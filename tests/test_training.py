"Guards of flowerdiff.training: exactness, augmentation by EDM's table, averages and what snapshots can make."
import copy, itertools, math
from types import SimpleNamespace
import numpy as np, pytest, torch
from flowerdiff.attention_unet import AttentionUNet
from flowerdiff.baseline_unet import BaselineUNet
from flowerdiff.core import FlowerDiffError
from flowerdiff.images import DRAWN_NAMES, draw_flowers, to_float
from flowerdiff.schedule import SCHEDULES, schedule_sigmas
from flowerdiff.denoiser import SCALINGS, SIGMA_DISTRIBUTIONS, WEIGHTS
from flowerdiff.training import (N_AUGMENT, OPTIMIZERS, LossMeter, Muon, Trainer, apply_affine, ema_update, epoch_order,
                                 fit_profile, lr_factor, orthogonalise, posthoc_weights, power_gamma, random_affine,
                                 seed_step)

IMAGES, LABELS = draw_flowers(24, 16)
DATA = SimpleNamespace(images=IMAGES, labels=LABELS, class_names=DRAWN_NAMES)
SIGMAS = schedule_sigmas('cosine')

def make(data=DATA, attention=False, sigmas=SIGMAS, **settings):
    "Make a small trainer in float32."
    torch.manual_seed(0)
    if attention: net = AttentionUNet(12, (16, 32), attention=(1,), dropout=.1, n_augment=N_AUGMENT)
    else: net = BaselineUNet(12, (8, 16))
    settings = dict(batch_size=8, warmup=1, device='cpu') | settings
    trainer = Trainer(net, data, sigmas, **settings)
    trainer.dtype = torch.float32
    return trainer

def train(trainer, steps):
    "Train for some steps."
    for _ in range(steps): trainer.train_step()
    return trainer

def flat(trainer):
    "All tensors of a trainer, with their names, copied."
    out = {}
    for part, tensors in trainer.state_dict().items():
        for name, v in tensors.items():
            out[part, name] = v.clone()
    return out

def same(one, two, tolerance=0.):
    "Are two states alike?"
    assert one.keys() == two.keys()
    return all(torch.allclose(v, two[k], atol=tolerance, rtol=0)
               for k, v in one.items())

@pytest.mark.parametrize('attention', [False, True])
def test_flip(attention):
    "Half of the images are mirrored, or none; nothing else changes."
    drawn = {}
    for flip in (True, False):
        trainer = make(attention=attention, flip=flip)
        drawn[flip] = trainer.draw_batch()
    (x0, *others), (plain, *same_others) = drawn[True], drawn[False]
    real = [image for image in to_float(IMAGES)]
    def found(x): return any(torch.equal(x, image) for image in real)
    assert all(map(found, plain))
    mirrored = [i for i, x in enumerate(x0) if not found(x)]
    assert 0 < len(mirrored) < len(x0)
    for i in mirrored: assert torch.equal(x0[i].flip(-1), plain[i])
    for a, b in zip(others[:2], same_others[:2]): assert torch.equal(a, b)

def spoil(trainer):
    "Make the output of a network not a number; returns a way back."
    return trainer.net.inp.register_forward_hook(lambda m, i, o: o*math.nan).remove

# What is refused

FEW = np.repeat(np.arange(1, 6)*200., 2), (.05, .1)*5
REFUSED = [
    (lambda: make(world=3), 'batch_size 8 cannot be shared by 3 processes'),
    (lambda: make(sigmas=SIGMAS, prediction='w'), "unknown prediction 'w'"),
    (lambda: train(make(noise='pink'), 1), "'pink'"),
    (lambda: train(make(weight='heavy'), 1), "'heavy'"),
    (lambda: posthoc_weights(*FEW, 1000, .2), 'a length of 0.2 with an error of 16%: use a length nearer to one of [0.05, 0.1]'),
    (lambda: posthoc_weights(*FEW, 1000, .02), 'nearer to one of [0.05, 0.1]'),
    (lambda: posthoc_weights(*FEW, 1000, .3), 'length is 0.3'),
    (lambda: posthoc_weights(*FEW, 1000, 0), 'length is 0'),
    (lambda: posthoc_weights([100], [.055], 100, .2), 'nearer to one of [0.055]'),
]

@pytest.mark.parametrize('call, message', REFUSED, ids=[m for _, m in REFUSED])
def test_refused(call, message):
    with pytest.raises(FlowerDiffError) as e: call()
    said = str(e.value)
    assert message in said and '\n' not in said

# Exactness

def test_epochs_are_permutations():
    orders = [epoch_order(1, e, 10).tolist() for e in range(3)]
    assert all(sorted(o) == list(range(10)) for o in orders)
    assert orders[0] != orders[1] != orders[2]
    assert epoch_order(2, 0, 10).tolist() != orders[0]

def test_seed_step_depends_on_all_numbers():
    def draw(*numbers):
        seed_step(*numbers)
        return torch.rand(())
    draws = [draw(*n).item() for n in ((0, 1), (1, 0), (0, 1, 1), (0, 1, 2))]
    assert len({*draws}) == 4
    assert draw(0, 1).item() == draws[0]

@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_state_goes_on_exactly(optimizer):
    settings = dict(attention=True, augment=.12, tracks=[.1], optimizer=optimizer)
    one, two = train(make(**settings), 3), make(**settings)
    # as it comes from a file
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    two.step = one.step
    torch.rand(7)
    assert same(flat(train(one, 3)), flat(train(two, 3)))

def test_state_before_the_first_step():
    one, two = make(), make()
    state = {part: tensors for part, tensors in one.state_dict().items() if tensors}
    two.load_state_dict(state)
    assert same(flat(train(one, 2)), flat(train(two, 2)))

def test_processes_share_a_batch():
    settings = dict(attention=True, augment=.5)
    whole = make(**settings)
    parts = [make(**settings, rank=r, world=2) for r in range(2)]
    for k in range(7):
        for t in (whole, *parts): t.step = k
        x0, sigma, eps, cond = whole.draw_batch()
        for r, part in enumerate(parts):
            px0, psigma, peps, pcond = part.draw_batch()
            mine = slice(r, None, 2)
            assert torch.equal(x0[mine], px0)
            assert torch.equal(eps[mine], peps)
            assert torch.equal(sigma[mine], psigma)
            for name, v in cond.items():
                assert torch.equal(v[mine], pcond[name])

def test_few_images_make_a_small_batch():
    trainer = make(batch_size=100)
    assert (trainer.batch, trainer.epoch_steps) == (24, 1)

def test_images_that_do_not_fit(monkeypatch):
    "Where a card is nearly full, the images stay in the computer's memory."
    trainer = make()
    trainer.device, trainer.images = torch.device('cuda'), None
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (1000, 2000))
    trainer.place_data()
    assert trainer.images.device.type == 'cpu'

# Gradients

@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_not_a_number_changes_nothing(optimizer):
    trainer = train(make(optimizer=optimizer), 2)
    before = flat(trainer)
    mend = spoil(trainer)
    train(trainer, 2)
    after = flat(trainer)
    loss = trainer.meter.read()
    mend()
    kept = [k for k in before if k[0] in ('net', 'opt')]
    assert all(torch.equal(before[k], after[k]) for k in kept)
    assert trainer.skipped.tolist() == [2, 2]
    assert math.isfinite(loss)
    assert train(trainer, 1).skipped.tolist() == [0, 2]
    assert not same(before, flat(trainer))

def test_device_that_ignores_found_inf():
    "On Apple's devices a bad gradient is dropped before the optimizer sees it."
    trainer = train(make(), 1)
    p = next(trainer.net.parameters())
    p.grad = torch.full_like(p, math.nan)
    trainer.device = SimpleNamespace(type='mps')
    trainer.clip_gradient()
    assert p.grad is None
    assert trainer.skipped.tolist() == [1, 1]

def test_singular_values_become_alike():
    torch.manual_seed(0)
    x = torch.randn(40, 12)@torch.randn(12, 90)
    values = torch.linalg.svdvals(orthogonalise(x))
    assert .6 < values[11] <= values[0] < 1.3 and values[12] < .01

def newton_schulz(x):
    "The iteration as Jordan et al. write it, in float64."
    x = x.double()/x.norm()
    for _ in range(5):
        square = x @ x.T
        x = 3.4445*x - 4.775*square @ x + 2.0315*square @ square @ x
    return x

def test_iteration_is_that_of_the_paper():
    torch.manual_seed(0)
    x = torch.randn(24, 90)
    assert (orthogonalise(x) - newton_schulz(x)).abs().max() < 1e-4

def test_muon_moves_kernels_in_all_directions_alike():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Conv2d(16, 8, 3))
    params = list(net.parameters())
    opt = Muon(params, .1, weight_decay=0.)
    before = [p.detach().clone() for p in params]
    net(torch.randn(1, 3, 8, 8)).square().sum().backward()
    assert [p.shape for p in opt.kernels()] == [(8, 16, 3, 3)]
    opt.step()
    moved = [p.detach() - old for p, old in zip(params, before)]
    # as large as the steps of AdamW usually are; the first one is as large as the rate
    assert moved[2].square().mean().sqrt() == pytest.approx(.02, rel=.2)
    assert moved[0].abs().max() == pytest.approx(.1, rel=.01)
    # a copy goes on with what was learnt
    assert copy.deepcopy(opt).state_dict()['state'].keys() == opt.state_dict()['state'].keys()
    # the second step remembers the first
    average = opt.state[params[2]]['average'].clone()
    opt.zero_grad()
    assert opt.kernels() == []
    net(torch.randn(1, 3, 8, 8)).square().sum().backward()
    wanted = .95*average + .05*params[2].grad
    opt.step()
    assert torch.allclose(opt.state[params[2]]['average'], wanted)

def test_long_gradient_is_shortened():
    trainer = make()
    for p in trainer.net.parameters(): p.grad = torch.ones_like(p)
    trainer.clip_gradient()
    norm = torch.cat([p.grad.flatten() for p in trainer.net.parameters()]).norm()
    assert norm.item() == pytest.approx(1, abs=1e-4)

COMBINATIONS = [dict(prediction=p, noise=n) for p, n in itertools.product(SCALINGS, SIGMA_DISTRIBUTIONS)]
COMBINATIONS += [dict(weight=w) for w in WEIGHTS] + [dict(sigmas=schedule_sigmas(s, shift=.5)) for s in SCHEDULES]
ZERO_SNR = schedule_sigmas('cosine', zero_snr=True)
COMBINATIONS += [dict(prediction=p, weight='edm', sigmas=ZERO_SNR) for p in ('x0', 'v', 'edm')]

@pytest.mark.parametrize('settings', COMBINATIONS, ids=range(len(COMBINATIONS)))
def test_what_goes_together_trains(settings):
    trainer = train(make(**settings), 2)
    loss = trainer.meter.read()
    assert math.isfinite(loss)
    assert not trainer.skipped.any()
    assert math.isfinite(trainer.eval_loss(DATA)['loss'])

def test_unlabelled():
    data = SimpleNamespace(images=IMAGES, labels=None, class_names=[])
    trainer = Trainer(BaselineUNet(0, (8, 16)), data, SIGMAS, batch_size=8, device='cpu')
    assert train(trainer, 2).draw_batch()[3] == {}

def test_learning_rate():
    cases = {(4, .1): .5, (9, .1): 1, (500, .8): 1, (500, .9): .5, (500, 1.): 0}
    for (step, done), wanted in cases.items():
        factor = lr_factor(step, done, 10, .2)
        assert factor == pytest.approx(wanted)
    assert lr_factor(500, 1., 10, 0.) == 1

# Augmentation

def test_translation_is_that_of_edm():
    "An eighth of the width as standard deviation, in units of affine_grid."
    torch.manual_seed(0)
    maps, told = random_affine(50_000, 1.)
    assert maps[:, :, 2].std().item() == pytest.approx(.25, rel=.02)
    assert told[:, 5:].std().item() == pytest.approx(.125, rel=.02)
    assert torch.allclose(maps[:, :, 2], 2*told[:, 5:])

def test_areas_change_by_the_scale_alone():
    maps, told = random_affine(100, 1.)
    area = torch.linalg.det(maps[:, :, :2])
    assert torch.allclose(area, torch.exp2(-2*told[:, 0]), rtol=1e-4)

def test_nothing_changed_is_the_same_to_the_bit():
    x = to_float(IMAGES)
    maps, told = random_affine(24, 0.)
    assert torch.equal(apply_affine(x, maps), x)
    assert not told.any()

def test_quarter_turn():
    x = to_float(IMAGES[:1])
    turn = torch.tensor([[[0., -1, 0], [1, 0, 0]]])
    assert torch.allclose(apply_affine(x, turn), x.rot90(1, (2, 3)), atol=1e-4)

# Averages

def test_update_is_the_formula():
    a, b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    wanted = .9*a.weight + .1*b.weight
    ema_update(a, b, .9)
    assert torch.allclose(a.weight, wanted)

@pytest.mark.parametrize('length', (.05, .1, .2))
def test_length_is_what_it_says(length):
    t = np.linspace(0, 1, 100_001)
    w = t**power_gamma(length)
    w /= w.sum()
    spread = (w*t**2).sum() - (w*t).sum()**2
    assert math.sqrt(spread) == pytest.approx(length, abs=1e-4)

def profile(t, end, length):
    "Evaluate the profile of an average at moments t."
    g = power_gamma(length)
    inside = (g + 1)/end*(t/end)**g
    return np.where(t <= end, inside, 0)

@pytest.mark.parametrize('wanted', (.03, .07, .2, .28))
def test_profile_error_is_what_it_says(wanted):
    "The closed form against the profiles themselves, on a fine grid."
    t = np.linspace(0, 1000, 400_001)
    c, error = fit_profile(*FEW, 1000, wanted)
    target = profile(t, 1000, wanted)
    mixed = sum(w*profile(t, s, l) for w, s, l in zip(c, *FEW))
    squares = [(p**2).mean() for p in (mixed - target, target)]
    measured = math.sqrt(squares[0]/squares[1])
    assert error == pytest.approx(measured, rel=.01)
    assert c.sum() == pytest.approx(1)

def test_averages_are_not_trained():
    trainer = train(make(tracks=[.1]), 1)
    nets = trainer.ema.nets()
    assert [*nets] == ['ema', 'track0']
    for net in nets.values():
        assert not any(p.requires_grad for p in net.parameters())

# Losses

def test_meter_is_a_mean():
    meter, loss = LossMeter(), torch.rand(100)
    for part in (loss[:30], loss[30:]): meter.add(part)
    assert meter.read() == pytest.approx(loss.mean().item(), rel=1e-5)
    assert meter.read() is None

def test_meter_adds_up_processes():
    meter = LossMeter()
    meter.add(torch.ones(1))
    assert meter.read(lambda sums: 2*sums) == 1

def test_eval_loss_is_repeatable_and_changes_nothing():
    trainer = train(make(attention=True), 2)
    before = flat(trainer)
    first = trainer.eval_loss(DATA)
    torch.rand(5)
    assert trainer.eval_loss(DATA) == first
    assert same(before, flat(trainer))
    assert len(first['sigmas']) == len(first['errors']) == 6
