"""Guards for flowerdiff.controls and flowerdiff.dashboard, whose buttons are pressed from code."""
import io, json, math, re, time
from copy import copy
from datetime import datetime
import ipywidgets as widgets, numpy as np, pytest, torch
from PIL import Image
from flowerdiff.config import ModelConfig, build
from flowerdiff.controls import NO_STAGE, RED, SettingsPanel, TrainingPanel, as_number, look_at_run
from flowerdiff.core import FlowerDiffError
from flowerdiff.dashboard import BY_TIME, Dashboard, JobView
from flowerdiff.images import draw_flowers, make_grid_image, read_image, to_float, to_uint8
from flowerdiff.jobs import (
    DENOISED, Job, SampleJob, SampleSettings, draw_by_time, draw_enlarged, draw_grid, load_once, read_settings)
from flowerdiff.models import Model, load, save
from flowerdiff.schedule import ideal_denoiser

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
    "A dashboard whose network has been loaded."
    d = Dashboard(models, n)
    d.settings.loader.thread.join(20)
    d.settings.lock.value = locked
    return d

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

def assert_shows(d, images): assert_alike(shown(d.view.grid), make_grid_image(images, min(12, len(images))))

def assert_refuses(d, message, name='generate'):
    "Press a button that fails: what is shown stays."
    before = d.view.grid.value, d.before, d.settings.used_seed
    press(d, name)
    assert message in d.status.value.replace('&#x27;', "'") and RED in d.status.value, d.status.value
    assert (d.view.grid.value, d.before, d.settings.used_seed) == before

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
    assert panel.guidance.value == 3. and panel.settings(0).plan(m) == m.plan('fast')
    panel.guidance.value = 1.
    assert panel.settings(0).plan(m) == m.plan()
    panel.guidance.value = 2.
    assert panel.settings(0).plan(m) == m.plan(guidance=2.)

def test_another_sampler_brings_its_steps(named):
    panel = panel_for(named, sampler='heun')
    assert panel.changed() == dict(sampler='heun', steps=25)
    panel.sampler.value = 'ddim'
    assert panel.steps.value == 6 and panel.changed() == {}

def test_range_of_guidance_needs_guidance(named):
    panel = panel_for(named)
    panel.guidance.value, panel.interval.value = 2., '0.5 to 30'
    assert panel.settings(0).interval == (.5, 30.)
    panel.guidance.value = 1.
    assert panel.settings(0).interval is None

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
    again = panel.settings(panel.seed.value)
    assert again.plan(named) == s.plan(named)
    assert (again.n, again.classes, again.seed) == (s.n, s.classes, s.seed)

# Generating

def test_generate_makes_what_sample_makes(ideal):
    d = make(dict(drawn=ideal), 36)
    assert d.detail.layout.display == d.view.layout.display == 'none'
    assert_refuses(d, 'generate images first', 'png')
    x = ideal.sample(36)
    assert_shows(press(d), x)
    assert d.bar.value == 1 and 'drawn: 36 images in' in d.status.value and d.view.layout.display is None
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
    d.settings.lock.value = True
    assert d.settings.lock.icon == 'lock'

def test_time_and_views(ideal):
    d = press(make(dict(drawn=ideal)))
    job, thread = d.view.jobs[0], d.job.thread
    assert d.view.moment.max == 10 and d.view.sigma.value == 'result'
    d.view.moment.value = 7
    assert d.view.sigma.value.startswith('sigma')
    assert_alike(shown(d.view.grid), draw_grid([job.frames], 7)[0])
    d.view.what.value = DENOISED
    assert_alike(shown(d.view.grid), draw_grid([job.frames], 7, DENOISED)[0])
    d.view.view.value, d.view.rows.value = BY_TIME, 5
    assert_alike(shown(d.view.grid), draw_by_time([job.frames], 5, DENOISED)[0])
    assert d.view.time.layout.display == 'none' and d.job.thread is thread

WRONG = (
    ('seed', -1, 'invalid setting: seed = -1: give a whole number'),
    ('steps', 0, 'invalid setting: steps = 0'),
    ('steps', 10000, 'invalid setting: steps = 10000: give a whole number from 1 to 1000'),
    ('n', 0, 'invalid setting: n = 0'),
    ('n', 10**9, 'invalid setting: n = 1000000000: give a whole number from 1 to 1000'))

@pytest.mark.parametrize('control, value, message', WRONG)
def test_what_is_wrong_is_said(ideal, control, value, message):
    d = press(make(dict(drawn=ideal)))
    good = getattr(d.settings, control).value
    getattr(d.settings, control).value = value
    assert_refuses(d, message)
    getattr(d.settings, control).value = good
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
    assert d.job.thread is thread and '% done' in d.status.value
    assert d.buttons['generate'].disabled and d.buttons['go_back'].disabled and d.upload.disabled
    began = time.monotonic()
    d.buttons['stop'].click()
    finish(d, 10)
    assert time.monotonic() - began < .3
    assert 'Stopped' in d.status.value and RED not in d.status.value
    rows = read_image(shown(d.view.grid)).float()
    assert rows[:, 2:34, -400:].std() > 30 and rows[:, -32:].min() == 255
    # as good as new
    d.view.view.value = 'images'
    d.settings.preset.value = 'fast'
    assert_shows(press(d), slow_model(0).sample(20, preset='fast'))

def test_a_preset_with_noise_levels_and_guidance_of_its_own(tmp_path):
    fast = dict(spacing=[30., 5., .5, 0.], guidance=3.)
    m = load(save_untrained(tmp_path, classes=['rose', 'daisy'], presets=dict(fast=fast)), 'cpu', torch.float32)
    d = make(dict(mine=m), 4)
    d.settings.preset.value = 'fast'
    assert d.settings.steps.value == 3 and d.settings.guidance.value == 3.
    assert_shows(press(d), m.sample(4, preset='fast'))
    job = d.view.jobs[0]
    assert job.frames.labels[0] == 'sigma 30' and job.evaluations == job.total == 4*6 and d.bar.value == 1

# Enlarging

@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "A network of 16 px, in a folder, that names one to enlarge its images."
    root = tmp_path_factory.mktemp('tiny')
    c = ModelConfig(64, 'v', 'cosine', 'enlarge', net=dict(widths=[8, 16], mid=1), preset=dict(steps=2, sigma_max=1.))
    torch.manual_seed(0)
    stage = build(c)
    for p in stage.parameters(): torch.nn.init.normal_(p, std=.05)
    save(stage, c, root/'stage')
    return save_untrained(root/'small', enlarger=str(root/'stage'))

# evaluations of its two networks for an image
SMALL, LARGE = 6, 2

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
    assert '4 images in' in d.status.value
    d.settings.size.value = False
    assert_shows(press(d), m.sample(4))
    assert d.view.grid.scale == 1

@pytest.mark.parametrize('n, runs', ((1, 1), (1, 2), (3, 1), (14, 2)))
def test_each_takes_the_place_of_a_small_one(tiny, n, runs):
    "In order, and nothing else changes."
    grids = []
    def look(job):
        if len(job.frames.large) > len(grids): grids.append(draw_enlarged([job.frames]*runs))
    job = SampleJob(SampleSettings(tiny, n, size=64), load_once(tiny), look)
    job.run()
    small, cells = draw_grid([job.frames]*runs, 99)
    expected = small.resize((4*small.width, 4*small.height), Image.Resampling.NEAREST)
    border = 8 if n*runs > 1 else 0
    assert len(grids) == n
    for i, (image, where) in enumerate(grids):
        for k in range(runs):
            row, col = divmod(k*cells[4] + i, cells[1])
            expected.paste(make_grid_image(job.frames.large[i]), (border + 72*col, border + 72*row))
        assert where == cells and image == expected

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
    assert d.view.grid.scale == 4 and shown(d.view.grid).size == draw_enlarged([job.frames])[0].size
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
        percent, enlarged = re.search(r'(\d+)% done(?:, enlarged (\d) of 4)?', d.status.value).groups('0')
        return int(percent), int(enlarged), d.view.grid.scale
    press(d)
    assert sorted(told) == told and told[-1] == (100, 4, 4)
    assert {(enlarged, scale) for _, enlarged, scale in told} == {(0, 1), (1, 4), (2, 4), (3, 4), (4, 4)}

def test_views_of_an_enlarged_run(tiny):
    d = press(make_large(tiny))
    job = d.view.jobs[0]
    d.view.moment.value = 2
    assert d.view.grid.scale == 1
    assert_alike(shown(d.view.grid), draw_grid([job.frames], 2)[0])
    d.view.moment.value = d.view.moment.max
    assert d.view.grid.scale == 4
    d.view.view.value = BY_TIME
    assert d.view.grid.scale == 1
    assert_alike(shown(d.view.grid), draw_by_time([job.frames], 8)[0])
    d.settings.size.value = False
    press(d)
    d.view.view.value = 'images'
    assert d.view.grid.scale == 1
    d.buttons['go_back'].click()
    assert d.view.grid.scale == 4 and d.view.jobs == [job]

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
    assert_alike(Image.open(io.BytesIO(data)), draw_enlarged([d.view.jobs[0].frames])[0])
    for data in (data, saved(d, 'json')[1]):
        other = opened(data, dict(tiny=tiny))
        assert other.settings.size.value and torch.equal(large_of(other), large_of(d))
    assert Image.open(io.BytesIO(saved(d, 'gif')[1])).size == (4*18 + 2, 18 + 2)

def test_a_comparison_enlarges_what_can_be(tiny, two):
    d = make(dict(tiny=tiny, plain=two['plain']), 3)
    d.settings.size.value = True
    press(d, 'compare')
    assert [len(job.frames.large) for job in d.view.jobs] == [3, 0]
    assert d.view.grid.cells == [6, 3, 0, 2, 3] and d.view.grid.scale == 4

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
    assert panel.settings(0).size is None
    panel.size.value = True
    assert panel.settings(0).size == size

def test_the_switch_follows_the_network(tiny, ideal):
    d = make_large(tiny)
    panel = d.settings
    panel.fit(load_once(tiny))
    assert panel.size.value
    panel.fit(ideal)
    assert panel.size.disabled and not panel.size.value

@pytest.mark.parametrize('size', (16, 65, (64, 48), 'large'))
def test_other_sizes_are_refused(tiny, size):
    with pytest.raises(FlowerDiffError, match='invalid setting: size = '):
        SampleJob(SampleSettings(tiny, 1, size=size), load_once(tiny))

# Networks

def test_compare(two):
    d = make(two, 4)
    d.settings.flower.value, d.settings.guidance.value = 'Daisy', 2.
    press(d, 'compare')
    a, b = d.view.jobs
    assert torch.equal(a.images, load(two['named']).sample(4, classes='daisy', guidance=2.))
    assert torch.equal(b.images, load(two['plain']).sample(4, sampler='ddim', steps=6))
    assert_alike(shown(d.view.grid), make_grid_image(torch.cat([a.images, b.images]), 4))
    assert 'named: 4 images' in d.status.value and 'plain: 4 images' in d.status.value
    assert d.view.caption.value == 'named, then plain'
    d.view.pick(1, 2)
    assert d.view.grid.chosen == [[1, 2]]
    d.view.pick(0, 1)
    assert d.view.grid.chosen == [[0, 1]]
    d.settings.flower.value = ''
    press(d, 'more')
    assert d.view.jobs[0].flowers == ['daisy']*4 and len(d.view.jobs) == 1

def test_compare_takes_what_has_been_changed(two):
    d = make(two, 4)
    d.settings.preset.value, d.settings.guidance.value = 'fast', 2.
    press(d, 'compare')
    for job in d.view.jobs:
        m = job.model
        assert job.plan == m.plan('fast', guidance=2. if m.classes else None)

def test_compare_needs_images_of_one_size(ideal, two):
    d = make(dict(drawn=ideal, other=two['plain']))
    assert_refuses(d, 'cannot be compared', 'compare')

def test_custom_models(two, ideal):
    d = make(dict(drawn=ideal), 4)
    assert d.settings.custom.layout.display == 'none'
    d.settings.network.value = ''
    d.settings.loader.thread.join()
    assert d.settings.custom.layout.display is None and 'which network?' in d.status.value
    assert_refuses(d, 'which network?')
    d.settings.custom.value = '/nowhere'
    assert_refuses(d, 'unknown model')
    d.settings.custom.value = two['named']
    d.settings.loader.thread.join()
    assert RED not in d.status.value and d.settings.flower.options == ('rose', 'daisy')
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
    assert d.settings.model is ideal and d.settings.flower.options == () and 'which network?' in d.status.value

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
    assert finish(d).view.jobs[0].label == 'slow'
    assert press(d).view.jobs[0].label == 'quick'

# Images

def test_click_and_code(ideal):
    d = press(make(dict(drawn=ideal), 36))
    d.view.pick(0, 17)
    assert 'Image 17 of seed 0' in d.about.value and d.detail.layout.display is None
    assert_alike(shown(d.large), make_grid_image(run_code(d.text, m=ideal)))
    assert d.view.grid.chosen == [[0, 17]]
    assert_refuses(d, 'select two images', 'interpolate')
    # the images have changed under the mouse
    for place in ((0, 36), (1, 0)): d.view.pick(*place)
    assert d.view.grid.chosen == [[0, 17]]

def test_edits(ideal):
    d = press(make(dict(drawn=ideal), 36))
    for i in (3, 17): d.view.pick(0, i)
    ends = d.view.jobs[0].images[[3, 17]]
    press(d, 'interpolate')
    torch.testing.assert_close(d.view.jobs[0].images[[0, 11]], ends, atol=.01, rtol=0)
    d.buttons['go_back'].click()
    assert d.view.jobs[0].settings.n == 36 and 'drawn: 36 images' in d.status.value
    d.view.pick(0, 17)
    d.strength.value = 2.
    press(d, 'variations')
    assert d.view.jobs[0].settings.sigma == 2.
    d.view.pick(0, 5)
    assert_alike(shown(d.large), make_grid_image(run_code(d.text, m=ideal)))
    assert_refuses(d, 'a rectangle in the image', 'inpaint')
    d.view.pick(0, 4)
    assert_refuses(d, 'made from noise alone', 'interpolate')
    d.large.box = [4, 4, 16, 28]
    press(d, 'inpaint')
    d.view.pick(0, 7)
    assert_alike(shown(d.large), make_grid_image(run_code(d.text, m=ideal)))

def test_variations_take_another_seed_unless_locked(ideal):
    d = press(make(dict(drawn=ideal), locked=False))
    d.view.pick(0, 1)
    press(d, 'variations')
    assert d.view.jobs[0].settings.seed == d.settings.seed.value != 0

def test_a_walk_between_classes(two):
    d = press(make(dict(named=two['named']), 12))
    job = d.view.jobs[0]
    other = next(i for i in range(12) if job.flowers[i] != job.flowers[0])
    for i in (0, other): d.view.pick(0, i)
    press(d, 'interpolate')
    torch.testing.assert_close(d.view.jobs[0].images[[0, 11]], job.images[[0, other]], atol=.01, rtol=0)
    assert d.view.jobs[0].flowers == [job.flowers[0]]*6 + [job.flowers[other]]*6

# Files

def saved(d, name):
    "What a button puts into the downloads."
    out = []
    for grid in (d.view.grid, d.large): grid.download = lambda name, data: out.append((name, data))
    d.buttons[name].click()
    d.job.thread.join(60)
    return out[0]

def opened(data, models, name='x.json'):
    "Another dashboard that has opened a file."
    d = make(models, 4)
    file = dict(name=name, content=memoryview(data), size=len(data), type='', last_modified=datetime.now())
    d.upload.value = (file,)
    return finish(d)

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
    assert 'no settings' in opened(b'what is this', dict(drawn=ideal)).status.value
    data = json.dumps(dict(model='drawn', n='many')).encode()
    assert 'invalid setting: n = many' in opened(data, dict(drawn=ideal)).status.value

def test_single_images_and_animations(ideal):
    d = press(make(dict(drawn=ideal), 4))
    d.view.pick(0, 1)
    image = Image.open(io.BytesIO(saved(d, 'save_image')[1]))
    assert image.size == (32, 32)
    settings = read_settings(saved(d, 'save_image')[1])[0]
    assert_alike(image, make_grid_image(settings.make(ideal)))
    name, data = saved(d, 'gif')
    assert name == 'flowers-0.gif' and Image.open(io.BytesIO(data)).size == shown(d.view.grid).size
    assert 'in your downloads' in d.status.value

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
    assert 'Press Generate' in d.status.value
