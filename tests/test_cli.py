"""The commands: what they refuse, and that they say the same as the library."""
import inspect, json, os, signal, struct, subprocess, sys, time, zlib
import numpy as np, pytest, torch
from PIL import Image
from flowerdiff import cli, options
from flowerdiff.config import ModelConfig, build
from flowerdiff.images import draw_flowers, make_grid_image, read_facts, read_image, to_float, to_uint8
from flowerdiff.models import LOW_SIGMA, Model, load, save

COMMANDS = 'sample', 'enlarge', 'train', 'eval', 'lab'

def write_header(file, w, h):
    "Write the beginning of a PNG: what it says of its size, and no pixels."
    def chunk(kind, data):
        check = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + check
    size = struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0)
    file.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size) + chunk(b'IDAT', b''))

def save_models(root):
    "Save a small model that draws, one that enlarges, and one that names it as its enlarger."
    how = dict(classes=['rose', 'iris', 'oxeye daisy'], net=dict(n_classes=3, widths=[16, 32]))
    config = ModelConfig(16, 'v', 'cosine', 'baseline', **how)
    chained = ModelConfig(16, 'v', 'cosine', 'baseline', enlarger='enlarger', **how)
    preset = dict(spacing=[.5, .1, 0.], clip=True)
    net = dict(widths=[8, 16, 24], n_emb=16)
    enlarger = ModelConfig(64, 'edm', 'cosine', 'enlarge', net=net, preset=preset, sigma_data=.1)
    unnamed = ModelConfig(16, 'v', 'cosine', 'baseline', net=dict(widths=[16, 32]))
    for name, config in dict(tiny=config, chained=chained, enlarger=enlarger, unnamed=unnamed).items():
        torch.manual_seed(0)
        network = build(config)
        torch.nn.init.normal_(network.out.weight, std=.05)
        save(network, config, root/name)

@pytest.fixture(scope='module')
def root(tmp_path_factory):
    "A folder with small models, images, and the commands as pip writes them."
    root = tmp_path_factory.mktemp('cli')
    save_models(root)
    (root/'file').touch()
    photo = draw_flowers(8, 24)[0][7:, :, :15, :22]
    make_grid_image(photo).save(root/'photo.png')
    write_header(root/'large.png', 1501, 1500)
    # Pillow warns of this size, and refuses the next
    write_header(root/'huge.png', 12_000, 9000)
    write_header(root/'vast.png', 30_000, 30_000)
    for name in COMMANDS:
        code = f'from flowerdiff.cli import {name}; {name}()'
        (root/f'flowerdiff_{name}').write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv('FLOWERDIFF_CACHE', str(root/'cache'))
        patch.setenv('FLOWERDIFF_DEVICE', 'cpu')
        yield root

def call(line):
    "Call a command in this process, with the options of a command line."
    name, *options = line.split()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [f'flowerdiff_{name}', *options])
        patch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
        return getattr(cli, name)()

def start(line, **env):
    "Start a command in a process of its own, with some variables."
    name, *options = line.split()
    command = [sys.executable, f'flowerdiff_{name}', *options]
    return subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8')

# what a user types, and what the message must say
WRONG = [
    ('sample --n 0', 'n is 0'),
    ('sample --n 1000000', 'n is 1000000: give a whole number from 1 to 10000'),
    ('sample --model gan', "unknown model 'gan'"),
    ('sample --sampler magic', "unknown sampler 'magic'"),
    ('sample --device gpu', "unknown device 'gpu'"),
    ('sample --classes rise', 'did you mean rose'),
    ('sample --classes rose --model unnamed', 'trained without classes'),
    ('sample --classes list --model unnamed', 'trained without classes'),
    ('sample --steps 0', 'steps is 0'),
    ('sample --sampler dmp', "unknown sampler 'dmp': use ddpm, ddim"),
    ('eval --sampler dmp', "unknown sampler 'dmp'"),
    ('sample --trajectory 30', '30'),
    ('sample --trajectory 0', '0'),
    ('sample --out file/x.png', 'cannot write to the folder file'),
    ('sample --out .', '--out . is a folder'),
    ('sample --out x.txt', '.png, .jpg, .jpeg, .webp'),
    ('sample --out ~nobody-of-this-name/x.png', 'cannot be a path'),
    ('sample --seed -1', 'seed is -1'),
    ('sample --seed abc', "argument --seed: invalid int value: 'abc' (--help lists the options)"),
    ('sample --colour red', 'unrecognized arguments: --colour red'),
    ('sample --out each', "unknown ending of an image file ''"),
    ('sample --out file/', 'cannot write to the folder file'),
    ('sample --out file/x/', 'cannot write to the folder file'),
    ('sample --out rows/ --trajectory 3', '--trajectory makes one image'),
    ('sample --size 16x', "size is '16x'"),
    ('sample --size 16x16x16', 'one number, or height and width'),
    ('sample --preset best', "unknown preset 'best'"),
    ('sample --guidance nan', 'nan'),
    ('sample --size 0', "size is '0'"),
    ('sample --size 65', 'images of 65 x 65: height and width must be multiples of 2'),
    ('sample --size 64', 'names no enlarger'),
    ('sample --size 8000', 'cannot make images of 8000 x 8000'),
    ('sample --size 64 --model chained --trajectory 3', '--trajectory shows images as they are drawn'),
    ('sample --model enlarger', 'this model enlarges, and draws nothing'),
    ('sample --from nowhere.png', 'nowhere.png cannot be read as an image: there is no such file'),
    ('sample --from tiny', 'tiny cannot be read as an image'),
    ('sample --from file', 'file cannot be read as an image'),
    ('sample --from photo.png --out photo.png', '--out photo.png is the image that is read'),
    ('sample --from photo.png --strength 0', 'strength is 0.0: give a number of at least 0.05 and at most 0.95'),
    ('sample --from photo.png --strength 1', 'strength is 1.0'),
    ('sample --from photo.png --strength nan', 'strength is nan'),
    ('sample --strength .6', '--strength 0.6 says how much to change an image: name one with --from'),
    ('sample --from photo.png --size 24', 'size is 24: variations are as large as the images, or four times as large'),
    ('sample --from photo.png --size 64', 'names no enlarger'),
    ('sample --from photo.png --classes rise', 'did you mean rose'),
    ('sample --from photo.png --model enlarger', 'this model enlarges, and draws nothing'),
    ('enlarge nowhere.png', 'nowhere.png cannot be read as an image'),
    ('enlarge file', 'file cannot be read as an image'),
    ('enlarge .', '. cannot be read as an image'),
    ('enlarge large.png', 'it has 1501 x 1500 pixels: shrink it to 2.25 million or fewer'),
    ('enlarge huge.png', 'it has 12000 x 9000 pixels'),
    ('enlarge vast.png', 'vast.png cannot be read as an image'),
    ('enlarge photo.png --out photo.png', '--out photo.png is the image that is read'),
    ('enlarge photo.png --out tiny/../photo.png', 'is the image that is read'),
    ('enlarge photo.png --out x.txt', '.png, .jpg, .jpeg, .webp'),
    ('enlarge photo.png --out tiny', '--out tiny is a folder'),
    ('enlarge photo.png --out file/x.png', 'cannot write to the folder file'),
    ('enlarge photo.png --model gan', "unknown model 'gan'"),
    ('enlarge photo.png --model tiny', 'names no enlarger'),
    ('enlarge photo.png --low_sigma 0', 'low_sigma is 0'),
    ('enlarge photo.png --seed -1', 'seed is -1'),
    ('enlarge photo.png --device gpu', "unknown device 'gpu'"),
    ('train --data nowhere', 'nowhere'),
    ('train --model gan', "unknown model 'gan'"),
    ('train --init gan', "unknown model 'gan'"),
    ('train --recipe gan', "'gan' is no recipe"),
    ('train --minutes 0', 'minutes is 0'),
    ('train --data drawn:8 --size 50 --out runs/x', '50'),
    ('train --data drawn:8 --size 0 --out runs/x', 'size is 0'),
    ('train --data drawn:8 --out file/x', 'cannot write to the folder file'),
    ('train --data drawn:8 --flip no --out runs/x', 'unrecognized arguments: no'),
    ('train --data drawn:8 --out tiny', 'tiny already holds a run'),
    ('train --data drawn:8 --recipe baseline --out runs/x', 'validation'),
    ('train --stream --held_out validation --out runs/x', 'name those to train on with --split'),
    ('train --data drawn:8 --watch fid --out runs/x', "unknown watch 'fid': use fd"),
    ('train --data drawn:8 --model enlarge --watch fd --out runs/x', 'makes no images by itself'),
    ('train --data drawn:1 --size 16 --watch fd --out runs/x', 'FD cannot be measured next to 1 image'),
    ('train --data drawn:8 --channels 2 --out runs/x', 'channels is 2: give 1 (grey), 3 (RGB) or 4'),
    ('train --data drawn:8 --background clear --out runs/x', "background is 'clear': give a colour"),
    ('train --data drawn:8 --fit squeeze --out runs/x', "unknown fit 'squeeze': use crop, pad, stretch"),
    ('train --data drawn:8 --size 64x --out runs/x', "size is '64x'"),
    ('eval --data nowhere', 'nowhere'),
    ('eval --extractor dinov2', "unknown extractor 'dinov2': use effnet_lite0, inception"),
    ('eval --n 2', 'n is 2'),
    ('eval --seeds 0', 'seeds is 0'),
    ('eval --against none', "unknown --against 'none'"),
    ('eval --sampler magic', "unknown sampler 'magic'"),
    ('eval --pictures nowhere', "'nowhere'"),
    ('eval --pictures a --pipeline b', 'choose one'),
    ('eval --pictures runs --steps 3', '--steps is for a model'),
    ('eval --pipeline runs --preset fast', '--preset is for a model'),
    ('eval --pictures runs --card c.md', '--card is for a model'),
    ('eval --json file/x.json', 'cannot write to the folder file'),
    ('eval --card file/c.md', 'cannot write to the folder file'),
    ('lab --port 99999', 'port is 99999'),
    ('lab --folder file/x', 'cannot write to the folder file'),
]

@pytest.mark.parametrize('line, message', WRONG, ids=[line for line, _ in WRONG])
def test_wrong(root, line, message, capsys):
    "A mistake is one line, exit status 2, and nothing written."
    name = line.split()[0]
    own = ' --model tiny' if name == 'sample' and '--model' not in line else ''
    before = sorted(p for p in root.rglob('*') if 'cache' not in p.parts)
    with pytest.raises(SystemExit) as stop: call(line + own)
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert said[-1].startswith(f'flowerdiff_{name}: ') and message in said[-1]
    assert len(said) == 1
    assert before == sorted(p for p in root.rglob('*') if 'cache' not in p.parts)

def test_names_over_several_lines():
    assert cli.split_names('Rose\nrose, iris', []) == ['Rose rose', 'iris']
    assert cli.split_names('ALL', ['rose']) == ['rose']

def test_help_is_light():
    "Nothing heavy is imported for --help."
    done = subprocess.run([sys.executable, '-c', 'import sys, flowerdiff.cli; print(*sys.modules)'], capture_output=True, text=True)
    assert not {'torch', 'numpy', 'matplotlib', 'datasets'} & {*done.stdout.split()}

# refused before PyTorch is imported
EARLY = [line for line, _ in WRONG if line in (
    'sample --n 0', 'sample --out .', 'sample --out x.txt', 'sample --seed -1', 'sample --model gan',
    'sample --classes rise', 'sample --steps 0', 'sample --sampler dmp', 'sample --guidance nan', 'sample --from file', 'sample --from nowhere.png',
    'sample --from photo.png --strength 1', 'sample --strength .6',
    'enlarge photo.png --out x.txt',
    'eval --n 2', 'eval --against none', 'eval --sampler dmp', 'eval --card file/c.md', 'lab --port 99999')]

def test_names_of_samplers():
    "They are written down, so that a mistake is told without them."
    # RePaint joins them in the notebook on guidance
    from flowerdiff import guidance, sampling
    assert sorted(cli.SAMPLER_NAMES) == sorted(sampling.SAMPLERS) and guidance.repaint

def test_refusals_are_light(root):
    "Nobody waits for PyTorch, only to be told of a mistake."
    code = """if True:
    import sys
    from flowerdiff import cli
    for line in sys.argv[1:]:
        name, *options = line.split()
        sys.argv = [f'flowerdiff_{name}', *options]
        try: getattr(cli, name)()
        except SystemExit as stop: assert stop.code == 2, line
        assert not {'torch', 'matplotlib', 'datasets'} & {*sys.modules}, line
    """
    assert len(EARLY) == 19
    subprocess.run([sys.executable, '-c', code, *EARLY], check=True)

def test_both_spellings(root):
    for option in ('--low-sigma', '--low_sigma'): call(f'enlarge photo.png --model enlarger {option} .3 --out x{option}.png')
    assert (root/'x--low-sigma.png').read_bytes() == (root/'x--low_sigma.png').read_bytes()
    assert options.spell_option('--no-flip', ['flip']) == options.spell_option('--no_flip', ['flip']) == '--no-flip'
    assert options.spell_option('--out=a-b.png', ['out']) == '--out=a-b.png'

def test_threads_wait_quietly(monkeypatch):
    "A command asks for it, and a call from Python does not change the process."
    seen = []
    def looks(): seen.append(os.environ.get('OMP_WAIT_POLICY'))
    command = options.command(looks)
    for argv in ('flowerdiff_looks', 'my_script.py'):
        monkeypatch.setattr(sys, 'argv', [argv])
        monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
        command()
    assert seen == ['PASSIVE', None]

def test_one_of_each_class(root, capsys):
    call('sample --model tiny --classes all --out each.png')
    assert '3 images' in capsys.readouterr().out
    images = load('tiny').sample(3, classes=['rose', 'iris', 'oxeye daisy'])
    assert np.array_equal(Image.open('each.png'), make_grid_image(images))
    call('sample --model tiny --classes list --out none.png')
    assert capsys.readouterr().out == 'rose\niris\noxeye daisy\n' and not (root/'none.png').exists()

def test_same_seed_same_file(root):
    for name in 'ab': call(f'sample --model tiny --n 6 --out {name}.png')
    assert (root/'a.png').read_bytes() == (root/'b.png').read_bytes()
    assert Image.open('a.png').size == (3*18 + 2, 2*18 + 2)

def test_says_how_many_evaluations(root, capsys):
    call('sample --model tiny --n 2 --preset fast --out c.webp')
    assert '2 images, 5 network evaluations each' in capsys.readouterr().out

def test_trajectory_ends_in_the_images(root):
    call('sample --model tiny --n 6 --steps 8 --trajectory 5 --out rows.png')
    call('sample --model tiny --n 6 --steps 8 --out grid.png')
    rows, grid = np.array(Image.open('rows.png')), np.array(Image.open('grid.png'))
    margin = rows.shape[1] - (6*18 + 2)
    def cell(image, x, y): return image[y + 2:y + 18, x + 2:x + 18]
    for i in range(6):
        last, own = cell(rows, margin + i*18, 4*18), cell(grid, i % 3*18, i//3*18)
        assert (last == own).all()

def test_sample_and_enlarge(root, capsys):
    "--size says how large, and the images are those of the library."
    call('sample --model chained --n 4 --size 64 --seed 3 --out four.png')
    assert '4 images, 10 + 2 network evaluations each' in capsys.readouterr().out
    images = load('chained').sample(4, size=64, seed=3)
    assert np.array_equal(Image.open('four.png'), make_grid_image(images))

def test_size_that_is_drawn(root, capsys):
    call('sample --model chained --n 1 --size 24 --out drawn.png')
    assert '1 image, 10 network evaluations each' in capsys.readouterr().out
    assert Image.open('drawn.png').size == (24, 24)

def varied(model, n, **how):
    "What the library makes of the photo."
    m = load(model)
    photo = to_float(read_image('photo.png', 16))[None]
    return m.variations(photo.repeat(n, 1, 1, 1), 1.376, **how)

def test_from_a_photo(root, capsys):
    "Twelve variations, those of the library; the photo stays as it is."
    before = (root/'photo.png').read_bytes()
    call('sample --model tiny --from photo.png --strength .6 --seed 3 --out varied.png')
    assert capsys.readouterr().out.startswith('12 images, 10 network evaluations each')
    assert np.array_equal(Image.open('varied.png'), make_grid_image(varied('tiny', 12, classes='any', seed=3)))
    call('sample --model tiny --from_=photo.png --strength=.6 --classes all --steps 4 --out each.png')
    flowers = ['rose', 'iris', 'oxeye daisy']
    assert np.array_equal(Image.open('each.png'), make_grid_image(varied('tiny', 3, classes=flowers, steps=4)))
    call('sample --model unnamed --from photo.png --n 2 --out two.png')
    assert Image.open('two.png').size == (38, 20) and (root/'photo.png').read_bytes() == before

def test_from_a_photo_in_rows(root):
    "The first row is the photo with noise."
    call('sample --model tiny --from photo.png --strength .1 --n 2 --trajectory 3 --out rows.png')
    rows = np.array(Image.open('rows.png')).astype(int)
    margin = rows.shape[1] - (2*18 + 2)
    first = rows[2:18, margin + 2:margin + 18]
    assert abs(first - read_image('photo.png', 16).permute(1, 2, 0).numpy()).mean() < 30

def test_from_a_photo_and_enlarged(root, capsys):
    "Into a folder, in batches, and the job goes on."
    line = 'sample --model chained --from photo.png --strength .6 --size 64 --classes iris --out large/'
    call(f'{line} --n 2')
    call(f'{line} --n 3')
    images = load('chained').enlarge(varied('chained', 3, classes='iris'))
    for i, image in enumerate(to_uint8(images)):
        close = read_image(root/f'large/{i:06}.png').int() - image.int()
        assert close.abs().max() <= 1
    assert read_facts(root/'large/000002.png')['from'] == 'photo.png'
    for other in ('--strength .7', '--from file'):
        with pytest.raises(SystemExit): call(f'{line} {other}')
    assert len(files_of(root/'large')) == 3

def test_help_calls_it_from(monkeypatch, capsys):
    "Not from_, which Python wants."
    monkeypatch.setenv('COLUMNS', '120')
    with pytest.raises(SystemExit): call('sample --help')
    said = capsys.readouterr().out
    assert '--from FROM ' in said and 'from_' not in said.lower()

def test_enlarge(root, capsys):
    "The image of the library, next to the original, which stays as it is."
    before = (root/'photo.png').read_bytes()
    call('enlarge photo.png --model enlarger --seed 2')
    said = capsys.readouterr()
    assert said.out.startswith('photo.png: 22 x 15 px to 88 x 60 px in') and not said.err
    images = to_float(read_image('photo.png'))[None]
    wanted = make_grid_image(load('enlarger').enlarge(images, seed=2))
    assert np.array_equal(Image.open('photo-4x.png'), wanted)
    assert (root/'photo.png').read_bytes() == before
    # a model that names an enlarger will do
    call('enlarge photo.png --model chained --seed 2 --out other.webp')
    assert Image.open('other.webp').size == (88, 60)

@pytest.mark.parametrize('mode', ('L', 'RGBA', 'P', '1'))
def test_enlarge_kinds_of_images(root, mode):
    Image.open('photo.png').convert(mode).save('kind.png')
    call('enlarge kind.png --model enlarger --out kind.jpg')
    assert Image.open('kind.jpg').size == (88, 60)

def test_enlarge_turns_upright(root):
    "As the camera noted."
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open('photo.png').save('turned.jpg', exif=exif)
    call('enlarge turned.jpg --model enlarger')
    assert Image.open('turned-4x.png').size == (60, 88)

def test_enlarge_by_the_bundled_model(root):
    "In a process of its own, as a user does."
    running = start('enlarge photo.png --out mine.png')
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0 and not err and len(out.splitlines()) == 1
    assert Image.open('mine.png').size == (88, 60)

def test_noise_as_in_the_library():
    assert inspect.signature(cli.enlarge).parameters['low_sigma'].default == LOW_SIGMA

def test_stop(root):
    "A signal saves the state, and ends in the exit status that shells have for it."
    training = start('train --data drawn:48 --size 16 --model baseline --batch_size 16 --minutes 9 --out runs/stopped')
    log = root/'runs/stopped/log.jsonl'
    try:
        end = time.monotonic() + 120
        while not log.exists() and time.monotonic() < end: time.sleep(.2)
        training.send_signal(signal.SIGTERM)
        _, said = training.communicate(timeout=120)
    finally: training.kill()
    assert training.returncode == 128 + signal.SIGTERM
    assert said.strip().splitlines()[-1].startswith('flowerdiff_train: stopped at step')
    assert list((root/'runs/stopped').glob('state-*.safetensors'))

def files_of(folder): return {f.name: f.read_bytes() for f in folder.iterdir()}

def test_images_one_by_one(root, capsys, monkeypatch):
    "As they come: numbered, with notes, the images of the library; an interrupted job goes on."
    monkeypatch.setattr('flowerdiff.guidance.BatchSize.__init__', lambda self, n: setattr(self, 'n', 4))
    call('sample --model tiny --n 10 --seed 3 --classes rose,iris --out each/')
    made = files_of(root/'each')
    assert [*made] and sorted(made) == [f'{i:06}.png' for i in range(10)]
    images = load('tiny').sample(10, seed=3, classes=['rose', 'iris'])
    for i, image in enumerate(to_uint8(images)):
        file = root/f'each/{i:06}.png'
        close = read_image(file).int() - image.int()
        assert close.abs().max() <= 1
        facts = read_facts(file)
        assert (facts['seed'], facts['number'], facts['class']) == ('3', str(i), ['rose', 'iris'][i % 2])
        assert facts['model'] == 'tiny' and facts['sampling'].startswith('dpmpp_2m, 10 steps')
    # two were not written yet, and two more are wanted
    for i in (5, 9): (root/f'each/{i:06}.png').unlink()
    (root/'each/000004.png').touch()
    sampled, real = [], Model.sample
    monkeypatch.setattr(Model, 'sample', lambda m, n, **how: sampled.append((how['start'], n)) or real(m, n, **how))
    call('sample --model tiny --n 12 --seed 3 --classes rose,iris --out each/')
    assert sampled == [(4, 4), (8, 4)] and len(files_of(root/'each')) == 12
    assert made.items() <= files_of(root/'each').items()
    capsys.readouterr()
    call('eval --pictures each --data drawn:26')
    assert json.loads(capsys.readouterr().out.splitlines()[-1])['n'] == 12

@pytest.mark.parametrize('other', ['--seed 4', '--steps 3', '--classes iris', '--size 24', '--model chained'])
def test_a_folder_belongs_to_one_job(root, capsys, other):
    call('sample --model tiny --n 2 --out one/')
    before = files_of(root/'one')
    with pytest.raises(SystemExit) as stop: call(f'sample --model tiny --n 4 --out one/ {other}')
    assert stop.value.code == 2 and before == files_of(root/'one')
    assert '000000.png was made with' in capsys.readouterr().err

def test_a_folder_of_other_images(root):
    (root/'mine').mkdir()
    Image.new('RGB', (8, 8)).save(root/'mine/me.png')
    with pytest.raises(SystemExit): call('sample --model tiny --n 2 --out mine/')
    assert [*files_of(root/'mine')] == ['me.png']

LITTLE = '--model baseline --batch_size 8 --size 32x48'

def test_forms(root, capsys):
    "Grey, with transparency, not square, padded, never mirrored: all are kept with the run, and sampled and judged so."
    for channels, mode in ((1, 'L'), (4, 'RGBA')):
        out = f'runs/form{channels}'
        call(f'train --data drawn:24 {LITTLE} --epochs 1 --channels {channels} --fit pad --no-flip --out {out}')
        # what is not given is taken from the run that is there
        call(f'train --epochs 2 --resume --out {out}')
        m = load(out)
        assert m.shape == (channels, 32, 48) and not m.config.training['settings']['flip']
        assert m.config.training['steps'] == 6 and m.config.training['data']['how'] == dict(channels=channels, fit='pad')
        call(f'sample --model {out} --n 3 --steps 2 --out form{channels}/')
        image = Image.open(f'form{channels}/000002.png')
        assert (image.mode, image.size) == (mode, (48, 32))
        call(f'sample --model {out} --n 2 --steps 2 --out form{channels}.jpg')
        call(f'eval --model {out} --data drawn:24 --n 8 --steps 2 --seeds 1')
        for wrong in ('--flip', '--fit crop', '--channels 3', '--size 32'):
            with pytest.raises(SystemExit): call(f'train --epochs 2 --resume --out {out} {wrong}')
    grid = read_image('form1.jpg').int()
    assert (grid - grid[:1]).abs().max() <= 1

def test_new_images(root, capsys):
    "With dashes or underscores."
    call(f'train --data drawn:24 {LITTLE} --epochs 1 --out runs/grow')
    for n, option in ((26, '--accept-new-data'), (28, '--accept_new_data')):
        again = f'train --data drawn:{n} --epochs 2 --resume --out runs/grow'
        with pytest.raises(SystemExit): call(again)
        assert 'images were added (2) since runs/grow was begun' in capsys.readouterr().err
        call(f'{again} {option}')

def test_no_code_page_no_git_no_home(root):
    "What is written and printed is UTF-8, and needs no other program."
    for i, flower in enumerate(draw_flowers(8, 16)[0]):
        file = root/f'Blüten/{"花é"[i % 2]}/{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        make_grid_image(flower[None]).save(file)
    env = dict(PATH=str(root/'none'), HOME=str(root/'none'), PYTHONIOENCODING='ascii')
    running = start('train --data Blüten --size 16 --model baseline --batch_size 8 --epochs 1 --out runs/Blüten', **env)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 0
    assert 'Blüten: 8 images at 16 px, 2 classes' in said
    assert json.loads((root/'runs/Blüten/config.json').read_text('utf-8'))['classes'] == ['é', '花']

def test_resume_with_held_out(root):
    "What is not given is taken from the run that is there."
    how = '--model baseline --batch_size 16 --out runs/r'
    call(f'train --data drawn:48 --size 16 --epochs 1 {how}')
    call('train --out runs/r --resume --epochs 2')
    notes = json.loads((root/'runs/r/run.json').read_text())
    assert notes['settings']['size'] == 16 and notes['budget']['epochs'] == 2

def test_folder_is_judged_like_its_model(root, capsys):
    "The same images from a model and from a folder have the same metrics."
    call('eval --model tiny --data drawn:26 --n 12 --seeds 1 --steps 4 --card card.md')
    model = json.loads(capsys.readouterr().out.splitlines()[-1])
    images = to_uint8(load('tiny').sample(12, steps=4)).permute(0, 2, 3, 1).numpy()
    os.mkdir('made')
    for i, image in enumerate(images): Image.fromarray(image).save(f'made/{i:02}.png')
    call('eval --pictures made --data drawn:26 --n 12')
    folder = json.loads(capsys.readouterr().out.splitlines()[-1])
    kids = [found['figures']['kid']['mean'] for found in (model, folder)]
    assert kids[0] == pytest.approx(kids[1], abs=1e-6)
    assert (model['n'], model['nfe'], model['floor']['n']) == (12, 4, 12)
    assert (root/'card.md').read_text().startswith('---\nlibrary_name: flowerdiff')

def test_lab_keeps_a_notebook(root, monkeypatch):
    "A copy that is there already stays as it is. The server gets Ctrl-C and SIGTERM, and only while it is there."
    class Server:
        returncode, signals = None, []
        def __init__(self, command, cwd): self.command, self.cwd = command, cwd
        def __enter__(self): return self
        def __exit__(self, *error): pass
        def terminate(self): self.returncode = 0
        def wait(self):
            self.signals.append(signal.SIGINT)
            if len(self.signals) % 2: raise KeyboardInterrupt
            signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(cli.subprocess, 'Popen', Server)
    before = signal.getsignal(signal.SIGTERM)
    for text in (None, 'mine'):
        if text: (root/'lab/play.ipynb').write_text(text)
        with pytest.raises(SystemExit) as stop: call('lab --folder lab')
        assert stop.value.code == 0
    assert (root/'lab/play.ipynb').read_text() == 'mine'
    assert len(Server.signals) == 4 and signal.getsignal(signal.SIGTERM) == before
