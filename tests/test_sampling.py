"What every sampler refuses and reports, and what a trajectory keeps."
import pytest, torch
# adds RePaint to SAMPLERS
from flowerdiff import guidance
from flowerdiff.core import FlowerDiffError
from flowerdiff.sampling import SAMPLERS, SeededNoise, Trajectory, check_denoised, ddim
from flowerdiff.schedule import karras_sigmas

sigmas = karras_sigmas(6)
start = sigmas[0].float()*SeededNoise(0, 2)(torch.empty(2, 3, 8, 8))

def shrink(x, sigma): return x/(1 + sigma**2)

def every_sampler(test): return pytest.mark.parametrize('f', SAMPLERS.values(), ids=SAMPLERS)(test)

@every_sampler
def test_a_denoiser_that_fails_stops_the_run(f):
    def broken(x, sigma): return x/(sigma > 1)
    with pytest.raises(FlowerDiffError, match='sigma 0.275'):
        f(broken, start, sigmas)

@every_sampler
def test_rising_sigmas(f):
    rising = sigmas.flip(0)
    with pytest.raises(FlowerDiffError, match='must fall'):
        f(shrink, start, rising)

@every_sampler
def test_reports(f):
    "One report before each step, and the result at the end."
    steps = []
    noise = SeededNoise(0, 2)
    x = f(shrink, start, sigmas, callback=steps.append, generator=noise)
    assert [step.i for step in steps] == [*range(7)]
    assert {step.n for step in steps} == {6}
    first, last = steps[0], steps[-1]
    assert torch.equal(first.x, start)
    assert torch.equal(last.x, x)
    assert torch.equal(last.x0, x)

@pytest.mark.parametrize('denoised', (False, True))
def test_trajectory_ends_on_the_result(denoised):
    moments = Trajectory(3, denoised)
    x = ddim(shrink, start, sigmas, callback=moments)
    assert torch.equal(moments.images[-2:], x)
    # another run replaces it
    ddim(shrink, start, sigmas, callback=moments)
    assert len(moments.images) == 6
    assert moments.labels[-1] == 'result'

def test_empty_trajectory():
    moments = Trajectory(2)
    with pytest.raises(FlowerDiffError, match='this trajectory is empty'):
        print(moments.images)

def test_trajectory_of_too_many_rows():
    moments = Trajectory(8)
    with pytest.raises(FlowerDiffError, match='needs at least 7 steps'):
        ddim(shrink, start, sigmas, callback=moments)

def test_estimates_of_another_shape():
    x, x0 = torch.zeros(2, 3), torch.zeros(1, 3)
    said = r'returned shape \(1, 3\) for images of shape \(2, 3\)'
    with pytest.raises(FlowerDiffError, match=said):
        check_denoised(x0, x, 'step 1')

def test_noise_of_another_seed():
    x = torch.empty(4, 3, 8, 8)
    a = SeededNoise(0, 4)(x)
    b = SeededNoise(1, 4)(x)
    assert not torch.equal(a, b)
