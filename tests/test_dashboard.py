"""Guards for flowerdiff.controls, flowerdiff.screen and flowerdiff.dashboard, whose buttons are pressed from code."""
import io, json, math, re, time
from copy import copy
from datetime import datetime
import ipywidgets as widgets, numpy as np, pytest, torch
from PIL import Image
from flowerdiff.config import ModelConfig, build
from flowerdiff.controls import NO_STAGE, RED, SettingsPanel, TrainingPanel, as_number, look_at_run
from flowerdiff.core import FlowerDiffError
from flowerdiff.dashboard import Dashboard
from flowerdiff.images import draw_flowers, make_grid_image, to_float, to_uint8
from flowerdiff.frames import COLS, DENOISED, NOISY
from flowerdiff.jobs import (
    ANY, LABELS, ONE_OF_EACH, Job, SampleJob, SampleSettings, load_once, read_settings, to_png)
from flowerdiff.models import Model, load, save
from flowerdiff.denoiser import ideal_denoiser
from flowerdiff.screen import BY_TIME, JobView, make_animation

def ideal_model(size=32):
    "A model that makes drawn flowers again, without any training."
    m = Model(torch.nn.Identity(), ModelConfig(size, 'x0', 'cosine'), 'cpu', torch.float32)
    m.denoise = ideal_denoiser(to_float(draw_flowers(100, size)[0]))
    return m

def slow_model(seconds=.02):
    m, ideal = copy(ideal_model()), ideal_model()
    def denoise(x, sigma):
        time.sleep(seconds)
        return ideal.denoise(x, sigma)
    m.denoise = denoise
    return m

def save_untrained(folder, model='attention', **config):
    "Save a small untrained network."
    net = dict(attention=dict(widths=[32, 32]), baseline=dict(widths=[8, 16]))[model]
    if 'classes' in config: net = net | dict(n_classes=len(config['classes']))
    preset = dict(sampler='ddim', steps=6, clip=True)
    c = ModelConfig(16, 'eps', 'linear', model, net=net, **dict(preset=preset) | config)
    torch.manual_seed(0)
    save(build(c), c, folder)
    return str(folder)

@pytest.fixture(scope='module')
def ideal(): return ideal_model()

@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Folders of a network that knows two classes, and of one that knows none."
    root = tmp_path_factory.mktemp('two')
    fast = dict(steps=3, guidance=3.)
    named = save_untrained(root/'named', classes=['rose', 'daisy'], presets=dict(fast=fast))
    plain = save_untrained(root/'plain', 'baseline', presets=dict(fast=dict(sampler='unipc', spacing=[60., 5., .5, 0.])))
    return dict(named=named, plain=plain)

def make(models, n=8, locked=True):
    "A dashboard whose network has been loaded, and that has made its first images."
    d = Dashboard(models, n)
    d.settings.loader.thread.join(20)
    d.settings.new_seed.value = not locked
    return finish(d)

def finish(d, seconds=60):
    "Wait until nothing runs."
    d.job.thread.join(seconds)
    assert not d.job.running, f'still running: {d.status.value}'
    assert not d.buttons['generate'].disabled and d.buttons['stop'].disabled
    return d

def press(d, name='generate'):
    "Press a button, and wait for the end."
    d.settings.loader.thread.join(20)
    assert not d.buttons[name].disabled, d.buttons[name].tooltip
    d.buttons[name].click()
    return finish(d)

def shown(image): return Image.open(io.BytesIO(image.value))

def assert_alike(a, b):
    "To one grey level: another thread may add up in another order."
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert a.shape == b.shape and abs(a - b).max() <= 1.5

def grid(d, k=0): return d.view.grids[k]

def drawn(d, k=0): return shown(grid(d, k))

def sheet(x, cols=COLS, labels=None): return make_grid_image(x, cols)

def assert_shows(d, images): assert_alike(drawn(d), sheet(images))

def assert_refuses(d, message, name='generate'):
    "Press a button that fails: what is shown stays."
    before = grid(d).value, d.before, d.settings.used
    press(d, name)
    assert message in d.status.value.replace('&#x27;', "'") and RED in d.status.value, d.status.value
    assert (grid(d).value, d.before, d.settings.used) == before

def run_code(code, **known):
    exec(code, known)
    return known['x']

# Controls

def test_names_of_widgets_are_not_taken(ideal):
    "No attribute of ours is one that ipywidgets needs."
    d = make(dict(drawn=ideal))
    known = set(dir(widgets.VBox)) - vars(widgets.VBox()).keys()
    allowed = {'trait_values', '_trait_values'}
    for w in (d, d.settings, d.view, d.training):
        ours = vars(w).keys() | {k for k in vars(type(w)) if not k.startswith('_') and callable(getattr(type(w), k))}
        assert not (ours & known) - allowed - vars(widgets.VBox()).keys()

@pytest.mark.parametrize('text, value', ((' 7 ', 7.), ('inf', math.inf), ('tulip', 'tulip'), ('', '')))
def test_numbers_from_text(text, value): assert as_number(text) == value

def panel_for(model, **values):
    panel = SettingsPanel(dict(a=model).get, dict(a='a'), 4)
    panel.load_network()
    panel.loader.thread.join()
    for name, value in values.items(): getattr(panel, name).value = value
    return panel

@pytest.fixture
def named(two): return load(two['named'], 'cpu', torch.float32)

def test_presets_fill_in_their_values(named):
    panel = panel_for(named, preset='fast')
    assert (panel.sampler.value, panel.steps.value, panel.guidance.value) == ('ddim', 3, 3.)
    panel.preset.value = 'default'
    assert (panel.steps.value, panel.guidance.value) == (6, 1.)

def test_presets_that_differ_in_guidance_only_are_two(tmp_path):
    config = dict(classes=['rose', 'daisy'], presets=dict(fast=dict(steps=6, guidance=3.)))
    m = load(save_untrained(tmp_path, **config))
    panel = panel_for(m, preset='fast')
    assert panel.guidance.value == 3. and panel.settings().plan(m) == m.plan('fast')
    panel.guidance.value = 1.
    assert panel.settings().plan(m) == m.plan()
    panel.guidance.value = 2.
    assert panel.settings().plan(m) == m.plan(guidance=2.)

def test_another_sampler_brings_its_steps(named):
    panel = panel_for(named, sampler='heun')
    assert panel.changed() == dict(sampler='heun', steps=25)
    panel.sampler.value = 'ddim'
    assert panel.steps.value == 6 and panel.changed() == {}

def test_range_of_guidance_needs_guidance(named):
    panel = panel_for(named)
    panel.guidance.value, panel.interval.value = 2., '0.5 to 30'
    assert panel.settings().interval == (.5, 30.)
    panel.guidance.value = 1.
    assert panel.settings().interval is None

def test_own_values_stay_when_the_network_changes(named, ideal):
    panel = panel_for(named, steps=4)
    panel.fit(ideal)
    assert panel.changed() == dict(steps=4)
    assert panel.flower.disabled and panel.guidance.disabled and panel.interval.disabled

SETTINGS = (
    dict(preset='fast'),
    dict(classes='rose', seed=9),
    dict(sampler='heun', steps=7, guidance=2., interval=(.5, 20.)),
    dict(preset='quality', sampler='ddim', steps=18, guidance=2., interval=(0., math.inf)))

@pytest.mark.parametrize('how', SETTINGS)
def test_settings_come_back_from_the_controls(named, how):
    s = SampleSettings('a', 5, **how)
    panel = panel_for(named)
    panel.show_settings(s)
    again = panel.settings()
    assert again.plan(named) == s.plan(named)
    assert (again.n, again.classes, again.seed) == (s.n, s.classes, s.seed)

# Generating

def test_generate_makes_what_sample_makes(ideal):
    d = make(dict(drawn=ideal), 36)
    # a few are there at once
    assert d.detail.layout.display == 'none' and d.view.layout.display is d.hint.layout.display is None
    assert_shows(d, ideal.sample(12))
    x = ideal.sample(36)
    assert_shows(press(d), x)
    assert d.bar.value == 1 and 'Done' in d.status.value
    assert grid(d).caption.startswith('36 images · drawn · any flower · seed 0 · dpmpp_2m, 10 steps · guidance 1 · ')
    # the same seed, as it is locked
    assert_shows(press(d), x)
    assert d.settings.seed.value == 0

def test_seeds(ideal):
    d = make(dict(drawn=ideal), locked=False)
    press(d)
    assert d.settings.seed.value == 0
    press(d)
    assert d.settings.seed.value != 0
    assert_shows(d, ideal.sample(8, seed=d.settings.seed.value))
    # one that someone has typed is taken as it is
    d.settings.seed.value = 7
    assert_shows(press(d), ideal.sample(8, seed=7))
    d.settings.dice.click()
    assert d.settings.seed.value != 7
    # one more, other steps: the same images in another way
    d.settings.seed.value = 5
    press(d)
    for name, value in (('n', 9), ('steps', 4)):
        getattr(d.settings, name).value = value
        press(d)
        assert d.view.jobs[0].settings.seed == d.settings.seed.value == 5
    press(d)
    assert d.settings.seed.value != 5

def test_time_and_views(ideal):
    d = press(make(dict(drawn=ideal)))
    job, thread = d.view.jobs[0], d.job.thread
    assert d.view.moment.max == 10 and d.view.sigma.value == 'sigma 0: image'
    d.view.moment.value = 7
    assert d.view.sigma.value.startswith('sigma')
    assert_alike(drawn(d), sheet(job.frames.images[7, 0]))
    # the image selected goes with them
    d.view.pick(0, 3)
    d.view.what.value = DENOISED
    assert_alike(drawn(d), sheet(job.frames.images[7, 1]))
    assert_alike(shown(d.large), make_grid_image(job.frames.images[7, 1, 3:4]))
    assert d.view.sigma.value in d.about.value
    d.view.view.value, d.view.rows.value = BY_TIME, 5
    x, labels = job.frames.by_time(5, 8, DENOISED)
    assert_alike(drawn(d), sheet(x, 8))
    assert grid(d).labels == labels and labels[0] == 'sigma 80'
    assert d.view.time.layout.display == 'none' and d.job.thread is thread

LIMITS = (('seed', -1), ('seed', 10**12), ('steps', 0), ('steps', 10**4), ('n', 0), ('n', 10**5), ('guidance', -1.), ('guidance', 101.))

@pytest.mark.parametrize('control, value', LIMITS)
def test_a_number_beyond_the_limits_is_refused(two, control, value):
    "It stays in its field, and is put right there."
    d = make(dict(named=two['named']), 4)
    field = getattr(d.settings, control)
    before, field.value = field.value, value
    assert_refuses(d, f'invalid setting: {LABELS[control]} = {value}: give a ')
    assert field.description == LABELS[control]
    assert field.value == value
    field.value = before
    assert RED not in press(d).status.value

def test_what_is_wrong_is_said(ideal, two):
    d = make(dict(named=two['named']), 4)
    d.settings.guidance.value, d.settings.interval.value = 2., '3 to many'
    assert_refuses(d, 'invalid setting: Guidance range = 3.0 to many: ')
    d.settings.interval.value = '0 to inf'
    assert RED not in press(d).status.value

def test_a_mistyped_flower(two):
    d = make(two, 4)
    d.settings.flower.value = 'dasy'
    assert_refuses(d, 'did you mean daisy')

def test_an_error_on_the_way_leaves_what_there_is(ideal):
    m = copy(ideal)
    d = press(make(dict(drawn=m)))
    def denoise(x, sigma, **cond): raise RuntimeError('the network is ill')
    m.denoise = denoise
    press(d)
    assert 'RuntimeError: the network is ill' in d.status.value and RED in d.status.value
    # the noise; what was there before is not lost
    assert d.view.sigma.value.startswith('sigma')
    d.buttons['go_back'].click()
    assert_shows(d, ideal.sample(8))
    m.denoise = ideal.denoise
    assert_shows(press(d), ideal.sample(8))

@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
@pytest.mark.parametrize('where', ('show', 'draw', 'follow', 'end'))
def test_an_error_in_a_callback_locks_nothing(ideal, where, monkeypatch):
    d = make(dict(drawn=ideal))
    def fail(*args): raise RuntimeError('in a callback')
    with monkeypatch.context() as m:
        m.setattr(JobView if where == 'show' else Dashboard, where, fail)
        try: d.buttons['generate'].click()
        except RuntimeError: pass
        d.job.thread.join(20)
        assert not d.job.running
    d.draw()
    assert_shows(press(d), ideal.sample(8))

def test_stop():
    d = make(dict(slow=slow_model()), 20)
    d.settings.sampler.value, d.settings.steps.value = 'ddpm', 1000
    d.view.view.value = BY_TIME
    d.buttons['generate'].click()
    thread = d.job.thread
    while d.bar.value < .005: time.sleep(.01)
    for _ in range(10): d.buttons['generate'].click()
    assert d.job.thread is thread and '%' in d.status.value and not d.bar.layout.display
    assert d.buttons['generate'].disabled and d.buttons['go_back'].disabled and d.upload.disabled
    began = time.monotonic()
    d.buttons['stop'].click()
    finish(d, 10)
    assert time.monotonic() - began < .3
    share = f'{d.bar.value:.0%}'
    assert f'Stopped at {share}.' in d.status.value and RED not in d.status.value
    frames = d.view.jobs[0].frames
    assert frames.by_time(8)[0][-12:].min() == 255
    # not noise, but what it would have become
    d.view.view.value = 'images'
    assert_alike(drawn(d), sheet(frames.images[frames.done - 1, DENOISED]))
    assert d.view.sigma.value.startswith('denoised estimate at sigma ') and d.view.what.value == DENOISED
    assert grid(d).caption.endswith(' · stopped')
    # as good as new
    d.settings.preset.value = 'fast'
    assert_shows(press(d), slow_model(0).sample(20, preset='fast'))
    assert d.view.what.value == NOISY

@pytest.mark.parametrize('name', ('generate', 'variations', 'compare'))
def test_stop_before_the_first_step(ideal, name, monkeypatch):
    "The images of before come back."
    d = press(make(dict(drawn=ideal, other=ideal), 20))
    jobs, before = d.view.jobs, d.before
    d.view.pick(0, 1)
    def stop_at_once(self, job):
        self.stop()
        follow(self, job)
    with monkeypatch.context() as m:
        follow = Dashboard.follow
        m.setattr(Dashboard, 'follow', stop_at_once)
        press(d, name)
        # the first run of all: there is nothing before
        first = make(dict(drawn=ideal))
    for one in (d, first): assert 'Stopped before the first step' in one.status.value
    assert (d.view.jobs, d.before, d.view.what.value) == (jobs, before, NOISY)
    assert_shows(d, ideal.sample(20))
    assert first.view.layout.display == 'none'
    assert_shows(press(first), ideal.sample(8))

def test_a_preset_with_noise_levels_and_guidance_of_its_own(tmp_path):
    fast = dict(spacing=[30., 5., .5, 0.], guidance=3.)
    m = load(save_untrained(tmp_path, classes=['rose', 'daisy'], presets=dict(fast=fast)), 'cpu', torch.float32)
    d = make(dict(mine=m), 4)
    d.settings.preset.value = 'fast'
    assert d.settings.steps.value == 3 and d.settings.guidance.value == 3.
    assert_shows(press(d), m.sample(4, preset='fast'))
    job = d.view.jobs[0]
    assert job.frames.labels[0] == 'sigma 30: pure noise' and job.evaluations == job.total == 4*6 and d.bar.value == 1

# Enlarging

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A network of 16 px, in a folder, that names one to enlarge its images."
    root = tmp_path_factory.mktemp('tiny')
    c = ModelConfig(64, 'v', 'cosine', 'enlarge', net=dict(widths=[8, 16], mid=1), preset=dict(steps=2, sigma_max=1.))
    torch.manual_seed(0)
    enlarger = build(c)
    for p in enlarger.parameters(): torch.nn.init.normal_(p, std=.05)
    save(enlarger, c, root/'enlarger')
    return save_untrained(root/'small', enlarger=str(root/'enlarger'))

# evaluations of its two networks for an image
SMALL, LARGE = 6, 2
# pixels: a row of four large images is higher, eight of small ones are not
SMALL_SIDE = 60

def make_large(tiny, n=4):
    d = make(dict(tiny=tiny), n)
    d.settings.size.value = True
    return d

def large_of(d):
    "All enlarged images of a dashboard."
    return torch.cat([x for job in d.view.jobs for x in job.frames.large])

def test_enlarged_images_are_those_of_sample(tiny):
    d, m = press(make_large(tiny)), load_once(tiny)
    job = d.view.jobs[0]
    assert torch.equal(large_of(d), to_uint8(m.sample(4, size=64)))
    # alone, and from a place in the middle
    assert torch.equal(large_of(d)[2:3], to_uint8(m.sample(1, start=2, size=64)))
    assert d.bar.value == 1 and job.evaluations == job.total == 4*(SMALL + LARGE)
    assert '4 images' in grid(d).caption
    d.settings.size.value = False
    assert_shows(press(d), m.sample(4))
    assert drawn(d).height < SMALL_SIDE

@pytest.mark.parametrize('n', (1, 3))
def test_each_takes_the_place_of_a_small_one(tiny, n):
    "In order, and nothing else changes."
    seen = []
    def look(job):
        if len(job.frames.large) > len(seen): seen.append(job.frames.at(99).clone())
    job = SampleJob(SampleSettings(tiny, n, size=64), load_once(tiny), look)
    job.run()
    expected = torch.nn.functional.interpolate(job.frames.images[-1, 0], scale_factor=4)
    assert len(seen) == n
    for i, x in enumerate(seen):
        expected[i] = job.frames.large[i]
        assert torch.equal(x, expected)

def test_stop_while_enlarging(tiny):
    d = make_large(tiny, 5)
    follow = d.follow
    def stop_in_the_third(job):
        if job.evaluations == 5*SMALL + 2*LARGE + 1: d.stop()
        follow(job)
    d.follow = stop_in_the_third
    press(d)
    job = d.view.jobs[0]
    assert 'Stopped' in d.status.value and RED not in d.status.value
    assert job.evaluations == 5*SMALL + 2*LARGE + 1 and len(job.frames.large) == 2
    assert drawn(d).size == sheet(job.frames.at(99)).size == (5*66 + 2, 68)
    for i, scale in ((1, 4), (2, 1)):
        d.view.pick(0, i)
        assert d.large.scale == scale and shown(d.large).size == (16*scale, 16*scale)
    # as good as new
    d.follow = follow
    assert len(large_of(press(d))) == 5

def test_enlarging_is_told(tiny):
    d, told = make_large(tiny), []
    d.follow = lambda job: told.append(look(job))
    def look(job):
        # at every step, however soon
        d.next_look = 0.
        Dashboard.follow(d, job)
        percent = re.search(r'(\d+)%', d.status.value)[1]
        return int(percent), len(job.frames.large), drawn(d).height//18
    press(d)
    assert sorted(told) == told and told[-1] == (100, 4, 3)
    assert {(enlarged, scale) for _, enlarged, scale in told} == {(0, 1), (1, 3), (2, 3), (3, 3), (4, 3)}

def test_views_of_an_enlarged_run(tiny):
    d = press(make_large(tiny))
    job = d.view.jobs[0]
    d.view.moment.value = 2
    assert drawn(d).height < SMALL_SIDE
    assert_alike(drawn(d), sheet(job.frames.images[2, 0]))
    d.view.moment.value = d.view.moment.max
    assert drawn(d).height > SMALL_SIDE
    d.view.view.value = BY_TIME
    assert_alike(drawn(d), sheet(job.frames.by_time(8)[0], 4))
    d.settings.size.value = False
    press(d)
    d.view.view.value = 'images'
    assert drawn(d).height < SMALL_SIDE
    d.buttons['go_back'].click()
    assert drawn(d).height > SMALL_SIDE and d.view.jobs == [job] and d.settings.size.value

@pytest.mark.parametrize('edit, n', (('interpolate', 12), ('variations', 3), ('inpaint', 3)))
def test_edits_of_an_enlarged_image(tiny, edit, n, monkeypatch):
    monkeypatch.setattr('flowerdiff.dashboard.TRIES', 3)
    d = press(make_large(tiny))
    for i in (1, 2): d.view.pick(0, i)
    # in pixels of the small image
    d.large.box = [2, 2, 8, 14]
    press(d, edit)
    job = d.view.jobs[0]
    assert job.settings.kind == edit and job.settings.size == 64 and job.evaluations == job.total
    assert len(large_of(d)) == n
    d.view.pick(0, 2)
    assert d.large.scale == 4
    assert_alike(shown(d.large), make_grid_image(run_code(d.text)))

def test_enlarged_images_in_files(tiny):
    d = press(make_large(tiny))
    d.view.pick(0, 1)
    image = Image.open(io.BytesIO(saved(d, 'save_image')[1]))
    assert_alike(image, make_grid_image(d.view.jobs[0].frames.large[1]))
    data = saved(d, 'png')[1]
    assert_alike(Image.open(io.BytesIO(data)), sheet(d.view.jobs[0].frames.at(99)))
    for data in (data, saved(d, 'json')[1]):
        other = opened(data, dict(tiny=tiny))
        assert other.settings.size.value and torch.equal(large_of(other), large_of(d))
    assert Image.open(io.BytesIO(saved(d, 'gif')[1])).size == (4*18 + 2, 18 + 2)

def test_a_comparison_enlarges_what_can_be(tiny, two):
    d = make(dict(tiny=tiny, plain=two['plain']), 3)
    d.settings.size.value = True
    press(press(d), 'compare')
    assert [len(job.frames.large) for job in d.view.jobs] == [3, 0]
    assert [drawn(d, k).height for k in (0, 1)] == [68, 20]

def untrained(size, **config): return Model(torch.nn.Identity(), ModelConfig(size, 'x0', 'cosine', **config), 'cpu')

SWITCHES = (
    (untrained(64), ('64', '256'), 256),
    (untrained(32), ('32', '128'), None),
    (untrained(64, channels=1), ('64', '256'), None),
    (untrained((48, 64)), ('48 x 64', '192 x 256'), None),
    (untrained((48, 64), enlarger='mine'), ('48 x 64', '192 x 256'), (192, 256)))

@pytest.mark.parametrize('m, labels, size', SWITCHES)
def test_switch(m, labels, size):
    panel = panel_for(m)
    assert tuple(label for label, _ in panel.size.options) == labels
    assert panel.size.disabled == (size is None) and (panel.size.tooltips[1] == NO_STAGE) == (size is None)
    assert panel.settings().size is None
    panel.size.value = True
    assert panel.settings().size == size

def test_the_switch_follows_the_network(tiny, ideal):
    d = make_large(tiny)
    panel = d.settings
    panel.fit(load_once(tiny))
    assert panel.size.value
    panel.fit(ideal)
    assert panel.size.disabled and not panel.size.value

@pytest.mark.parametrize('size', (16, 65, (64, 48), 'large'))
def test_other_sizes_are_refused(tiny, size):
    with pytest.raises(FlowerDiffError, match='invalid setting: Size = '):
        SampleJob(SampleSettings(tiny, 1, size=size), load_once(tiny))

# Networks

def test_compare(two):
    d = make(two, 4)
    d.settings.flower.value, d.settings.guidance.value, d.settings.seed.value = 'Daisy', 2., 3
    press(d)
    # what is shown counts, not what the controls say by now
    d.settings.flower.value, d.settings.steps.value, d.settings.seed.value = 'rose', 2, 9
    press(d, 'compare')
    a, b = d.view.jobs
    assert torch.equal(a.images, load(two['named']).sample(4, classes='daisy', guidance=2., seed=3))
    assert torch.equal(b.images, load(two['plain']).sample(4, sampler='ddim', steps=6, seed=3))
    for k, job in enumerate((a, b)): assert_alike(drawn(d, k), sheet(job.images))
    assert '4 images · named · Daisy · seed 3' in grid(d).caption.replace('daisy', 'Daisy')
    assert '4 images · plain · any flower · seed 3' in grid(d, 1).caption
    d.view.pick(1, 2)
    assert (grid(d).chosen, grid(d, 1).chosen) == ([], [2])
    d.view.pick(0, 1)
    assert (grid(d).chosen, grid(d, 1).chosen) == ([1], [2])
    d.settings.flower.value = ''
    press(d, 'more')
    assert d.view.jobs[0].flowers == ['daisy']*4 and len(d.view.jobs) == 1

def test_compare_takes_the_noise_levels_of_the_preset(two):
    d = make(dict(plain=two['plain'], named=two['named']), 4)
    d.settings.preset.value = 'fast'
    press(press(d), 'compare')
    a, b = d.view.jobs
    assert a.plan.sigmas == b.plan.sigmas == (60., 5., .5, 0.) and b.plan.sampler == 'unipc'
    d.view.view.value = BY_TIME
    assert grid(d).labels == grid(d, 1).labels == ['sigma 60: pure noise', 'sigma 5', 'sigma 0.5', 'sigma 0: image']
    assert drawn(d).size == drawn(d, 1).size
    # from a file, the same again
    other = opened(saved(d, 'json')[1], two)
    assert [job.plan for job in other.view.jobs] == [a.plan, b.plan]

def test_one_of_each(two):
    d = make(dict(named=two['named']), 12)
    assert d.settings.flower.options == (ONE_OF_EACH, 'rose', 'daisy')
    d.settings.flower.value = ONE_OF_EACH
    job = press(d).view.jobs[0]
    assert d.buttons['generate'].description == 'Generate 2 images'
    assert job.flowers == ['rose', 'daisy'] and grid(d).named and f'2 images · named · {ONE_OF_EACH}' in grid(d).caption
    other = opened(saved(d, 'json')[1], dict(named=two['named']))
    assert other.settings.flower.value == ONE_OF_EACH and torch.equal(other.view.jobs[0].images, job.images)

def test_compare_needs_images_of_one_size(ideal, two):
    d = make(dict(drawn=ideal, other=two['plain']))
    assert_refuses(d, 'cannot be compared', 'compare')

def test_custom_models(two, ideal):
    d = make(dict(drawn=ideal), 4)
    assert d.settings.custom.layout.display == 'none'
    d.settings.network.value = ''
    d.settings.loader.thread.join()
    # a hint until something is typed, and no error
    assert d.settings.custom.layout.display is None and RED not in d.status.value
    assert_refuses(d, 'which network?')
    d.settings.custom.value = '/no/such/folder'
    assert_refuses(d, 'unknown model')
    d.settings.custom.value = two['named']
    d.settings.loader.thread.join()
    assert RED not in d.status.value and d.settings.flower.options[1:] == ('rose', 'daisy')
    assert_shows(press(d), load(two['named']).sample(4))

def test_an_empty_custom_field_forgets_what_was_loading(ideal, two, monkeypatch):
    d = make(dict(drawn=ideal))
    release, get_model = [], d.get_model
    def slowly(name):
        while name and not release: time.sleep(.01)
        return get_model(name)
    monkeypatch.setattr(d.settings, 'get_model', slowly)
    d.settings.network.value = ''
    d.settings.custom.value = two['named']
    older = d.settings.loader
    d.settings.custom.value = ''
    d.settings.loader.thread.join(10)
    release.append(True)
    older.thread.join(10)
    assert d.settings.model is ideal and d.settings.flower.options == ()

def test_the_network_chosen_last_wins(ideal, two):
    d = make(two | dict(drawn=ideal))
    for name in (two['plain'], two['named'], 'drawn', two['plain']): d.settings.network.value = name
    d.settings.loader.thread.join(10)
    time.sleep(.2)
    assert d.settings.model is load_once(two['plain'])

def test_another_network_while_one_works(ideal):
    d = make(dict(slow=slow_model(), quick=ideal), 8)
    d.buttons['generate'].click()
    d.settings.network.value = 'quick'
    d.settings.loader.thread.join()
    assert finish(d).view.jobs[0].label == 'slow' and ' slow ' in grid(d).caption
    assert press(d).view.jobs[0].label == 'quick' and ' quick ' in grid(d).caption
    # back, with the controls
    d.buttons['go_back'].click()
    assert ' slow ' in grid(d).caption and d.settings.name == 'slow'

def test_back_goes_through_earlier_sheets(ideal):
    "With their settings, and past a photo; as many as are kept."
    d = make(dict(drawn=ideal))
    assert d.buttons['go_back'].disabled
    for seed in range(1, 12):
        d.settings.seed.value = seed
        press(d)
    upload(d, photo_of('red'))
    for seed in range(11, 1, -1):
        press(d, 'go_back')
        assert d.settings.seed.value == d.view.jobs[0].settings.seed == seed
    assert d.buttons['go_back'].disabled

# Images

def test_click_and_code(ideal):
    d = press(make(dict(drawn=ideal), 36))
    d.view.pick(0, 17)
    assert 'Image 17 of seed 0' in d.about.value and d.detail.layout.display is None
    assert_alike(shown(d.large), make_grid_image(run_code(d.text, m=ideal)))
    assert grid(d).chosen == [17]
    assert_refuses(d, 'select two images', 'interpolate')
    # the images have changed under the mouse
    for place in ((0, 36), (1, 0)): d.view.pick(*place)
    assert grid(d).chosen == [17]

def test_a_new_sheet_begins_with_nothing_selected(ideal):
    "Unless it was made from what is selected."
    d = press(make(dict(drawn=ideal), 1))
    assert d.buttons['generate'].description == 'Generate 1 image'
    d.view.pick(0, 0)
    pick = d.view.picked[-1]
    press(d, 'variations')
    assert d.view.picked == [pick] and d.detail.layout.display is None
    press(d)
    assert d.view.picked == [] and d.detail.layout.display == 'none'

def test_edits(ideal):
    d = press(make(dict(drawn=ideal), 36))
    for i in (3, 17): d.view.pick(0, i)
    ends = d.view.jobs[0].images[[3, 17]]
    press(d, 'interpolate')
    torch.testing.assert_close(d.view.jobs[0].images[[0, 11]], ends, atol=.01, rtol=0)
    d.buttons['go_back'].click()
    assert d.view.jobs[0].settings.n == 36 and grid(d).caption.startswith('36 images · drawn')
    d.view.pick(0, 17)
    d.strength.value = .7
    press(d, 'variations')
    assert d.view.jobs[0].settings.sigma == 1.963
    d.view.pick(0, 5)
    assert_alike(shown(d.large), make_grid_image(run_code(d.text, m=ideal)))
    assert_refuses(d, 'draw a rectangle in the large image first', 'inpaint')
    d.view.pick(0, 4)
    d.large.box = [4, 4, 16, 28]
    press(d, 'inpaint')
    d.view.pick(0, 7)
    assert_alike(shown(d.large), make_grid_image(run_code(d.text, m=ideal)))

def test_variations_take_another_seed_unless_locked(ideal):
    d = press(make(dict(drawn=ideal), locked=False))
    d.view.pick(0, 1)
    press(d, 'variations')
    seed = d.view.jobs[0].settings.seed
    press(d, 'variations')
    # the field keeps that of the images
    assert len({0, seed, d.view.jobs[0].settings.seed}) == 3 and d.settings.seed.value == 0
    # which Generate has used
    press(d)
    assert d.settings.seed.value != 0

def test_a_walk_between_classes(two):
    d = press(make(dict(named=two['named']), 12))
    job = d.view.jobs[0]
    other = next(i for i in range(12) if job.flowers[i] != job.flowers[0])
    for i in (0, other): d.view.pick(0, i)
    press(d, 'interpolate')
    torch.testing.assert_close(d.view.jobs[0].images[[0, 11]], job.images[[0, other]], atol=.01, rtol=0)
    assert d.view.jobs[0].flowers == [job.flowers[0]]*6 + [job.flowers[other]]*6

# Photos

def photo_of(colour, size=(90, 60)): return to_png(Image.new('RGB', size, colour))

def upload(d, data, name='x.png'):
    file = dict(name=name, content=memoryview(data), size=len(data), type='', last_modified=datetime.now())
    d.upload.value = (file,)
    return finish(d)

def test_a_photo(ideal):
    d = press(make(dict(drawn=ideal), 4))
    d.view.pick(0, 2)
    before = d.view.jobs[0].images[2]
    upload(d, photo_of('red'))
    assert RED not in d.status.value and grid(d).chosen == [0] and 'photo' in grid(d).caption
    # one still, of a flower that nobody knows
    assert all(d.buttons[name].disabled for name in ('more', 'compare', 'gif', 'mp4'))
    assert d.view.controls.layout.display == 'none' and not d.buttons['png'].disabled
    assert np.asarray(shown(d.large)).reshape(-1, 3).max(0).tolist() == [255, 0, 0]
    data = saved(d, 'json')[1]
    assert torch.equal(opened(data, dict(drawn=ideal)).view.jobs[0].images, d.view.jobs[0].images)
    # with the image selected before: it is at the one end, where the photo at the other is made as well as the network can
    press(d, 'interpolate')
    assert RED not in d.status.value and (d.view.jobs[0].images[0] - before).abs().mean() < .05
    d.large.box = [4, 4, 16, 28]
    press(d, 'inpaint')
    # outside of the rectangle it is red, bit for bit
    assert d.view.jobs[0].images[:, 0, :, 20:].min() == 1 and d.view.jobs[0].images[:, 1:, :, 20:].max() == -1
    press(d, 'variations')
    assert d.view.jobs[0].settings.source.kind == 'photo'
    assert not d.buttons['compare'].disabled and d.view.controls.layout.display is None

FORMS = dict(grey=((16, 16), 1), rgba=((16, 16), 4), wide=((16, 24), 3), tall_grey=((24, 16), 1))

@pytest.fixture(scope='module')
def forms(tmp_path_factory):
    "Models of images that are not square, or have not three channels."
    root, out = tmp_path_factory.mktemp('forms'), {}
    for name, (size, channels) in FORMS.items():
        config = ModelConfig(
            size, 'eps', 'linear', 'baseline', channels, dict(widths=[8, 16], n_classes=2),
            dict(sampler='ddim', steps=4, clip=True), classes=['rose', 'daisy'])
        save(build(config), config, root/name)
        out[name] = load(root/name, 'cpu', torch.float32)
    return out

@pytest.mark.parametrize('form', FORMS)
def test_other_forms(forms, form):
    "All there is works for grey, transparent and wide images, and what is shown is what is sampled."
    (h, w), channels = FORMS[form]
    m = forms[form]
    d = make({form: m}, 6)
    images = d.view.jobs[0].images
    assert images.shape == (6, channels, h, w)
    assert_alike(drawn(d), sheet(m.sample(6, seed=0)))
    for which in (1, 4): d.view.pick(0, which)
    # the code beside the image makes that image
    torch.testing.assert_close(run_code(d.text, m=m)[-1:], images[4:5], atol=1e-4, rtol=0)
    files = {name: saved(d, name)[1] for name in ('json', 'png', 'gif', 'save_image')}
    assert Image.open(io.BytesIO(files['save_image'])).size == (w, h)
    assert Image.open(io.BytesIO(files['gif'])).size == drawn(d).size
    for name in ('json', 'png'):
        torch.testing.assert_close(opened(files[name], {form: m}).view.jobs[0].images, images, atol=1e-3, rtol=0)
    for edit in ('interpolate', 'inpaint', 'variations'):
        d.large.box = [2, 3, 9, 12]
        press(d, edit)
        assert RED not in d.status.value and d.view.jobs[0].images.shape[1:] == (channels, h, w), edit
        d.view.pick(0, 0)
    upload(d, photo_of('red'))
    assert RED not in d.status.value and 'photo' in grid(d).caption
    press(d, 'variations')
    assert RED not in d.status.value and d.view.jobs[0].images.shape[1:] == (channels, h, w)

def test_forms_are_not_compared(forms):
    "Images of other sizes, or other channels, cannot stand beside each other."
    for other in ('rgba', 'wide'):
        d = make({name: forms[name] for name in ('grey', other)}, 4)
        press(d, 'compare')
        assert RED in d.status.value and 'cannot be compared' in d.status.value

def test_a_photo_is_of_any_flower(two):
    "As in flowerdiff_sample: one left in the field is about other images."
    d = make(two, 4)
    d.settings.flower.value = 'rose'
    press(upload(d, photo_of('red')), 'variations')
    assert d.view.jobs[0].settings.classes == 'any' and ' · any flower · ' in grid(d).caption

# Files

def saved(d, name):
    "What a button puts into the downloads."
    out = []
    d.large.download = lambda name, data: out.append((name, data))
    d.buttons[name].click()
    d.job.thread.join(60)
    return out[0]

def opened(data, models, name='x.json'):
    "Another dashboard that has opened a file."
    return upload(make(models, 4), data, name)

@pytest.mark.parametrize('edit', (None, 'variations', 'inpaint', 'interpolate'))
@pytest.mark.parametrize('button', ('json', 'png'))
def test_files_open_again(ideal, edit, button):
    models = dict(drawn=ideal)
    d = make(models)
    d.settings.seed.value, d.settings.steps.value = 3, 5
    press(d)
    for i in (2, 3): d.view.pick(0, i)
    d.large.box = [4, 4, 16, 28]
    if edit: press(d, edit)
    name, data = saved(d, button)
    assert name == f'flowers-3.{button}'
    other = opened(data, models)
    torch.testing.assert_close(other.view.jobs[0].images, d.view.jobs[0].images, atol=1e-3, rtol=0)
    assert (other.settings.seed.value, other.settings.steps.value) == (3, 5)

def test_a_comparison_opens_again(two):
    d = press(make(two, 4), 'compare')
    settings = read_settings(saved(d, 'png')[1])
    assert [s.model for s in settings] == [*two.values()]
    other = opened(saved(d, 'json')[1], two)
    for a, b in zip(other.view.jobs, d.view.jobs): assert torch.equal(a.images, b.images)

def test_a_custom_model_opens_again(two, ideal):
    d = make(dict(named=two['named']), 4)
    d.settings.flower.value = 'rose'
    data = saved(press(d), 'json')[1]
    other = opened(data, dict(drawn=ideal))
    assert other.settings.custom.value == two['named'] and other.settings.network.value == ''
    assert other.settings.flower.value == 'rose'
    assert torch.equal(other.view.jobs[0].images, d.view.jobs[0].images)

def test_other_files(ideal):
    assert 'cannot be read as an image' in opened(b'what is this', dict(drawn=ideal)).status.value
    assert 'no settings' in opened(b'{}', dict(drawn=ideal)).status.value
    data = json.dumps(dict(model='drawn', n='many')).encode()
    assert 'invalid setting: Images = many' in opened(data, dict(drawn=ideal)).status.value

def test_single_images_and_animations(ideal):
    d = press(make(dict(drawn=ideal), 4))
    d.view.pick(0, 1)
    image = Image.open(io.BytesIO(saved(d, 'save_image')[1]))
    assert image.size == (32, 32)
    settings = read_settings(saved(d, 'save_image')[1])[0]
    assert_alike(image, make_grid_image(settings.make(ideal)))
    name, data = saved(d, 'gif')
    assert name == 'flowers-0.gif' and Image.open(io.BytesIO(data)).size == drawn(d).size
    assert 'in your downloads' in d.status.value

def test_animations(ideal):
    d = press(make(dict(drawn=ideal), 4))
    frames, calls = d.view.jobs[0].frames, []
    for kind in ('gif', 'webp', 'mp4'):
        data = make_animation([frames, frames], DENOISED, kind, lambda: calls.append(1))
        assert len(data) > 500
    assert len(calls) == 3*11

def test_a_full_disk(ideal, monkeypatch):
    d = press(make(dict(drawn=ideal), 4))
    def full(*args): raise OSError(28, 'No space left on device')
    with monkeypatch.context() as m:
        m.setattr('os.fsync', full)
        assert_refuses(d, 'No space left on device): make room there', 'gif')
    assert saved(d, 'gif')[0] == 'flowers-0.gif'

def test_mp4_says_what_is_missing(ideal, monkeypatch):
    monkeypatch.setattr('flowerdiff.dashboard.HAS_MP4', False)
    d = press(make(dict(drawn=ideal), 4))
    assert d.buttons['mp4'].disabled and not d.buttons['gif'].disabled

# Pages

def test_two_dashboards_share_a_model(ideal):
    a, b = make(dict(shared=ideal), 24), make(dict(shared=ideal), 36)
    b.settings.seed.value, b.settings.steps.value = 5, 20
    for d in (a, b): d.buttons['generate'].click()
    assert_shows(finish(a), ideal.sample(24))
    assert_shows(finish(b), ideal.sample(36, seed=5, steps=20))

def test_refuses_no_images():
    with pytest.raises(FlowerDiffError, match='n is 0'): Dashboard(n=0)

# Training

LINE = dict(step=9, epoch=3., seconds=2., pictures_per_second=70., loss=.5)

def log_line(folder, **changes):
    with (folder/'log.jsonl').open('a') as f: f.write(json.dumps(LINE | changes) + '\n')

def test_look_at_run(tmp_path):
    with pytest.raises(FlowerDiffError, match='there is no folder'): look_at_run(str(tmp_path/'gone'))
    assert look_at_run(str(tmp_path)) == (f"nothing to see in '{tmp_path}' yet", b'', b'')
    for step in (6, 9): log_line(tmp_path, step=step)
    (tmp_path/'previews').mkdir()
    for step in (6, 9): Image.new('RGB', (step, 8)).save(tmp_path/f'previews/{step:08}.png')
    text, curves, preview = look_at_run(str(tmp_path))
    assert text == 'step 9, epoch 3.0, 70 images a second'
    assert Image.open(io.BytesIO(curves)).width > 300 and Image.open(io.BytesIO(preview)).size == (9, 8)

def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f'not within {seconds} s'
        time.sleep(.02)

def test_watching(tmp_path):
    panel = TrainingPanel()
    panel.folder.value = str(tmp_path/'gone')
    panel.watch.value = True
    wait_for(lambda: 'there is no folder' in panel.status.value)
    log_line(tmp_path)
    panel.folder.value = str(tmp_path)
    wait_for(lambda: 'step 9' in panel.status.value and panel.losses.value)
    assert panel.preview.layout.display == 'none' and panel.losses.layout.display is None
    log_line(tmp_path, step=12)
    wait_for(lambda: 'step 12' in panel.status.value)
    panel.watch.value = False
    panel.job.thread.join(10)
    assert not panel.job.running

def test_loading_does_not_overwrite_what_was_said(two):
    "A network may finish loading after something else has been said."
    d = make(two)
    d.say('Done.')
    d.loaded(Job())
    assert 'Done.' in d.status.value

def test_a_network_that_loads_takes_back_the_error_of_another(two):
    d, failed = make(two), Job()
    failed.error = 'no such model'
    d.status.value = ''
    d.loaded(failed)
    assert 'no such model' in d.status.value
    d.loaded(Job())
    assert RED not in d.status.value
