"Guards of flowerdiff.data: what is refused and in which words, what is said, the cache, exact streams."
import itertools, json, operator, subprocess, sys
from types import SimpleNamespace
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, pytest, torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image as HFImage, IterableDatasetDict, List, Value
from pathlib import Path
from PIL import Image
import flowerdiff.data as data, flowerdiff.sources as sources
from flowerdiff.core import FlowerDiffError
from flowerdiff.data import list_splits, load_images, read_folder, stream_images, without_split
from flowerdiff.sources import DEFAULT_SOURCE, open_source, split_name
from flowerdiff.images import DRAWN_NAMES, draw_flowers, read_image

FLOWERS, LABELS = draw_flowers(24, 16)

@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    "Each test works in an empty folder, with a cache of its own."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('FLOWERDIFF_CACHE', str(tmp_path/'cache'))
    monkeypatch.delenv('FLOWERDIFF_DATA', raising=False)
    # `datasets` waits so long when a stream is left
    monkeypatch.setattr('datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN', 0, raising=False)
    return tmp_path

def pil(i): return Image.fromarray(FLOWERS[i].permute(1, 2, 0).numpy())

def save(file, i=0):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    pil(i).save(file, quality=90)

def table(rows, names=DRAWN_NAMES, label=None, **columns):
    "A table of the flowers with the numbers `rows`, with other columns as given."
    label = LABELS[list(rows)].tolist() if label is None else label
    features = Features(image=HFImage(), label=ClassLabel(names=names) if names else Value('int64'))
    out = Dataset.from_dict(dict(image=[pil(i) for i in rows], label=label), features=features)
    for name, values in columns.items(): out = out.add_column(name, values)
    return out

def write(table, file):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(file)

def load(source, size=16, split=None, **how): return load_images(source, size, split, verbose=False, **how)
def stream(source, size=16, split=None, **kw): return stream_images(source, size, split, verbose=False, **kw)

# ---- what is refused ----
def no_network(*args, **kw): raise OSError('no network')

def write_misfit(file):
    "Write a table whose images are not stored as their type says, and whose last label has no name."
    stored = table([0, 1, 2]).data.table
    data = [cell['bytes'] for cell in stored['image'].to_pylist()]
    columns = pa.table(dict(image=data, label=[0, 1, 7]))
    features = table([0], ['a', 'b'], [0]).data.table.schema.metadata
    pq.write_table(columns.replace_schema_metadata(features), file)

REFUSED = [
    (lambda: load('nowhere'), "'nowhere' is no folder"),
    (lambda: load('./nowhere.parquet'), "is no folder, parquet file or Hub data set"),
    (lambda: load('photos/0.png'), "'photos/0.png' is no folder"),
    (lambda: load('x'*5000), 'cannot be a path'),
    (lambda: load('empty'), "no images in 'empty': give"),
    (lambda: load('letters'), "no images in 'letters' (not an image (2): a.doc, b.doc): give"),
    (lambda: load('broken'), 'none of the 1 images can be used: cannot be read: cannot identify image file (1): x.png'),
    (lambda: load('half.parquet'), 'half.parquet cannot be read as a table of images'),
    (lambda: load('words.parquet'), 'no image column (its columns: text)'),
    (lambda: load('photos', 3), 'size is 3'),
    (lambda: load('photos', 2.5), 'size is 2.5'),
    (lambda: load('photos', '64 by 96'), "size is '64 by 96': give pixels"),
    (lambda: load('photos', '3x96'), "size is '3x96'"),
    (lambda: load('photos', fit='cut'), "unknown fit 'cut'"),
    (lambda: load('drawn:3', channels=2), 'channels is 2'),
    (lambda: load('photos', 16, 'train'), "photos has no split 'train' (it has: none)"),
    (lambda: load('good.parquet', 16, ['train']), "split is ['train']: give text"),
    (lambda: load('good.parquet', 16, 'train+test'), "no split 'train+test' (it has: train, validation)"),
    (lambda: load('drawn:0'), "in 'drawn:0' is 0"),
    (lambda: load('drawn', 16, 'train'), "no split 'train'"),
    (lambda: load('me/flowers'), "or use a folder, a parquet file, 'torchvision' or 'drawn'"),
    (lambda: load('torchvision'), "download Flowers102 (no network): check the network, or use 'drawn'"),
    (lambda: without_split('good.parquet', 16, 'train+val'), "no split besides 'train+val'"),
    (lambda: stream('photos'), "'photos' cannot be streamed"),
    (lambda: stream('drawn'), "'drawn' cannot be streamed"),
    (lambda: stream('half.parquet'), 'half.parquet cannot be read as a table of images'),
    (lambda: stream('good.parquet', 16, 'test'), "no images in split 'test'"),
    (lambda: stream('train.parquet', 16, 'test'), "no images in split 'test'"),
    (lambda: stream('empty.parquet'), "empty.parquet has no images in split 'any': give another"),
    (lambda: stream('misfit.parquet'), 'misfit.parquet cannot be read as a table of images (Class label 7'),
    (lambda: stream('good.parquet', block=0), 'block is 0'),
    (lambda: stream('unlabelled.parquet'), 'or none has a label'),
    (lambda: next(stream('train.parquet').batches(2, rank=9, world=10)), 'process 9 of 10 gets no images'),
]

def test_refused(place, monkeypatch):
    "Each mistake is one line that says what, which value, and what to do."
    monkeypatch.setattr('huggingface_hub.HfApi.repo_info', no_network)
    monkeypatch.setattr(sources, 'Flowers102', no_network)
    for i in range(3): save(f'photos/{i}.png', i)
    Path('empty').mkdir()
    for name in ('broken', 'letters'): Path(name).mkdir()
    for name in 'ab': Path(f'letters/{name}.doc').touch()
    Path('broken/x.png').write_bytes(b'')
    write(table(range(4), split=['train', 'train', 'val', 'val']), 'good.parquet')
    write(table(range(3)), 'train.parquet')
    write(table(range(3), label=[-1]*3), 'unlabelled.parquet')
    write(table([]), 'empty.parquet')
    write_misfit('misfit.parquet')
    Path('half.parquet').write_bytes(Path('good.parquet').read_bytes()[:400])
    Dataset.from_dict(dict(text=['a'])).to_parquet('words.parquet')
    for i, (call, message) in enumerate(REFUSED):
        with pytest.raises(FlowerDiffError) as e: call()
        assert message in str(e.value) and '\n' not in str(e.value), (i, str(e.value))

# ---- splits, then labels ----
def test_splits_are_chosen_before_labels_are_judged(capsys):
    "Images without a label are left out beside those with one, and are a set of their own when asked for."
    for i in range(4): save(f'd/train/{"ab"[i % 2]}/{i}.png', i)
    for i in (4, 5): save(f'd/test/{i}.png', i)
    d = load('d', 16, 'train')
    assert d.labels.tolist() == [0, 0, 1, 1]
    assert not capsys.readouterr().err
    d = load('d')
    assert (d.class_names, d.splits) == (['a', 'b'], dict(train=4))
    assert capsys.readouterr().err == 'left out, no label, unlike others (2): test/4.png, test/5.png\n'
    d = load('d', 16, 'test')
    assert (d.labels, d.class_names, d.splits) == (None, [], dict(test=2))
    # what is left out is a split all the same
    assert list_splits('d') == dict(test=2, train=4)
    assert without_split('d', 16, 'test') == 'train'

@pytest.mark.parametrize('split', ['training_set', 'train', 'Train+Test_Set'])
def test_splits_by_their_names_in_the_source(split):
    for i in range(4): save(f'd/training_set/{"ab"[i % 2]}/{i}.png', i)
    save('d/test_set/a/5.png')
    assert len(load('d', 16, split)) == 4 + ('+' in split)

def test_official_names():
    "Class folders 1 to 102 are Oxford 102 Flowers."
    for i in range(1, 103): save(f'd/{i}/a.png', i % 24)
    d = load('d')
    assert d.class_names[0] == 'pink primrose' and d.class_names[101] == 'blackberry lily'
    assert d.labels.tolist() == [int(n) - 1 for n in sorted(map(str, range(1, 103)))]

def test_told(capsys):
    "What is left out, skipped or unlabelled is named."
    for i in range(2): save(f'd/{"ab"[i]}/{i}.png', i)
    save('d/stray.png', 2)
    Path('d/notes.txt').write_text('milk')
    Path('d/b/broken.jpg').write_bytes(b'')
    whole = Path('d/a/0.png').read_bytes()
    for i in range(5): Path(f'd/a/cut{i}.png').write_bytes(whole[:60 + 9*i])
    assert load('d').labels.tolist() == [0, 1]
    told = capsys.readouterr().err.splitlines()
    assert told == ['left out, not an image (1): notes.txt', 'left out, no label, unlike others (1): stray.png',
                    'left out, cannot be read: image file is truncated (5): a/cut0.png, a/cut1.png, a/cut2.png, ...',
                    'left out, cannot be read: cannot identify image file (1): b/broken.jpg']
    save('p/1.png')
    Path('p/bad\n\x1b[31m.txt').touch()
    load('p')
    assert capsys.readouterr().err == 'left out, not an image (1): bad\\n\\x1b[31m.txt\n'
    write(table(range(2)), 'q/x.parquet')
    save('q/beside.png')
    load('q')
    assert 'left out, beside the parquet files (1): beside.png' in capsys.readouterr().err

def test_said_once(capsys):
    "In one process, whatever is loaded of a source; and again in another, though the images come from the cache."
    for i in range(4): save(f'd/{"train" if i % 2 else "val"}/{i}.png', i)
    Path('d/notes.txt').touch()
    for split in (None, 'train', 'validation', None): load('d', 16, split)
    assert capsys.readouterr().err == 'left out, not an image (1): notes.txt\n'
    data._said.clear()
    load('d', 16, 'train')
    assert capsys.readouterr().err == 'left out, not an image (1): notes.txt\n'

# ---- images of a set ----
def save_grey(file, value, kind):
    "Save an image of one grey."
    Path(file).parent.mkdir(exist_ok=True)
    values = np.full((16, 16), value, kind)
    Image.fromarray(values).save(file)

def brightest(source):
    images = load(source).images
    return images.amax((1, 2, 3)).tolist()

def test_twelve_bits_of_sixteen(capsys):
    "A set is scaled as one: an image that is dark beside others stays dark."
    for i, value in enumerate((4095, 409, 4000)): save_grey(f'd/{i}.png', value, np.uint16)
    assert brightest('d') == [255, 25, 249]
    assert 'scaled, because not all 16 bits are used: 4,095 is white' in capsys.readouterr().err
    save_grey('d/3.png', 65535, np.uint16)
    assert brightest('d') == [16, 2, 16, 255]
    assert 'scaled' not in capsys.readouterr().err

def test_floats_of_a_set():
    for i, value in enumerate((1., .2)): save_grey(f'd/{i}.tif', value, np.float32)
    for i, value in enumerate((200., 3.)): save_grey(f'e/{i}.tif', value, np.float32)
    assert brightest('d') == [255, 51]
    assert brightest('e') == [200, 3]

def test_hints(capsys):
    "What is dark or grey is said."
    for i in range(2): save_grey(f'd/{i}.png', 9 + i, np.uint8)
    load('d')
    told = capsys.readouterr().err
    assert 'everything is dark, no value is above 10 of 255: if' in told
    assert 'all images are grey' in told
    load('d', channels=1)
    assert 'grey' not in capsys.readouterr().err

@pytest.mark.parametrize('source', ['d', 'x.parquet', 'drawn:3'])
@pytest.mark.parametrize('how', [dict(), dict(channels=1), dict(channels=4), dict(fit='pad', background='red'), dict(fit='stretch')])
def test_form(source, how):
    "Each source gives images of any size and form, and keeps each form in the cache."
    for i in range(3): save(f'd/{i}.png', i)
    write(table(range(3)), 'x.parquet')
    channels = how.get('channels', 3)
    for size, shape in ((16, (16, 16)), ('12', (12, 12))):
        d = load(source, size, **how)
        assert d.images.shape == (3, channels, *shape)
        assert d.size == shape[0]
    for size in ((8, 20), [8, 20], '8x20'):
        d = load(source, size, **how)
        assert d.images.shape == (3, channels, 8, 20)
        assert d.size == (8, 20)
    assert '8x20 px' in repr(d)
    if source != 'x.parquet': return
    s = stream(source, '8x20', **how)
    assert s.images.shape == (3, channels, 8, 20)

def test_each_form_has_a_place_in_the_cache():
    save('d/1.png', 1)
    forms = dict(), dict(channels=4), dict(fit='pad'), dict(fit='pad', background='red')
    for _ in range(2):
        keys = {load('d', (8, 20), **how).key for how in forms}
        assert len(keys) == 4

def test_one_reader():
    "A set, an evaluation, and a single file see the same pixels, and the same files."
    for i in range(3): save(f'd/{"ab"[i % 2]}/{i}.png', i)
    save('d/.hidden.png')
    Path('d/._0.png').write_bytes(b'a note of the Finder')
    Path('d/broken.png').write_bytes(b'')
    clear = pil(5).convert('RGBA')
    clear.putalpha(40)
    clear.save('d/a/clear.png')
    whole = torch.stack(read_folder('d'))
    files = 'a/0.png', 'a/2.png', 'a/clear.png', 'b/1.png'
    alone = [read_image(f'd/{file}') for file in files]
    assert torch.equal(whole, torch.stack(alone))
    assert torch.equal(whole, load('d').images)

def test_prints_in_the_first_process_only(capsys, monkeypatch):
    load_images('drawn:3', 16)
    assert capsys.readouterr().out == 'drawn:3: 3 images at 16 px, 12 classes\n'
    monkeypatch.setenv('RANK', '1')
    load_images('drawn:3', 16)
    assert not capsys.readouterr().out

# ---- the cache and the key ----
def test_key_stays():
    "A run continues only if the key is what it was: a new algorithm would break off all runs."
    assert data.fingerprint(torch.arange(12, dtype=torch.uint8), [0, 1]) == '3f0f112a39648542'
    write(table(range(4), names=None), 'x.parquet')
    assert load('x.parquet').key == data.fingerprint(FLOWERS[:4], [0, 1, 2, 3])
    save('d/1.png', 1)
    assert load('d').key == data.fingerprint(FLOWERS[1:2], None)
    assert load('drawn:3').key == data.fingerprint(FLOWERS[:3], [0, 1, 2])

def test_marks():
    "An image is marked by its name and class; a new one beside it changes no other."
    for i in range(4): save(f'd/{"ab"[i % 2]}/{i}.png', i)
    before = load('d').marks
    save('d/a/00.png', 9)
    after = load('d').marks
    assert len({*after[:,0].tolist()}) == 5
    assert {*map(tuple, before.tolist())} < {*map(tuple, after.tolist())}
    assert before[0, 1] == pytest.approx(FLOWERS[0].float().mean().item(), abs=.01)
    # another class beside them is another set
    save('d/c/9.png', 9)
    assert not {*after[:,0].tolist()} & {*load('d').marks[:,0].tolist()}

def test_subset():
    "Everything that belongs to an image goes with it."
    d = load_images('drawn:8', 16, verbose=False)
    for rows in ([6, 2], torch.tensor([6, 2]), np.array([6, 2])):
        part = d.subset(rows)
        for name in ('images', 'labels', 'marks'): assert torch.equal(getattr(part, name), getattr(d, name)[[6, 2]])
    assert part.key == d.subset([6, 2]).key != d.subset([2, 6]).key
    odd = torch.arange(8) % 2 == 1
    assert len({d.key, d.subset(odd).key, d.subset(~odd).key}) == 3
    save('d/1.png')
    assert load('d').subset(slice(1)).labels is None

def test_cache(place, monkeypatch):
    for i in range(4): save(f'd/{"ab"[i % 2]}/{i}.png', i)
    first = load('d', 8)
    with monkeypatch.context() as m:
        m.setattr(data, 'decode', None)
        again = load('d', 8)
    for name, value in vars(first).items():
        same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
        assert same(getattr(again, name), value), name

def test_cache_is_left_when_something_changes(place, monkeypatch):
    "Another file, size or format makes another cache file; a comment in the code does not."
    def files(): return len([*(place/'cache').iterdir()])
    save('d/1.png', 1)
    load('d')
    assert files() == 1
    save('d/2.png', 2)
    assert len(load('d')) == 2 and files() == 2
    load('d', 8)
    assert files() == 3
    monkeypatch.setattr(data, 'CACHE_FORMAT', 99)
    load('d', 8)
    assert files() == 4

def full(*args): raise RuntimeError('file write failed')

@pytest.mark.parametrize('refuse', ['folder', 'full'])
def test_a_disk_that_refuses_is_a_warning(refuse, monkeypatch, capsys):
    Path('file').write_text('')
    if refuse == 'folder': monkeypatch.setenv('FLOWERDIFF_CACHE', 'file/cache')
    else: monkeypatch.setattr(torch, 'save', full)
    assert len(load('drawn:3')) == 3
    assert 'will be decoded again next time' in capsys.readouterr().err
    assert not list(Path('.').rglob('*.part'))

def test_default_source(monkeypatch):
    monkeypatch.setenv('FLOWERDIFF_DATA', 'drawn:5')
    assert len(load(None)) == 5
    monkeypatch.delenv('FLOWERDIFF_DATA')
    assert open_source(None) == (DEFAULT_SOURCE, 'hub', None, None)

# ---- tables ----
def test_sizes_of_one_set():
    "Of the same images at several sizes, the nearest from above is read, else the largest."
    for size in (8, 16):
        images, labels = draw_flowers(5, size)
        rows = dict(image=[Image.fromarray(x.permute(1, 2, 0).numpy()) for x in images], image_id=range(5))
        write(Dataset.from_dict(rows, features=Features(image=HFImage(), image_id=Value('int64'))), f'd/{size}.parquet')
    files = sorted(Path('d').iterdir())
    chosen = [[f.stem for f in sources.choose_tables(files, (size, size))] for size in (4, 8, 9, 16, 99)]
    assert chosen == [['8'], ['8'], ['16'], ['16'], ['16']]
    assert torch.equal(load('d').images, FLOWERS[:5])

def test_shards():
    "Shards are joined in order, classes of one name become one, and names of files tell the split."
    write(table(range(2), ['rose', 'iris'], [0, 1]), 'd/train-00000-of-00002.parquet')
    write(table(range(2, 4), ['iris', 'aster'], [0, 1]), 'd/train-00001-of-00002.parquet')
    write(table(range(4, 6), ['iris', 'rose'], [0, 1]), 'd/test-00000-of-00001.parquet')
    d = load('d')
    assert (d.class_names, d.splits) == (['iris', 'rose', 'aster'], dict(test=2, train=4))
    assert d.labels.tolist() == [0, 1, 1, 0, 0, 2]
    assert torch.equal(load('d', 16, 'test').images, FLOWERS[4:6])
    assert without_split('d', 16, 'test') == 'train'

def test_labels_of_tables():
    "Numbers and words without names are classes in their order; -1 and nothing are no class."
    write(table(range(4), None, [10, 9, 10, 9]), 'numbers.parquet')
    d = load('numbers.parquet')
    assert (d.class_names, d.labels.tolist()) == (['9', '10'], [1, 0, 1, 0])
    words = Dataset.from_dict(dict(img=[pil(0), pil(1), None], label=['rose', 'iris', 'iris']),
                              features=Features(img=HFImage(), label=Value('string')))
    write(words, 'words.parquet')
    d = load('words.parquet')
    assert (d.class_names, d.labels.tolist()) == (['iris', 'rose'], [1, 0])
    secret = table(range(4), ['a', 'b'], [0, 1, -1, -1], split=['train', 'train', 'test', 'test'])
    write(secret, 'secret.parquet')
    for split in (None, 'train'):
        d = load('secret.parquet', 16, split)
        assert d.labels.tolist() == [0, 1]
    d = load('secret.parquet', 16, 'test')
    assert d.labels is None
    # one label missing costs one row
    write(table(range(4), ['a', 'b'], [0, 1, None, 1]), 'gap.parquet')
    d = load('gap.parquet')
    assert d.labels.tolist() == [0, 1, 1]

def test_split_column():
    write(table(range(4), split=[0, 0, 1, None]), 'numbers.parquet')
    assert str(load('numbers.parquet')).endswith('(2 in split 0 + 1 in split 1 + 1 in split none)')
    write(table(range(4), split=['train', 'dev', None, 'Extra']), 'x.parquet')
    assert load('x.parquet').splits == dict(train=1, validation=1, none=1, extra=1)
    assert load('x.parquet', 16, 'val+none').labels.tolist() == [1, 2]
    assert split_name('Testing') == 'test'

# ---- the Hub and torchvision, without a network ----
def test_hub(monkeypatch):
    "A commit is asked for and loaded; without a network, it comes from the Hub's caches, if it is there."
    asked = []
    def load_dataset(name, *config, revision):
        asked.append((name, *config, revision))
        return DatasetDict(train=table(range(3)), validation=table(range(3, 5)))
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    monkeypatch.setattr('huggingface_hub.HfApi.repo_info', lambda *a, **kw: SimpleNamespace(sha='abc'))
    d = load('me/flowers')
    assert asked == [('me/flowers', 'abc')] and d.splits == dict(train=3, validation=2)
    monkeypatch.setattr('huggingface_hub.HfApi.repo_info', no_network)
    monkeypatch.setattr('datasets.load_dataset', no_network)
    with pytest.raises(FlowerDiffError, match='the Hugging Face Hub gave no such dataset .no network'): load('me/flowers')
    monkeypatch.setattr('huggingface_hub.snapshot_download', lambda *a, **kw: 'hub/abc')
    assert load('me/flowers').key == d.key
    with pytest.raises(FlowerDiffError, match='could not be loaded from the Hugging Face Hub .no network'):
        load('me/flowers', 8)

def test_revisions_and_configurations(monkeypatch):
    "Are asked for as the user wrote them."
    asked = []
    def repo_info(api, name, **how):
        asked.append((name, how['revision'], how['repo_type']))
        return SimpleNamespace(sha='abc')
    def load_dataset(*name, revision):
        asked.append((*name, revision))
        return DatasetDict(train=table(range(3)))
    monkeypatch.setattr('huggingface_hub.HfApi.repo_info', repo_info)
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    load('me/flowers@v1.0:photos')
    assert asked == [('me/flowers', 'v1.0', 'dataset'), ('me/flowers', 'photos', 'abc')]
    for name in ('me/flowers@refs/pr/1', 'me/flowers@' + 'a'*40, 'me/flowers:x', 'me/flowers@v1:a b'):
        assert open_source(name).kind == 'hub'
    for name in ('me/flowers@', 'me@v1/flowers', 'me/flowers@v1 x'):
        with pytest.raises(FlowerDiffError, match='is no folder, parquet file or Hub data set'): open_source(name)

OFFLINE = '''
import json, os, shutil, sys
from pathlib import Path
os.environ.update(HF_HOME='hf', HF_HUB_OFFLINE='1', FLOWERDIFF_CACHE='cache')
import datasets
from flowerdiff.core import FlowerDiffError
from flowerdiff.data import load_images, stream_images
def prepare(commit):
    "Put a data set where `datasets` keeps what it has loaded from the Hub."
    made = datasets.load_dataset('parquet', data_files='4.parquet', cache_dir='made')
    arrow, = Path('made').rglob('*.arrow')
    place = Path(f'hf/datasets/me___prepared/default/0.0.0/{commit}')
    place.mkdir(parents=True)
    shutil.copy(arrow, place/'prepared-train.arrow')
    info = json.loads(arrow.with_name('dataset_info.json').read_text())
    info |= dict(dataset_name='prepared', builder_name='parquet', config_name='default')
    (place/'dataset_info.json').write_text(json.dumps(info))
hub = Path('hf/hub/datasets--me--flowers')
for commit, n, ref in (('a'*40, 3, 'main'), ('b'*40, 4, 'v1')):
    folder = hub/f'snapshots/{commit}/data'
    folder.mkdir(parents=True)
    (hub/'refs').mkdir(exist_ok=True)
    (hub/f'refs/{ref}').write_text(commit)
    shutil.copy(f'{n}.parquet', folder/'train-00000-of-00001.parquet')
prepare('c'*40)
for name in ('me/flowers', 'me/flowers@v1', 'me/flowers@' + 'b'*40, 'me/prepared', 'me/none', 'me/flowers@v2'):
    try: print(len(load_images(name, 16, verbose=False)))
    except FlowerDiffError: print('none')
print(len(stream_images('me/flowers@v1', 16, verbose=False)))
'''

def test_caches_that_were_filled_beforehand(place):
    "On a node without a network: by `hf download`, and by `datasets`; at any revision."
    for n in (3, 4): write(table(range(n)), f'{n}.parquet')
    done = subprocess.run([sys.executable, '-c', OFFLINE], capture_output=True, text=True)
    assert done.stdout.split() == ['3', '4', '4', '4', 'none', 'none', '4'], done.stderr
    assert "using 'me/flowers@v1' from its cache" in done.stderr

def test_torchvision(place, monkeypatch):
    class Flowers:
        classes = sources.Flowers102.classes
        def __init__(self, root, split, download):
            save(f'{split}.jpg', len(split))
            self._image_files, self._labels = [place/f'{split}.jpg'], [len(split)]
    monkeypatch.setattr(sources, 'Flowers102', Flowers)
    d = load('torchvision')
    assert d.splits == dict(train=1, validation=1, test=1) and d.labels.tolist() == [5, 3, 4]
    assert d.class_names == Flowers.classes

# ---- streams ----
def numbers(images): return [next(i for i, x in enumerate(FLOWERS) if torch.equal(x, image)) for image in images]

def take(stream, n, size=4, **how): return list(itertools.islice(stream.batches(size, **how), n))

@pytest.fixture
def shards(place):
    order = LABELS.argsort()
    for k, part in enumerate(order.split(6)): write(table(part.tolist()), f'many/{k}.parquet')
    return stream('many', block=5)

def test_stream_is_exact_and_mixed(shards):
    batches = take(shards, 12)
    seen = numbers(torch.cat([images for images, _, _ in batches]))
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
    assert seen[:24] != seen[24:]
    for images, labels, _ in batches: assert torch.equal(labels, LABELS[numbers(images)])
    assert len(shards) == 24 and shards.class_names == DRAWN_NAMES and len(shards.images) == 24
    assert not torch.equal(take(shards, 1, seed=1)[0][0], batches[0][0])

def test_stream_resumes(shards):
    "From the place of any batch, also in the middle of a block and after a round, and through JSON."
    batches = take(shards, 14)
    for k in (1, 2, 5, 6, 7, 11):
        place = json.loads(json.dumps(batches[k - 1][2]))
        again = take(stream('many', block=5), 3, place=place)
        for a, b in zip(again, batches[k:]): assert torch.equal(a[0], b[0])

def test_stream_shares(shards):
    seen = []
    for rank in (0, 1):
        for images, _, _ in take(shards, 3, rank=rank, world=2): seen += numbers(images)
    assert sorted(seen) == list(range(24))

def test_stream_has_the_pixels_of_load_images(place):
    "JPEG files are decoded once, and never encoded again; the split is taken by row, and by file."
    for i in range(8): save(f'{i}.jpg', i)
    features = Features(img=HFImage(), label=ClassLabel(names=['a', 'b']), split=Value('string'))
    rows = dict(img=[f'{i}.jpg' for i in range(8)], label=[i % 2 for i in range(8)], split=['train']*5 + ['val']*3)
    both = Dataset.from_dict(rows, features=features)
    write(both, 'x.parquet')
    write(both.select(range(5)).remove_columns('split'), 'd/train.parquet')
    write(both.select(range(5, 8)).remove_columns('split'), 'd/test.parquet')
    for source, split, n in (('x.parquet', None, 8), ('x.parquet', 'validation', 3), ('d', 'train', 5)):
        s, d = stream(source, 16, split), load(source, 16, split)
        (images, labels, _), = take(s, 1, n)
        whole = d.images.flatten(1).tolist()
        order = [whole.index(image) for image in images.flatten(1).tolist()]
        assert sorted(order) == list(range(n))
        assert len(s) == n
        assert torch.equal(labels, d.labels[order])

def test_stream_leaves_out_what_has_no_image_or_label():
    write(table(range(6), label=[0, 1, -1, 3, 4, 5]), 'x.parquet')
    seen = numbers(torch.cat([images for images, _, _ in take(stream('x.parquet'), 5, 1)]))
    assert sorted(seen) == [0, 1, 3, 4, 5]

def test_stream_without_classes(capsys):
    write(table(range(4), None, [5, 6, 7, 8]), 'x.parquet')
    capsys.readouterr()
    s = stream('x.parquet')
    said = capsys.readouterr().err
    assert "no classes, because column 'label' lists no names" in said and said.count('\n') == 1
    assert s.labels is None and s.class_names == [] and take(s, 1)[0][1] is None

def test_stream_of_lists_of_one_label():
    features = Features(image=HFImage(), label=List(ClassLabel(names=['a', 'b'])))
    write(Dataset.from_dict(dict(image=[pil(i) for i in range(3)], label=[[0], [1], []]), features=features), 'x.parquet')
    assert sorted(take(stream('x.parquet'), 1, 2)[0][1].tolist()) == [0, 1]

def test_stream_from_the_hub(monkeypatch, capsys):
    "Splits are chosen, official class names are given, and an unknown length is said."
    names = sorted(map(str, range(1, 103)))
    tables = {s: table(range(4), names, [0, 1, 2, 3]).to_iterable_dataset() for s in ('train', 'test')}
    def load_dataset(name, revision, streaming): return IterableDatasetDict(tables)
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    monkeypatch.setattr('huggingface_hub.HfApi.repo_info', lambda *a, **kw: SimpleNamespace(sha='abc'))
    s = stream('me/flowers', 16, 'train')
    assert len(s) == 100_000 and 'does not say how many' in capsys.readouterr().err
    assert s.class_names[0] == 'pink primrose' and {*s.labels.tolist()} == {0, 9, 99, 100}

def test_a_damaged_cache_is_made_again(tmp_path, monkeypatch):
    "A file that was cut short must not end every later run."
    monkeypatch.setenv('FLOWERDIFF_CACHE', str(tmp_path))
    before = load_images('drawn:5', 8, verbose=False)
    file, = tmp_path.glob('*.pt')
    with file.open('r+b') as f: f.truncate(100)
    after = load_images('drawn:5', 8, verbose=False)
    assert torch.equal(after.images, before.images)
