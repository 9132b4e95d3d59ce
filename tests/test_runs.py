"Guards of flowerdiff.settings, checkpoints and runs: what is refused, exact resume, files of others, several processes."
import json, math, os, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from flowerdiff import __version__
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from flowerdiff.checkpoints import Checkpoint, LogFile, checksum, plot_losses, posthoc, read_log, snapshot_files
from flowerdiff.config import build
from flowerdiff.core import FlowerDiffError, make_folder
from flowerdiff.data import load_images, mark_images, stream_images
from flowerdiff.enlarging import measure_detail
from flowerdiff.images import draw_flowers
from flowerdiff.models import load
from flowerdiff.runs import Run, Stopped, train
from flowerdiff.settings import WATCHES, Budget, Settings, make_config, read_recipe

slow = pytest.mark.skipif(os.environ.get('FLOWERDIFF_SLOW') != '1', reason='slow: set FLOWERDIFF_SLOW=1')
LITTLE = dict(model='baseline', batch_size=8, lr=1e-3, net=dict(widths=[8, 16]))
ATTENTION = dict(model='attention', batch_size=8, net=dict(widths=[16, 32], attention=[1]))

@pytest.fixture(scope='module')
def data(): return load_images('drawn:24', 16, verbose=False)

@pytest.fixture(scope='module')
def done(data, tmp_path_factory):
    "The folder of a complete run of 20 epochs."
    folder = tmp_path_factory.mktemp('runs')/'done'
    go(data, folder, epochs=20)
    return folder

def go(data, folder, **kw):
    "Train a little baseline."
    return train(data, folder, **LITTLE | dict(device='cpu') | kw)

def make(data, folder, budget=None, kind=Run, **settings):
    "Make a little run, and its folder."
    settings = Settings(**LITTLE | dict(size=16) | settings)
    return kind(settings, data, make_folder(Path(folder)), budget, device='cpu')

def weights(folder): return (folder/'model.safetensors').read_bytes()

def steps_of(log): return [line['step'] for line in log]

def refuses(call, message):
    "Check that a call is refused in one line that says something."
    with pytest.raises(FlowerDiffError) as e: call()
    said = str(e.value)
    assert message in said and '\n' not in said, said

# What is refused

WRONG = [
    (dict(model='gan'), "unknown model 'gan'"),
    (dict(model=['baseline']), 'unknown model'),
    (dict(size=2), 'size is 2'),
    (dict(batch_size='8.5'), 'batch_size is 8.5'),
    (dict(batch_size='many'), "batch_size is 'many'"),
    (dict(warmup=0), 'warmup is 0'),
    (dict(seed=-1), 'seed is -1'),
    (dict(ema=2), 'ema is 2'),
    (dict(lr=0), 'lr is 0'),
    (dict(lr='fast'), "lr is 'fast'"),
    (dict(tail=1.5), 'tail is 1.5'),
    (dict(drop_label=math.nan), 'drop_label is nan'),
    (dict(augment=.1), 'cannot be told'),
    (dict(model='enlarge', augment=.1), 'cannot be told'),
    (dict(tracks=[.5]), 'a length in tracks is 0.5'),
    (dict(tracks=.1), 'tracks is 0.1'),
    (dict(net=[]), 'net is []'),
    (dict(zero_snr='yes', weight='edm'), "zero_snr is 'yes'"),
    (dict(init=3), "unknown model '3'"),
    (dict(prediction='w'), "'w'"),
    (dict(schedule='steep'), "'steep'"),
    (dict(noise='pink'), "'pink'"),
    (dict(weight='heavy'), "'heavy'"),
    (dict(gamma=0), 'gamma is 0'),
    (dict(noise_options=dict(mean=1)), "'mean'"),
    (dict(shift=2., noise='log_normal'), 'shift 2'),
    (dict(preset=dict(sampler='magic')), "'magic'"),
    (dict(prediction='v', zero_snr=True, weight='min_snr'), "loss weight 'min_snr' cannot"),
    (dict(prediction='v', zero_snr=True, weight='soft_min_snr'), "'soft_min_snr' cannot"),
    (dict(zero_snr=True, weight='edm'), 'eps'),
    (dict(accumulate=3), "a run has no 'accumulate'"),
    (dict(dropout=.1), "a run has no 'dropout'"),
    (dict(minutes=0), 'minutes is 0'),
    (dict(epochs=math.inf), 'epochs is inf'),
    (dict(device='gpu'), "'gpu'"),
    (dict(tracker='paper'), "unknown tracker 'paper'"),
    (dict(net=dict(width=3)), 'width'),
    (dict(net=dict(widths=[])), 'which builds no baseline network'),
    (dict(net=dict(widths=[0, 0])), 'a layer has no weights'),
    (dict(model='attention', net=dict(widths=[16, 16])), 'multiples of 32'),
    (dict(size=999_999), 'size is 999999'),
]

@pytest.mark.parametrize('settings, message', WRONG, ids=[m for _, m in WRONG])
def test_refused(data, tmp_path, settings, message):
    "Before anything is made."
    refuses(lambda: go(data, tmp_path/'v', **settings), message)
    assert not (tmp_path/'v').exists()

def test_refused_folders(data, done, tmp_path):
    (tmp_path/'file').touch()
    odd, other = [load_images(f'drawn:{n}', s, verbose=False) for n, s in ((8, 20), (20, 16))]
    refuses(lambda: go(data, tmp_path/'file/x'), 'cannot write to the folder')
    refuses(lambda: go(data, done), 'already holds a run')
    refuses(lambda: go(data, done, resume=True, seed=1), 'begun with seed 0, not 1')
    refuses(lambda: go(data, done, resume=True, net=dict(widths=[8])), 'begun with net')
    refuses(lambda: go(other, done, resume=True), 'trained on other images')
    for odd_data in ('drawn:8', data.images):
        refuses(lambda: train(odd_data, tmp_path/'odd'), 'give what load_images returns')
    refuses(lambda: go(odd, tmp_path/'odd', net=dict(widths=[8]*4)), '20')
    assert not (tmp_path/'odd').exists()

def test_refused_images(data, tmp_path):
    more = replace(data, labels=data.labels + 5)
    val = replace(data, key='a', source='b', splits=dict(val=3))
    refuses(lambda: go(more, tmp_path/'v'), 'labels go up to 16, but there are 12')
    refuses(lambda: go(data, tmp_path/'v', held_out=data), 'trained on too')
    same_split = replace(val, key='c')
    refuses(lambda: go(val, tmp_path/'v', held_out=same_split), 'trained on too')

# The call that began a run resumes it

SAME = [
    dict(lr='1e-3', batch_size='8', warmup=' 7 ', net=dict(widths=('8', 16)), seed='3'),
    dict(lr=np.float32(1e-3), batch_size=np.int64(8), seed=np.uint8(3), net=dict(widths=np.array([8, 16]))),
    dict(net=dict(widths=(8, 16)), tracks=(.1,), preset=dict(interval=(0., math.inf), guidance='2')),
    dict(lr=None, weight=None, net=dict(widths=[8, 16]), preset=None, augment=None),
    dict(epochs='1', net=dict(widths=torch.tensor([8, 16])), prediction='v', zero_snr=np.bool_(True)),
    dict(epochs=np.float32(1), minutes=np.int64(9), size=np.int64(16)),
]

@pytest.mark.parametrize('settings', SAME)
def test_the_same_call_resumes(data, tmp_path, settings):
    "Text of numbers, NumPy's numbers, tuples and None mean what the JSON says."
    for _ in range(2): run = go(data, tmp_path/'r', resume=True, **dict(epochs=1) | settings)
    stored = json.loads((tmp_path/'r/run.json').read_text())['settings']
    assert stored == json.loads(json.dumps(vars(run.settings)))
    assert run.step == 3 and stored['net'] == dict(widths=[8, 16])
    if 'seed' in settings: assert (stored['seed'], stored['batch_size']) == (3, 8)

def test_a_path_and_a_number_as_init(data, done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('007').symlink_to(done)
    for init in (Path('007'), '007'):
        run = go(data, 'r', resume=True, epochs=1, init=init)
        assert run.settings.init == '007'

def test_a_run_of_before_goes_on(data, tmp_path):
    "Its state knows nothing of what came later."
    go(data, tmp_path/'old', epochs=1)
    file, = (tmp_path/'old').glob('state-*')
    tensors = load_file(file)
    del tensors['marks']
    with safe_open(file, 'pt') as f: meta = json.loads(f.metadata()['run'])
    del meta['settings']['flip'], meta['how']
    meta['settings']['accumulate'] = 1
    meta['checksum'] = checksum(tensors)
    save_file(tensors, file, dict(run=json.dumps(meta)))
    for kw in (dict(), dict(flip=True)): go(data, tmp_path/'old', epochs=2, resume=True, **kw)
    refuses(lambda: go(data, tmp_path/'old', epochs=3, resume=True, flip=False), 'begun with flip True, not False')

@pytest.mark.parametrize('size', ['16x24', (16, 24), [16, np.int64(24)]])
@pytest.mark.parametrize('how', [LITTLE, ATTENTION, LITTLE | dict(noise='cosine', prediction='v')], ids=['baseline', 'attention', 'cosine'])
def test_images_that_are_not_square(tmp_path, how, size):
    wide = load_images('drawn:16', size, verbose=False)
    for epochs in (1, 2): run = train(wide, tmp_path/'wide', epochs=epochs, device='cpu', resume=True, size=size, **how)
    assert run.step == 4 and run.settings.size == [16, 24]
    assert load(tmp_path/'wide', 'cpu').sample(2, steps=2).shape == (2, 3, 16, 24)

# Images that have changed

def blurred(data, by):
    "The same files, decoded to other bytes."
    images = (data.images.int() + by).clamp(0, 255).byte()
    return replace(data, images=images, key='other', marks=data.marks + torch.tensor([0, by]))

def test_new_images_are_accepted(data, done, tmp_path, capsys):
    more = load_images('drawn:36', 16, verbose=False)
    for k, (other, what) in enumerate(((more, 'images were added (12)'), (blurred(data, 1), 'slightly other bytes'))):
        go(data, tmp_path/f'{k}', epochs=1)
        def again(**kw): return go(other, tmp_path/f'{k}', epochs=3, resume=True, **kw)
        refuses(again, f'{what} since')
        refuses(again, '--accept-new-data')
        again(accept_new_data=True)
        assert f'{what} since' in capsys.readouterr().err
        # from now on they are the images of the run
        again()
        assert not capsys.readouterr().err.count(what)

def test_images_that_are_missing(data, done):
    "Also where somebody has cut the data by hand, and left the marks as they were."
    by_hand = replace(data, images=data.images[:20], labels=data.labels[:20], key='cut')
    for other in (data.subset(slice(20)), by_hand):
        refuses(lambda: go(other, done, resume=True, accept_new_data=True), 'trained on other images (24 of')

@pytest.mark.parametrize('how, message', [(dict(channels=1), 'channels 3, not 1'), (dict(fit='pad', background='red'), 'fit crop, not pad')])
def test_images_read_otherwise(data, done, how, message):
    other = replace(data, key='other', how=how)
    refuses(lambda: go(other, done, resume=True, accept_new_data=True), f'was begun with {message}')

@pytest.mark.parametrize('change', ['names', 'labels', 'pixels', 'fewer', 'no marks'])
def test_other_images_are_never_accepted(data, done, change):
    marks = data.marks.clone()
    if change == 'names': marks[3, 0] += 1
    if change == 'pixels': marks[3, 1] += 9
    if change == 'fewer': marks = marks[:-1]
    if change == 'labels':
        marks = mark_images(data.images, [*enumerate(data.labels.flip(0).tolist())])
    if change == 'no marks': marks = marks[:0]
    other = replace(data, key='other', marks=marks)
    refuses(lambda: go(other, done, resume=True, accept_new_data=True), 'trained on other images')

# Recipes, settings, configs

@pytest.mark.parametrize('text, message', [('{"sise": 64}', "no 'sise'"), ('[1]', 'no recipe'), ('{', 'no recipe')])
def test_bad_recipes(tmp_path, text, message):
    file = tmp_path/'mine.json'
    file.write_text(text)
    refuses(lambda: read_recipe(str(file)), message)

def test_unknown_recipe(): refuses(lambda: read_recipe('gan'), 'use attention, attention_staged')

def test_recipe_in_epochs(tmp_path):
    file = tmp_path/'mine.json'
    file.write_text('{"model": "baseline", "epochs": 3}')
    assert read_recipe(str(file)) == dict(model='baseline', epochs=3)

@pytest.mark.parametrize('name, most', [('attention', 16e6), ('baseline', 8e6), ('enlarge', 5e6)])
def test_recipes_hold_what_they_promise(data, name, most):
    recipe = read_recipe(name)
    for key in ('minutes', 'epochs', 'held_out'): recipe.pop(key, None)
    config = make_config(Settings(**recipe), data)
    assert sum(p.numel() for p in build(config).parameters()) <= most

draws = pytest.mark.parametrize('model', ['baseline', 'attention'])

@draws
def test_both_models_learn_classes(data, model):
    settings = Settings(model, 16, 8, preset=dict(guidance=2., interval=[.3, 5.], steps=8))
    config = make_config(settings, data)
    assert config.net['n_classes'] == 12 and config.preset['guidance'] == 2
    assert build(config).n_classes == 12

def test_minutes_include_the_last_save(data):
    "Who gives a minute does not wait longer for what is saved at its end."
    half = SimpleNamespace(seconds=25., saving=5., step=1, epoch_steps=4)
    assert Budget(1).done(half) == .5
    assert Budget(1).done(SimpleNamespace(**vars(half) | dict(saving=35.))) == 1

def test_resumes_with_as_many_threads(data, tmp_path):
    "The bits of a run do not depend on how many threads are usual when it goes on."
    usual = torch.get_num_threads()
    how = dict(model='baseline', batch_size=8, net=dict(widths=(16, 24)), device='cpu')
    try:
        for epochs, threads in ((1, 2), (2, 1)):
            torch.set_num_threads(threads)
            train(data, tmp_path, epochs=epochs, resume=True, **how)
            assert torch.get_num_threads() == 2
    finally: torch.set_num_threads(usual)

ENLARGER = dict(model='enlarge', batch_size=4, net=dict(widths=(16, 24), n_emb=32), device='cpu')

@pytest.fixture(scope='module')
def large(): return load_images('drawn:8', 112, verbose=False)

def test_enlarger_learns_no_classes(large):
    config = make_config(Settings('enlarge', 112, 8), large)
    assert not config.classes and 'n_classes' not in config.net
    assert config.sigma_data == measure_detail(large.images) < .3

def test_enlarger_resumes_exactly(large, tmp_path):
    train(large, tmp_path/'whole', epochs=4, **ENLARGER)
    for epochs in (2, 4): train(large, tmp_path/'parts', epochs=epochs, resume=True, **ENLARGER)
    assert weights(tmp_path/'whole') == weights(tmp_path/'parts')

def test_enlarger_previews_images_of_any_contrast(large, tmp_path):
    "A filter that shrinks hard edges gives values beyond black and white."
    squares = torch.arange(112)//14 % 2
    images = 255*squares.byte().expand_as(large.images)
    train(replace(large, images=images), tmp_path, epochs=1, **ENLARGER)
    assert [*tmp_path.glob('previews/*.png')]

def test_enlarger_needs_images_larger_than_crops(data, tmp_path):
    refuses(lambda: train(data, tmp_path, epochs=1, **ENLARGER), 'images of 16 x 16: load them at 96 px or more')

def test_no_classes_no_guidance(data):
    unlabelled = replace(data, labels=None, class_names=[])
    settings = Settings('attention', 16, 8, preset=dict(guidance=2., steps=8))
    config = make_config(settings, unlabelled)
    assert config.preset == dict(steps=8) and 'n_classes' not in config.net

def test_zero_snr_has_a_weight_of_its_own():
    "The default weight would be 0 at the end of that schedule."
    settings = Settings('attention', 16, 8, zero_snr=True)
    assert settings.weight == 'plain'
    assert Settings('attention', 16, 8).weight == 'min_snr'

def test_budget():
    assert str(Budget()) == '30 minutes' and str(Budget(1, 3)) == '1 minute or 3 epochs'

# Files

def test_log_that_was_cut_and_grew(tmp_path):
    log = LogFile(tmp_path/'log.jsonl')
    for step in range(10): log.append(dict(step=step, loss=1))
    log.cut(4)
    for step in range(5, 20): log.append(dict(step=step, loss=2))
    found = log.read()
    assert steps_of(found) == [*range(20)]
    assert [line['loss'] for line in found] == [1]*5 + [2]*15

def test_a_long_log_costs_no_more(tmp_path, monkeypatch):
    "A thousand lines are read of it, from its beginning to its end."
    lines = [json.dumps(dict(step=i, epoch=i/64, loss=1/i, seconds=i/3)) + '\n' for i in range(1, 30_001)]
    (tmp_path/'log.jsonl').write_text(''.join(lines))
    parsed, real = [], json.loads
    monkeypatch.setattr('flowerdiff.checkpoints.json.loads', lambda text: parsed.append(text) or real(text))
    x, y = plot_losses(tmp_path).axes[0].lines[0].get_data()
    assert 900 < len(parsed) <= 1000 and len(x) > 900
    assert x[0] < .1 and x[-1] > 468 and (x[1:] > x[:-1]).all()
    assert y == pytest.approx(1/(64*x))
    # a line that is cut off does no harm
    with (tmp_path/'log.jsonl').open('a') as f: f.write('{"step": 4, "lo')
    assert len(plot_losses(tmp_path).axes[0].lines[0].get_data()[0]) > 900

@pytest.mark.parametrize('tail', [b'{"step": 3', b'\xff\n', b'3\n', b'{}\n', b'{"step": "x"}\n', b'\n'])
def test_damaged_log(tmp_path, tail):
    file = tmp_path/'log.jsonl'
    file.write_bytes(b'{"step": 1}\n{"step": 2}\n' + tail + b'{"step": 4}\n')
    assert steps_of(read_log(tmp_path)) == [1, 2]
    LogFile(file).cut(9)
    assert steps_of(read_log(tmp_path)) == [1, 2]

def test_log_on_a_full_disk(tmp_path):
    log = LogFile(tmp_path/'none/log.jsonl')
    refuses(lambda: log.append(dict(step=1)), 'make room, then resume')

def test_only_own_parts_are_removed(data, tmp_path):
    folder = tmp_path/'run'
    own = ['model.safetensors', 'config.json', 'state-00000010.safetensors', 'run.json', 'loss.png', 'log.jsonl']
    own += ['best/model.safetensors', 'previews/00000010.png', 'snapshots/00000010.safetensors']
    others = ['movie.mkv', 'notes/model.safetensors', 'my-state-1.safetensors', 'previews/cat.png']
    left = [f'{name}.123.part' for name in others] + ['download.part', 'model.safetensors.part']
    for name in left + [f'{name}.123.part' for name in own]:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).touch()
    go(data, folder, epochs=1)
    found = [f.relative_to(folder).as_posix() for f in folder.rglob('*.part')]
    assert sorted(found) == sorted(left)

# Watching samples

@pytest.fixture
def watching(monkeypatch):
    "Let FD be the next of some values, measured at every save."
    monkeypatch.setattr('flowerdiff.runs.WATCH_EVERY', 0)
    def make(*values):
        values = iter(values)
        def measure(model):
            # as careless as it may be
            torch.manual_seed(7)
            assert model.sample(2).shape == (2, 3, 16, 16)
            return next(values)
        monkeypatch.setitem(WATCHES, 'fd', lambda images, device: measure)
    return make

def fds(folder): return [line.get('fd') for line in read_log(folder)]

def trained_steps(folder): return load(folder, 'cpu').config.training['steps']

def test_watching_changes_nothing_else(data, watching, tmp_path):
    watching(3., 1., 2., 4., 2., 3.)
    how = dict(epochs=2, save_minutes=0)
    go(data, tmp_path/'a', watch='fd', **how)
    go(data, tmp_path/'b', **how)
    assert weights(tmp_path/'a') == weights(tmp_path/'b')
    assert fds(tmp_path/'a') == [3., 1., 2., 4., 2., 3.]
    assert fds(tmp_path/'b') == [None]*6 and not (tmp_path/'b/best_fd').exists()
    assert trained_steps(tmp_path/'a/best_fd') == 2

def test_the_best_is_remembered(data, watching, tmp_path):
    watching(3., 1., 2.)
    go(data, tmp_path, epochs=1, save_minutes=0, watch='fd')
    watching(1.5, 1.2, .5)
    go(data, tmp_path, epochs=2, save_minutes=0, watch='fd', resume=True)
    assert Checkpoint(tmp_path).read()[0]['best_watched'] == [6, .5]
    watching(.7, .6, .8)
    go(data, tmp_path, epochs=3, save_minutes=0, watch='fd', resume=True)
    assert trained_steps(tmp_path/'best_fd') == 6
    # and may be left alone again
    go(data, tmp_path, epochs=4, save_minutes=0, resume=True)
    assert fds(tmp_path) == [3., 1., 2., 1.5, 1.2, .5, .7, .6, .8, None, None, None]

def test_watching_is_rare(data, watching, monkeypatch, tmp_path):
    "At the first save and at the end of the budget, if measurements take long."
    watching(3., 1.)
    monkeypatch.setattr('flowerdiff.runs.WATCH_EVERY', 1e9)
    go(data, tmp_path, epochs=2, save_minutes=0, watch='fd')
    assert fds(tmp_path) == [3.]*5 + [1.]

def test_watched_curve(tmp_path):
    for step, fd in enumerate((None, 3., 3., 1.)):
        seen = {} if fd is None else dict(fd=fd)
        LogFile(tmp_path/'log.jsonl').append(dict(step=step, epoch=step, loss=1., **seen))
    drawn, = plot_losses(tmp_path).axes[2].lines
    assert [*map(list, drawn.get_data())] == [[1, 2, 3], [3., 3., 1.]]

def test_watch_refused(data, watching, tmp_path):
    watching()
    refuses(lambda: go(data, tmp_path/'w', watch='fid'), "unknown watch 'fid': use fd")
    refuses(lambda: go(data, tmp_path/'w', watch='fd', model='enlarge', net={}), 'the enlarge model makes no images by itself')
    assert not (tmp_path/'w').exists()

LOCKER = '''
import sys, time
from pathlib import Path
from flowerdiff.checkpoints import lock_folder
with lock_folder(Path(sys.argv[1])):
    print('locked', flush=True)
    time.sleep(60)
'''

def test_lock(data, tmp_path):
    "A second process is refused; the lock of a dead one is taken over."
    folder = make_folder(tmp_path/'run')
    holder = subprocess.Popen([sys.executable, '-c', LOCKER, folder], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == 'locked\n'
        refuses(lambda: go(data, folder, epochs=1), 'another process trains into')
    finally:
        holder.kill()
        holder.wait()
    assert go(data, folder, epochs=1).step == 3

def test_folder(data, done):
    names = sorted(f.name for f in done.iterdir())
    assert names == ['.lock', 'config.json', 'levels.jsonl', 'log.jsonl', 'model.safetensors', 'previews',
                     'run.json', 'state-00000060.safetensors']
    steps = steps_of(read_log(done))
    assert steps == [1, 10, 20, 30, 40, 50, 60]
    line = read_log(done)[-1]
    assert [*line] == ['step', 'epoch', 'loss', 'pictures_per_second', 'seconds', 'skipped']
    meta, state = Checkpoint(done).read()
    assert {*meta} == {'how', 'places', 'step', 'seconds', 'budget', 'settings', 'checksum', 'data', 'pictures', 'source',
                       'split', 'held_out', 'best', 'threads', 'watch', 'best_watched'}
    assert {*state} == {'net', 'ema', 'opt', 'bad', 'marks'}

def test_all_states_damaged(data, done, tmp_path):
    for i in range(2): (tmp_path/f'state-0000000{i}.safetensors').write_bytes(b'x')
    refuses(lambda: go(data, tmp_path, resume=True), 'is whole: start again')

def test_notes(done):
    notes = json.loads((done/'run.json').read_text())
    # of the package, not of a repository that it happens to lie in
    assert notes['versions']['flowerdiff'] == __version__ and notes['settings']['lr'] == 1e-3 and notes['processes'] == 1

# Exact resume

def test_in_two_parts(data, done, tmp_path):
    "Looking at held-out images changes nothing either."
    others = replace(load_images('drawn:40', 16, verbose=False), source='others')
    go(data, tmp_path/'t', epochs=9, held_out=others)
    go(data, tmp_path/'t', epochs=20, resume=True, held_out=others)
    assert weights(tmp_path/'t') == weights(done)
    assert steps_of(read_log(tmp_path/'t')) == [1, 10, 20, 27, 30, 40, 50, 60]
    best = load(tmp_path/'t/best', 'cpu')
    assert best.config.training['steps'] == 60
    assert load(tmp_path/'t', 'cpu').sample(2).shape == (2, 3, 16, 16)

def test_damaged_state(data, done, tmp_path, capsys):
    "The one before takes over; what was logged later comes again."
    run = make(data, tmp_path/'d', Budget(epochs=20))
    for _ in range(2):
        for _ in range(15): run.train_step()
        run.save_state()
    newest = run.states.files()[0]
    newest.write_bytes(newest.read_bytes()[:-100])
    LogFile(tmp_path/'d/log.jsonl').append(dict(step=30))
    go(data, tmp_path/'d', resume=True)
    assert 'is damaged' in capsys.readouterr().err
    assert weights(tmp_path/'d') == weights(done)
    assert steps_of(read_log(tmp_path/'d')) == [20, 30, 40, 50, 60]

class Interrupted(Run):
    "A run that is told to stop before its 26th step."
    def train_step(self):
        if self.step == 25: signal.raise_signal(signal.SIGTERM)
        super().train_step()

def test_interrupted(data, done, tmp_path):
    run = make(data, tmp_path/'w', Budget(epochs=20), Interrupted)
    with pytest.raises(Stopped) as e: run.fit()
    assert e.value.code == 143 and 'stopped at step 26' in str(e.value)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    go(data, tmp_path/'w', resume=True)
    assert weights(tmp_path/'w') == weights(done)

def test_model_of_the_last_state(data, done, tmp_path):
    "A kill between the last state and its model is made good."
    go(data, tmp_path/'k', epochs=20)
    (tmp_path/'k/model.safetensors').write_bytes(b'old')
    go(data, tmp_path/'k', resume=True)
    assert weights(tmp_path/'k') == weights(done)

def test_full_disk(data, tmp_path, monkeypatch):
    "The states of before are still there."
    go(data, tmp_path/'f', epochs=2)
    before = {f.name: f.read_bytes() for f in tmp_path.glob('f/state*')}
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('flowerdiff.core.os.fsync', full)
    refuses(lambda: go(data, tmp_path/'f', epochs=3, resume=True), 'No space left')
    assert {f.name: f.read_bytes() for f in tmp_path.glob('f/state*')} == before
    assert not [*tmp_path.rglob('*.part')]

def test_held_states_go_later(data, tmp_path, monkeypatch):
    "A virus scanner that reads an old state stops no training."
    held, real = [True], Path.unlink
    def unlink(path, **kw):
        if held and path.name.startswith('state-'): raise PermissionError
        real(path, **kw)
    monkeypatch.setattr(Path, 'unlink', unlink)
    run = make(data, tmp_path/'h', kind=Quick)
    for step in range(9):
        if step == 8: held.clear()
        run.train_step()
        run.save_state()
    assert [int(f.stem[-8:]) for f in run.states.files()] == [9, 8]

class Exploding(Run):
    "A run whose network goes wrong after 12 steps."
    def train_step(self):
        if self.step == 12: self.net.register_forward_hook(lambda m, i, o: o*math.nan)
        super().train_step()

def test_lost_its_way(data, tmp_path):
    run = make(data, tmp_path/'x', Budget(epochs=200), Exploding)
    refuses(run.fit, 'not finite')

@pytest.mark.parametrize('error', [torch.OutOfMemoryError(), RuntimeError('MPS backend out of memory'), MemoryError()])
def test_out_of_memory(data, tmp_path, error):
    class Full(Run):
        def train_step(self): raise error
    run = make(data, tmp_path/'x', kind=Full)
    refuses(run.fit, 'with batch_size 8: use a smaller one')

def test_cpu_after_a_gpu(data, tmp_path, monkeypatch):
    "accelerate keeps the device that the first run of a notebook had."
    from accelerate.state import AcceleratorState
    go(data, tmp_path/'first', epochs=1)
    monkeypatch.setitem(AcceleratorState._shared_state, 'device', torch.device('cuda'))
    run = go(data, tmp_path/'second', epochs=1)
    assert run.device.type == 'cpu' and weights(tmp_path/'first') == weights(tmp_path/'second')

def test_stream(tmp_path, monkeypatch):
    "Interrupted in the middle of an epoch and of a block, it goes on with the very next image."
    from datasets import ClassLabel, Dataset, Features, Image as HFImage
    from PIL import Image
    # `datasets` waits so long at the end of a stream
    monkeypatch.setattr('datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN', 0, raising=False)
    flowers, kinds = draw_flowers(90, 16)
    images = [Image.fromarray(im.permute(1, 2, 0).numpy()) for im in flowers]
    features = Features(image=HFImage(), label=ClassLabel(num_classes=12))
    for k in range(3):
        rows = dict(image=images[k::3], label=kinds[k::3].tolist())
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path/f'many/{k}.parquet')
    stream = stream_images(str(tmp_path/'many'), 16, block=20, verbose=False)
    def streamed(name, **kw): return train(stream, tmp_path/name, device='cpu', **ATTENTION | dict(batch_size=6) | kw)
    streamed('whole', epochs=3)
    streamed('parts', epochs=1.4)
    run = streamed('parts', epochs=3, resume=True)
    assert weights(tmp_path/'whole') == weights(tmp_path/'parts')
    assert run.step == 45 and run.config.class_counts == [1]*12

def test_process_group_of_the_caller(data, tmp_path):
    "Training does not end what it has not begun."
    import torch.distributed as dist
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    try:
        go(data, tmp_path/'g', epochs=1)
        assert dist.is_initialized()
    finally:
        if dist.is_initialized(): dist.destroy_process_group()

def test_rate_between_two_looks_at_the_shared_clock(data, tmp_path):
    "Several processes read it every ten steps, but log at step 1 and at the end, too."
    run = make(data, tmp_path/'r', Budget(epochs=4))
    run.world = 2
    run.fit()
    log = read_log(tmp_path/'r')
    assert steps_of(log) == [1, 10, 12] and log[0]['seconds'] == 0
    assert all(0 < line['pictures_per_second'] < 1e6 for line in log)

# Snapshots

class Quick(Run):
    "A run that only counts its steps, and saves nothing but the state."
    def train_step(self):
        self.step += 1
        self.ema.update(self.net, self.step)

    def checkpoint(self): self.save_state()

def test_snapshots(data, tmp_path):
    "At every fiftieth of the budget, also of one that has grown."
    def steps_after(steps):
        run = make(data, tmp_path/'s', Budget(epochs=steps/3), Quick, tracks=[.05, .1])
        if run.states.files(): run.restore()
        run.fit()
        return [int(f.stem) for f in snapshot_files(tmp_path/'s')]
    steps = steps_after(400)
    assert len(steps) == 50 and steps[-1] == 400
    steps = steps_after(800)
    assert len(steps) == 75 and steps[-1] == 800

def test_lengths_that_snapshots_cannot_make(data, tmp_path):
    refuses(lambda: posthoc(tmp_path, .1), 'no snapshots in')
    go(data, tmp_path/'p', epochs=2, tracks=[.05, .1])
    refuses(lambda: posthoc(tmp_path/'p', .2), 'use a length nearer to one of [0.05, 0.1]')
    assert posthoc(tmp_path/'p', .07)

def test_later_snapshots_come_again(data, tmp_path):
    go(data, tmp_path/'p', epochs=4, tracks=[.1])
    kept = snapshot_files(tmp_path/'p')
    later = kept[-1].with_name('00000099.safetensors')
    later.write_bytes(kept[-1].read_bytes())
    go(data, tmp_path/'p', epochs=6, tracks=[.1], resume=True)
    assert not later.exists() and kept[-1].exists()

# Start from trained weights

@pytest.fixture(scope='module')
def first(data, tmp_path_factory):
    "A trained attention model."
    folder = tmp_path_factory.mktemp('init')/'first'
    kw = ATTENTION | dict(net=ATTENTION['net'] | dict(dropout=.1))
    train(data, folder, epochs=4, device='cpu', prediction='edm', preset=dict(guidance=2.), **kw)
    return folder

def begin(data, folder, init, **kw): return train(data, folder, epochs=1, batch_size=8, device='cpu', init=init, **kw)

def test_same_flowers(data, first, tmp_path):
    "All is taken over, and the error at once is what it was."
    run = begin(data, tmp_path/'second', first, lr=1e-6)
    assert run.settings.prediction == 'edm' and run.config.preset['guidance'] == 2
    before = read_log(first, 'levels')[-1]['train']['loss']
    assert run.eval_loss(data)['loss'] == pytest.approx(before, rel=.02)

def test_other_flowers(data, first, tmp_path, capsys):
    "Classes that both know keep their vectors."
    names = [*data.class_names[:4], 'rose', 'lily', *data.class_names[6:]]
    others = replace(data, class_names=names, key='others')
    kw = dict(lr=1e-9, net=dict(dropout=0.))
    run = begin(others, tmp_path/'third', first, **kw)
    table, old = run.net.embed_label.weight, load(first, 'cpu', torch.float32).net.embed_label.weight
    changed = (table - old).abs().amax(1) > 1e-5
    assert changed.nonzero().flatten().tolist() == [4, 5]
    assert 'labels of 10 of 12 classes' in capsys.readouterr().out
    # the call that began it goes on
    train(others, tmp_path/'third', epochs=2, batch_size=8, device='cpu', init=first, resume=True, **kw)

def test_says_what_starts_new(data, first, tmp_path, capsys):
    "Tensors for other channels cannot be taken over; classes are matched by name."
    grey = replace(data, images=data.images[:, :1], key='grey')
    run = begin(grey, tmp_path/'grey', first)
    assert run.config.channels == 1
    assert 'tensors; new: inp, out' in capsys.readouterr().out
    assert load(tmp_path/'grey', 'cpu').sample(2, steps=2).shape[1] == 1
    labels = data.labels.clone()
    labels[0] = 14
    begin(replace(data, class_names=[*data.class_names, *'abc'], labels=labels, key='more'), tmp_path/'more', first)
    said = capsys.readouterr().out
    assert 'labels of 12 of 15 classes' in said and '; new: none' in said

def test_file_of_weights_alone(data, first, tmp_path):
    unlabelled = replace(data, labels=None, class_names=[])
    run = begin(unlabelled, tmp_path/'fourth', str(first/'model.safetensors'))
    assert run.settings.prediction == 'edm' and run.config.preset == {}

def test_refused_starts(data, done, first, tmp_path):
    cut, alone = make_folder(tmp_path/'cut'), tmp_path/'alone.safetensors'
    (cut/'config.json').write_bytes((first/'config.json').read_bytes())
    (cut/'model.safetensors').write_bytes(weights(first)[:-1000])
    alone.write_bytes(weights(done))
    cases = [
        (dict(init=tmp_path/'no/where'), 'unknown model'),
        (dict(init=first/'previews'), 'holds no model'),
        (dict(init=cut), 'is damaged'),
        (dict(init=alone), 'another network'),
        (dict(init=done, model='attention'), 'was trained with model baseline'),
        (dict(init=first, prediction='v'), 'was trained with prediction edm'),
        (dict(init=first, net=dict(widths=[32, 64])), 'another network'),
        (dict(init=first/'log.jsonl'), 'is a file'),
    ]
    for kw, message in cases: refuses(lambda: begin(data, tmp_path/'refused', **kw), message)
    assert not (tmp_path/'refused').exists()

# Several processes, kills, sizes

CHILD = '''
import os, sys
from flowerdiff.data import load_images
from flowerdiff.runs import train
train(load_images('drawn:24', 16, verbose=False), sys.argv[1], epochs=float(sys.argv[2]), resume=True, save_minutes=0,
      device='cpu', model='baseline', batch_size=6, net=dict(widths=[8, 16]), tracks=[.1])
sys.stdout.flush()
os._exit(0)
'''
TEAM = '-m', 'torch.distributed.run', '--nproc_per_node', '2'

@pytest.fixture
def launch(tmp_path):
    "Run a script, in two processes if asked to; returns the lines it prints."
    def run(code, *args, team=False):
        file = tmp_path/'script.py'
        file.write_text(code)
        command = [sys.executable, *TEAM*team, file, *map(str, args)]
        env = os.environ | dict(OMP_NUM_THREADS='1')
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()
    return run

@slow
def test_two_processes(launch, tmp_path):
    "A whole run, and one that changes its number of processes: the same, but for rounding."
    said = launch(CHILD, tmp_path/'team', 6, team=True)
    assert sum(line.startswith('training') for line in said) == 1
    assert json.loads((tmp_path/'team/run.json').read_text())['processes'] == 2
    launch(CHILD, tmp_path/'parts', 3)
    launch(CHILD, tmp_path/'parts', 6, team=True)
    models = [load(tmp_path/name, 'cpu', torch.float32).net.state_dict() for name in ('team', 'parts')]
    assert Checkpoint(tmp_path/'parts').read()[0]['step'] == 24
    assert all(torch.allclose(v, models[1][k], atol=2e-2) for k, v in models[0].items())

DRIFT = '''
import os, time, torch
from pathlib import Path
from flowerdiff.core import make_folder
from flowerdiff.data import load_images
from flowerdiff.runs import Budget, Run, Settings
settings = Settings('baseline', 16, 8, warmup=1, tail=.9, net=dict(widths=[8, 16]))
images, folder = load_images('drawn:24', 16, verbose=False), make_folder(Path('drift'))
run = Run(settings, images, folder, Budget(minutes=.05), device='cpu')
clock, speed = time.monotonic, 1 + run.rank
time.monotonic = lambda: speed*clock()
run.checkpoint = lambda: None
run.fit()
weights = torch.cat([p.detach().flatten() for p in run.net.parameters()])
both = run.accelerator.gather(weights[None])
if run.main: print((both[0] - both[1]).abs().max().item(), flush=True)
run.accelerator.wait_for_everyone()
os._exit(0)
'''

@slow
def test_one_clock(launch):
    "A learning rate that follows the clock is the same everywhere, although the second clock runs twice as fast."
    assert float(launch(DRIFT, team=True)[-1]) == 0

def step_of(folder):
    "How far a run has come."
    meta, _ = Checkpoint(folder).read(with_state=False)
    return meta['step'] if meta else 0

@slow
def test_killed_at_any_moment(launch, tmp_path):
    "Killed twenty times, computing or writing a file, it ends with the same weights as one that was left alone."
    launch(CHILD, tmp_path/'calm', 10)
    rng, folder = np.random.default_rng(0), tmp_path/'killed'
    for _ in range(20):
        before = step_of(folder)
        child = subprocess.Popen([sys.executable, '-c', CHILD, folder, '10'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # some progress each time
        while child.poll() is None and step_of(folder) <= before: time.sleep(.05)
        time.sleep(rng.uniform(0, .8))
        child.kill()
        child.wait()
    launch(CHILD, folder, 10)
    assert weights(folder) == weights(tmp_path/'calm')
    assert not [*folder.rglob('*.part')]

@slow
@draws
def test_other_sizes(tmp_path, model):
    "Nothing knows of 64 pixels."
    large = load_images('drawn:8', 128, verbose=False)
    train(large, tmp_path/model, epochs=2, model=model, batch_size=8, device='cpu')
    assert load(tmp_path/model, 'cpu').sample(1, steps=2).shape == (1, 3, 128, 128)
