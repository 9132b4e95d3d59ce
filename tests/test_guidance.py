"Guards for flowerdiff.guidance: what it refuses, and what must not change."
import math

import pytest, torch
from flowerdiff.core import FlowerDiffError
from flowerdiff.guidance import *
from refused import check_refused

# (options, what the message must name)
REFUSED = [
    (dict(weight='3'), 'guidance'),
    (dict(weight=math.nan), 'guidance'),
    (dict(rescale=2), 'rescale'),
    (dict(interval=(5, 1)), 'interval'),
    (dict(interval=5), 'interval'),
    (dict(interval=('a', 'b')), 'interval'),
    (dict(interval=(-1, 2)), 'interval'),
]

@pytest.mark.parametrize('options, name', REFUSED)
def test_refused(options, name):
    with pytest.raises(FlowerDiffError, match=name):
        Guidance(**options)

def test_an_interval_is_a_tuple():
    assert Guidance(interval=[.3, 5]) == Guidance(interval=(.3, 5.))

def test_outside_of_the_interval_only_the_class_counts():
    x, label = torch.ones(2, 4), torch.tensor([3, 4])
    narrow = Guidance(2., (2, 3))
    def toy(x, sigma, label): return x*label[:,None]
    guided = cfg(toy, label, 1, narrow)
    assert torch.equal(guided(x, 1.), toy(x, 1., label))
    assert not torch.equal(guided(x, 2.5), toy(x, 2.5, label))

def test_outside_of_the_interval_the_weak_model_is_not_asked():
    def good(x, sigma): return x + 3
    guided = autoguidance(good, None, Guidance(2., (2, 3)))
    assert guided(torch.zeros(2), 1.).tolist() == [3, 3]

def test_infinite_estimates_do_not_become_white():
    def triple(x, sigma): return 3*x
    x = torch.tensor([-1., .1, math.inf])
    clipped = clip_denoised(triple)(x, 1.).tolist()
    assert clipped[:2] == pytest.approx([-1, .3])
    assert math.isnan(clipped[2])

def test_slerp_ends_where_it_should():
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 3, 8, 8)
    def same(x, y): torch.testing.assert_close(x, y, rtol=0, atol=1e-5)
    same(slerp(a, b, 0.), a)
    same(slerp(a, b, 1.), b)
    same(slerp(a, a, .3), a)

# ---- memory that ends ----
def limited(most, sizes, error):
    "Something like a network, that has memory for `most` images."
    def denoise(x, sigma, label=None):
        sizes.append(len(x))
        if len(x) > most: raise error
        return x*sigma + label.view(-1, 1)
    return denoise

ENDED = [
    torch.OutOfMemoryError('CUDA out of memory'),
    MemoryError(),
    RuntimeError('MPS backend out of memory ('),
]

# memory for how many; how many are tried from then on; how often too many were
@pytest.mark.parametrize('most, told, times', [(1, 1, 3), (3, 2, 2), (5, 5, 1), (10, None, 0)])
@pytest.mark.parametrize('error', ENDED)
def test_batches_are_halved(most, told, times, error, capsys):
    "The images stay the same, in their order, and one line tells."
    sizes, batch = [], BatchSize(512)
    f = in_batches(limited(most, sizes, error), batch)
    x, label = torch.arange(10.).view(10, 1), torch.arange(10)
    for _ in range(3): assert torch.equal(f(x, 2., label=label), 3*x)
    said = capsys.readouterr().err
    wanted = f'out of memory with 512 images at a time: from now on {told}\n'
    assert said == (wanted if told else '')
    # what was too large once is not tried again
    assert len([n for n in sizes if n > most]) == times

def test_memory_for_no_image():
    f = in_batches(limited(0, [], MemoryError()), 4)
    check_refused(lambda: f(torch.ones(9, 1), 1., label=torch.ones(9)), 'out of memory with a single image')

def test_other_errors_are_told():
    f = in_batches(limited(1, [], RuntimeError('shapes')), 4)
    with pytest.raises(RuntimeError, match='shapes'): f(torch.ones(9, 1), 1., label=torch.ones(9))
