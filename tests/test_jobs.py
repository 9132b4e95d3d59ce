"""Guards for flowerdiff.jobs: settings, frames, and jobs that are watched, stopped and broken."""
import base64, gc, json, math, subprocess, sys, time
from copy import copy
from dataclasses import replace
import psutil, pytest, torch
from PIL import Image
from flowerdiff.config import ModelConfig, build
from flowerdiff.core import FlowerDiffError
from flowerdiff.editing import strength_sigma
from flowerdiff.images import draw_flowers, to_float, to_uint8
from flowerdiff.frames import DENOISED, FRAME_MEMORY, NOISY, Frames
from flowerdiff.jobs import (
    ANY, WALK, Job, JobStopped, SampleJob, SampleSettings, dump_settings, load_once,
    read_settings, to_png, with_progress)
from flowerdiff.models import Model, save
from flowerdiff.sampling import Step, Trajectory
from flowerdiff.denoiser import ideal_denoiser

def ideal_model(n=100, size=32, **config):
    "A model that makes drawn flowers again, without any training."
    m = Model(torch.nn.Identity(), ModelConfig(size, 'x0', 'cosine', **config), 'cpu', torch.float32)
    m.denoise = ideal_denoiser(to_float(draw_flowers(n, size)[0]))
    return m

def with_classes(**config):
    "A small untrained model that knows two classes."
    torch.manual_seed(0)
    c = ModelConfig(16, 'v', 'cosine', net=dict(n_classes=2, widths=[32, 32]), classes=['rose', 'daisy'], **config)
    net = build(c)
    for p in net.parameters(): torch.nn.init.normal_(p, std=.05)
    return Model(net, c, 'cpu', torch.float32)

@pytest.fixture(scope='module')
def ideal(): return ideal_model()

@pytest.fixture(scope='module')
def guided(): return with_classes()

plain = SampleSettings('drawn', 20, seed=3, sampler='ddim', steps=6)
variations = replace(plain, n=8, kind='variations', source=plain.one(5), sigma=.8, seed=1)
inpaint = replace(plain, n=8, kind='inpaint', source=plain.one(5), box=(4, 8, 20, 30), sampler='repaint', steps=3)
walk = replace(plain, n=WALK, kind='interpolate', ends=(plain.one(2), plain.one(7)))
photo = SampleSettings('drawn', 1, kind='photo', photo=base64.b64encode(to_png(Image.new('RGB', (90, 60), 'red'))).decode())
found_noise = replace(walk, ends=(photo, variations.one(3)), steps=None, sigmas=(10., 5., 2., 1., .5, .1, 0.))
chain = replace(inpaint, source=variations.one(3))
kinds = pytest.mark.parametrize('s', (plain, variations, inpaint, walk, chain, found_noise), ids=lambda s: s.kind)

def run_code(code, **known):
    "Run Python, and return its x."
    exec(code, known)
    return known['x']

def test_code_runs_where_nothing_is_imported():
    "Models are given their methods to edit images by another module."
    source = replace(plain, model='baseline', steps=2, n=1)
    code = replace(source, kind='variations', source=source.one(0), sigma=.8).code()
    done = subprocess.run([sys.executable, '-c', f'{code}\nprint(*x.shape)'], capture_output=True, text=True)
    assert done.stdout.split() == ['1', '3', '64', '64'], done.stderr

# Settings

INVALID = (
    (dict(n='x'), 'Images = x: give a whole number'),
    (dict(n=0), 'Images = 0'),
    (dict(n=True), 'Images = True'),
    (dict(n=1001), 'Images = 1001: give a whole number from 1 to 1000'),
    (dict(model=1), 'model = 1'),
    (dict(model=''), 'model = : give a name'),
    (dict(seed=-1), 'Seed = -1'),
    (dict(seed='tulip'), 'Seed = tulip: give a whole number'),
    (dict(start=2.5), 'start = 2.5'),
    (dict(preset=['fast']), 'Preset ='),
    (dict(steps=10000), 'Steps = 10000: give a whole number from 1 to 1000'),
    (dict(guidance='a'), 'Guidance = a: give a number'),
    (dict(guidance=math.nan), 'Guidance = nan'),
    (dict(interval=(3, 'x')), 'Guidance range = 3 to x: give two rising noise levels'),
    (dict(interval=(5., .3)), 'Guidance range = 5.0 to 0.3'),
    (dict(classes=[1]), 'Flower ='),
    (dict(classes=[]), 'Flower ='),
    (dict(kind='eval'), 'kind = eval: give sample'),
    (dict(kind=['sample']), 'kind ='),
    (dict(kind='variations'), 'kind = variations: give source and sigma too'),
    (dict(kind='interpolate'), 'kind = interpolate: give ends too'),
    (dict(kind='interpolate', ends=[1]), 'ends ='),
    (dict(kind='photo'), 'kind = photo: give photo too'),
    (dict(sigmas=[3, 'x']), 'sigmas ='),
    (dict(kind='inpaint', box=[5, 5, 5, 9]), 'Rectangle = [5, 5, 5, 9]: give left, top, right and bottom'),
)

@pytest.mark.parametrize('change, message', INVALID)
def test_invalid_settings(change, message):
    with pytest.raises(FlowerDiffError) as e: replace(plain, **change)
    assert f'invalid setting: {message}' in str(e.value)
    data = plain.changed() | change
    with pytest.raises(FlowerDiffError) as e: read_settings(json.dumps([data]).encode())
    assert 'invalid setting: ' in str(e.value)

@pytest.mark.parametrize('data', (b'{}', b'[1]', b'{"model": "attention"}', b'[[]]'))
def test_files_without_settings(data):
    with pytest.raises(FlowerDiffError, match='no settings of the dashboard'): read_settings(data)

@pytest.mark.parametrize('data', (b'', b'\xff', b'[', b'\x89PNG', to_png(Image.new('RGB', (9, 9)))))
def test_other_files_hold_no_settings(data): assert read_settings(data) == []

def test_unknown_setting():
    data = json.dumps(dict(model='attention', n=1, rescale=.5)).encode()
    with pytest.raises(FlowerDiffError, match="no 'rescale'"): read_settings(data)

def test_unknown_setting_of_a_source():
    data = variations.changed()
    data['source'] = data['source'].changed() | dict(zoom=2)
    with pytest.raises(FlowerDiffError, match="no 'zoom'"): read_settings(json.dumps(data).encode())

@kinds
def test_settings_survive_files(s):
    assert read_settings(dump_settings([s]).encode()) == [s]
    assert read_settings(to_png(Image.new('RGB', (9, 9)), [s, plain])) == [s, plain]

def test_infinity_survives_a_file():
    s = replace(plain, guidance=2., interval=(.3, math.inf))
    assert read_settings(dump_settings([s]).encode()) == [s]
    assert "interval=(0.3, float('inf'))" in s.code()

@kinds
def test_code_makes_the_same(s, ideal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'photo.png').write_bytes(base64.b64decode(photo.photo))
    assert torch.equal(run_code(s.code(named=False), m=ideal), s.make(ideal))

def test_a_walk_ends_at_images_that_were_not_made_from_noise(ideal):
    ends = variations.one(3), plain.one(2)
    sigmas = ideal.plan(sampler='ddim', steps=30, spacing='log_snr').sigmas
    x = replace(walk, ends=ends, steps=None, sigmas=sigmas).make(ideal)
    for end, found in zip(ends, x[[0, -1]]): assert (found - end.make(ideal)[0]).abs().mean() < .05

def test_a_photo_is_there_at_once(ideal):
    job = SampleJob(photo, ideal)
    job.run()
    assert job.error == '' and job.total == 0
    assert job.frames.done == len(job.frames.images) == 1
    red, *others = job.images[0]
    assert red.min() == 1
    assert max(x.max() for x in others) == -1
    assert 'photo' in str(job)

@kinds
def test_one_image(s, ideal):
    torch.testing.assert_close(s.one(5).make(ideal), s.make(ideal)[5:6], atol=1e-4, rtol=0)

def test_one_image_of_a_walk_keeps_its_class(guided):
    ends = tuple(SampleSettings('two', 1, start=i) for i in (0, 1))
    s = SampleSettings('two', WALK, classes=('rose',)*6 + ('daisy',)*6, kind='interpolate', ends=ends, steps=3)
    torch.testing.assert_close(s.one(7).make(guided), s.make(guided)[7:8], atol=1e-4, rtol=0)

@kinds
def test_evaluations_are_counted_beforehand(s, ideal):
    job = SampleJob(s, ideal)
    job.run()
    assert job.error == '' and job.evaluations == job.total and job.progress == 1

# A preset with noise levels and guidance of its own

SPACED = dict(fast=dict(spacing=[30., 5., .5, 0.], guidance=3., interval=[1, 10]))

def test_progress_and_first_frame_of_a_preset():
    m = with_classes(presets=SPACED)
    job = SampleJob(SampleSettings('two', 4, preset='fast'), m)
    first = job.frames.images[0, NOISY].clone()
    assert job.frames.labels[0] == 'sigma 30: pure noise'
    # noise is no step yet
    assert job.frames.done == 0 and job.frames.label(0, DENOISED) == 'sigma 30: pure noise'
    job.run()
    assert job.evaluations == job.total == 4*(3 + 1)
    assert job.frames.labels == ['sigma 30: pure noise', 'sigma 5', 'sigma 0.5', 'sigma 0: image']
    assert torch.equal(job.frames.images[0, NOISY], first)
    assert torch.equal(job.images, m.sample(4, preset='fast'))

# Frames

@pytest.mark.parametrize('what', (NOISY, DENOISED))
def test_frames_are_those_of_a_trajectory(ideal, what):
    frames, trajectory = Frames(12, ideal.shape, 8), Trajectory(5, denoised=what == DENOISED)
    for callback in (frames.add, trajectory): ideal.sample(12, steps=8, callback=callback)
    x, labels = frames.by_time(5, what=what)
    assert torch.equal(x, to_uint8(trajectory.images))
    assert labels[0] == ('sigma 80: pure noise', 'sigma 80')[what] and labels[-1] == 'sigma 0: image'

@pytest.mark.parametrize('n, size, steps, count', ((60, 64, 1000, 41), (1000, 64, 1000, 2), (60, 64, 7, 8), (1, 8, 1, 2)))
def test_frames_stay_within_their_memory(n, size, steps, count):
    frames = Frames(n, (3, size, size), steps)
    assert len(frames.planned) == len(frames.images) == count
    assert frames.planned[0] == 0 and frames.planned[-1] == steps
    assert count == 2 or frames.images.numel() <= FRAME_MEMORY

def test_rows_still_to_come_are_white(ideal):
    frames = Frames(4, ideal.shape, 8)
    def stop(step):
        frames.add(step)
        if step.i == 2: raise JobStopped
    with pytest.raises(JobStopped): ideal.sample(4, steps=8, callback=stop)
    x, labels = frames.by_time(3)
    first, middle, last = x.float().split(4)
    assert first.std() > 30
    assert middle.min() == last.min() == 255
    assert labels[1:] == [' ', ' ']

def test_the_newest_step_is_kept(ideal):
    "Until one that is planned takes its place; its estimate is called one."
    frames, seen = Frames(60, (3, 64, 64), 1000), []
    def step(i):
        x = torch.full((60, 3, 64, 64), i/1000)
        return Step(i, 1000, 1., x, -x)
    for i in (0, 24, 25, 30): frames.add(step(i))
    assert frames.done == 3
    assert frames.planned[:3] == [0, 25, 50]
    assert torch.equal(frames.at(2), to_uint8(step(30).x/2**.5))
    assert torch.equal(frames.at(99, DENOISED), to_uint8(step(30).x0))
    assert (frames.label(99), frames.label(99, DENOISED)) == ('sigma 1', 'denoised estimate at sigma 1')
    assert torch.equal(frames.at(1), to_uint8(step(25).x/2**.5))

# Progress

def test_with_progress(ideal):
    counts = []
    x = with_progress(ideal, counts.append).sample(25, steps=2)
    torch.testing.assert_close(x, ideal.sample(25, steps=2), atol=1e-5, rtol=0)
    assert counts == [10, 10, 5]*2

def test_with_progress_counts_guided_evaluations_twice(guided):
    counts, settings = [], SampleSettings('two', 4, classes='rose', guidance=2., steps=3)
    settings.make(with_progress(guided, counts.append))
    assert sum(counts) == settings.evaluations(guided) == 4*6

# Jobs

def slow_model(seconds=.02):
    "A model that takes its time."
    m = copy(ideal_model(20))
    fast = m.denoise
    def denoise(x, sigma):
        time.sleep(seconds)
        return fast(x, sigma)
    m.denoise = denoise
    return m

def wait_for(condition, seconds=20):
    "Wait until something is true."
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'not within {seconds} s'
        time.sleep(.005)

def test_stop():
    job = SampleJob(SampleSettings('slow', 8, sampler='ddpm', steps=1000), slow_model()).start()
    wait_for(lambda: job.evaluations >= 5*8)
    began = time.monotonic()
    job.stop()
    job.thread.join(10)
    assert time.monotonic() - began < .3
    assert job.stopped and not job.running and job.images is None
    assert job.frames.done and 0 < job.progress < .5

def broken(): raise MemoryError('no room\nat all')

def test_errors_become_a_line():
    job = Job(broken)
    job.start().thread.join(10)
    assert (job.error, job.running, job.stopped) == ('MemoryError: no room', False, False)

@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_an_error_in_on_end_leaves_nothing_running():
    def on_end(job): raise RuntimeError('in a callback')
    job = Job(lambda: None, on_end)
    job.start().thread.join(10)
    assert not job.running
    # and another can run
    assert Job(broken).start().thread.join(10) is None

def test_an_error_in_on_progress_ends_the_job(ideal):
    def on_progress(job): raise RuntimeError('in a callback')
    ended = []
    job = SampleJob(plain, ideal, on_progress=on_progress, on_end=ended.append)
    job.start().thread.join(10)
    assert job.error == 'RuntimeError: in a callback' and not job.running and ended == [job]

def test_two_jobs_share_a_model(ideal):
    jobs = [SampleJob(replace(plain, seed=seed, steps=20), ideal).start() for seed in (1, 2)]
    for job, seed in zip(jobs, (1, 2)):
        job.thread.join(20)
        torch.testing.assert_close(job.images, ideal.sample(20, seed=seed, sampler='ddim', steps=20), atol=1e-5, rtol=0)

def test_names_of_flowers(guided, ideal):
    s = SampleSettings('two', 6, seed=5, steps=1)
    labels = guided.labels(None, 6, 5).tolist()
    assert SampleJob(s, guided).flowers == [['rose', 'daisy'][k] for k in labels]
    assert SampleJob(replace(s, classes=('any', 'Daisy')), guided).flowers == [ANY, 'daisy']*3
    assert SampleJob(replace(s, start=2, n=1), guided).flowers == [['rose', 'daisy'][labels[2]]]
    assert SampleJob(plain, ideal).flowers == [ANY]*20

CAPTIONS = (
    (plain, '20 images · drawn · any flower · seed 3 · '),
    (replace(variations, sigma=strength_sigma(.7)), '8 images · variations of image 5 of seed 3 · strength 0.7 · drawn'),
    (replace(variations, source=photo), ' of your photo · '),
    (inpaint, 'inpainting of image 5 of seed 3 · drawn'),
    (walk, 'interpolation of image 2 of seed 3 and image 7 of seed 3 · drawn'))

@pytest.mark.parametrize('s, words', CAPTIONS)
def test_captions_say_what_images_differ_in(s, words, ideal): assert words in str(SampleJob(s, ideal))

def test_captions_say_how_large_images_are():
    assert '1 image · size 128 · drawn' in str(SampleJob(replace(plain, n=1, size=128), ideal_model(enlarger='enlarge')))

def test_one_word_for_no_class(guided):
    assert ' · any flower · ' in str(SampleJob(SampleSettings('two', 2, 'any'), guided))

def test_classes_are_refused_by_a_model_without(ideal):
    with pytest.raises(FlowerDiffError, match='without classes'): SampleJob(replace(plain, classes='rose'), ideal)

def test_jobs_leave_no_memory_behind(ideal):
    def megabytes():
        gc.collect()
        return psutil.Process().memory_info().rss/2**20
    def runs(n):
        for _ in range(n): SampleJob(replace(plain, n=36, steps=10), ideal).run()
        return megabytes()
    before = runs(5)
    assert runs(30) - before < 60

# Models

def test_models_are_read_again_when_they_change(tmp_path):
    m = with_classes()
    save(m.net, m.config, tmp_path)
    first = load_once(str(tmp_path))
    assert load_once(str(tmp_path)) is first
    time.sleep(.02)
    save(m.net, m.config, tmp_path)
    assert load_once(str(tmp_path)) is not first

def test_models_that_cannot_be_loaded():
    for name, message in (('', 'which network'), ('/no/such/folder', 'unknown model')):
        with pytest.raises(FlowerDiffError, match=message): load_once(name)
