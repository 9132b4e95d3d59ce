"Guards of flowerdiff.sources: what folders, metadata files and tables mean, whatever way people have them."
import csv, json, os, sys, unicodedata
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, pytest
from datasets import ClassLabel, Dataset, Features, Image as HFImage, List, Value
from huggingface_hub import get_session
from PIL import Image
from flowerdiff.core import FlowerDiffError
from flowerdiff.config import pick_labels
from flowerdiff.core import class_number
from flowerdiff.sources import *
from refused import check_refused

@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    "Each test works in an empty folder."
    monkeypatch.chdir(tmp_path)
    return tmp_path

def touch(*files):
    for file in files:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()

def listed(folder='d'):
    "List a folder: labels and splits by file, class names, and what was left out."
    source = open_source(folder)
    state = source_state(source)
    items, names, left_out = list_source(source, state, (16, 16))
    found = {i.where: (i.label, i.split) for i in items}
    said = {reason: sorted(map(str, names)) for reason, names in left_out.items()}
    return found, names, {reason: names for reason, names in said.items() if names}

# ---- layouts of folders: files -> (label, split); what is not there must be left out ----
LAYOUTS = {
    'classes': {'b/1.png': ('b', None), 'a/2.png': ('a', None), 'a/sub/3.png': ('a', None)},
    'loose': {'1.png': (None, None), '2.png': (None, None)},
    'one class is none': {'a/1.png': (None, None), 'a/2.png': (None, None)},
    'a stray file beside classes': {'a/1.png': ('a', None), 'b/2.png': ('b', None), 'c.png': (None, None)},
    'a few odd folders beside the images': {**{f'{i}.png': (None, None) for i in range(9)}, 'old/1.png': (None, None), 'new/2.png': (None, None)},
    'folders around classes': {'all/jpg/a/1.png': ('a', None), 'all/jpg/b/2.png': ('b', None), 'cover.png': (None, None)},
    'splits': {'Train/1.png': (None, 'train'), 'val/2.png': (None, 'validation')},
    'splits of classes': {'train/a/1.png': ('a', 'train'), 'train/b/2.png': ('b', 'train'), 'dev/b/3.png': ('b', 'validation')},
    'stray files beside splits': {'train/a/1.png': ('a', 'train'), 'train/b/2.png': ('b', 'train'), 'test/3.png': (None, 'test'), 'x.png': None},
    'other folders beside splits': {'train/1.png': (None, 'train'), 'test/2.png': (None, 'test'), 'masks/1.png': None},
    'one split alone': {'train/a/1.png': ('a', 'train'), 'train/b/2.png': ('b', 'train')},
    'a train among vehicles': {'train/1.png': ('train', None), 'car/2.png': ('car', None), 'plane/3.png': ('plane', None)},
    'kinds of trains': {'steam_train/1.png': ('steam_train', None), 'bullet_train/2.png': ('bullet_train', None)},
    'Kaggle': {'archive/seg_train/seg_train/a/1.png': ('a', 'train'), 'archive/seg_train/seg_train/b/2.png': ('b', 'train'),
               'archive/seg_test/seg_test/a/3.png': ('a', 'test'), 'archive/seg_test/seg_test/b/4.png': ('b', 'test'), 'archive/seg_pred/seg_pred/5.png': None},
    'training_set': {'training_set/cats/1.png': ('cats', 'train'), 'training_set/dogs/2.png': ('dogs', 'train'), 'test_set/cats/3.png': ('cats', 'test')},
    'unlabeled': {'train/a/1.png': ('a', 'train'), 'train/b/2.png': ('b', 'train'), 'unlabelled/3.png': (None, 'unlabeled')},
    'COCO': {'images/train2017/1.jpg': (None, 'train'), 'images/val2017/2.jpg': (None, 'validation'), 'images/test2017/3.jpg': (None, 'test')},
    'YOLO': {'train/images/1.jpg': (None, 'train'), 'valid/images/2.jpg': (None, 'validation')},
    'ImageNet': {'ILSVRC/Data/CLS-LOC/train/n01/n01_1.JPEG': ('n01', 'train'), 'ILSVRC/Data/CLS-LOC/train/n02/n02_1.JPEG': ('n02', 'train'),
                 'ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_1.JPEG': (None, 'validation')},
    'Tiny ImageNet': {'train/n01/images/n01_0.JPEG': ('n01', 'train'), 'train/n02/images/n02_0.JPEG': ('n02', 'train'),
                      'val/images/val_0.JPEG': (None, 'validation'), 'test/images/test_0.JPEG': (None, 'test')},
    'splits inside of classes': {'a/train/1.png': ('a', 'train'), 'a/test/2.png': ('a', 'test'), 'b/train/3.png': ('b', 'train'), 'b/test/4.png': ('b', 'test')},
    'classes with a folder test': {'a/1.png': ('a', None), 'b/test/2.png': ('b', None), 'b/train/3.png': ('b', None)},
    'img2dataset': {'00000/000000000.jpg': (None, None), '00001/000010000.jpg': (None, None)},
    'traffic signs': {'00000/00000_00000.ppm': ('00000', None), '00001/00000_00001.ppm': ('00001', None)},
    'digits': {'0/1.png': ('0', None), '1/1.png': ('1', None), '10/1.png': ('10', None)},
    'keywords': {'any/1.png': ('any', None), 'all/1.png': ('all', None), 'none/1.png': ('none', None), '-1/1.png': ('-1', None)},
    'commas': {'rose, red/1.png': ('rose, red', None), 'rose, white/1.png': ('rose, white', None)},
    'other names of splits': {'training/1.png': (None, 'train'), 'evaluation/2.png': (None, 'validation'), 'holdout/3.png': (None, 'test')},
    'hidden files': {'a/1.png': ('a', None), 'b/2.png': ('b', None), 'b/.3.png': None, '.thumbs/4.png': None, '__MACOSX/a/._1.png': None},
}

@pytest.mark.parametrize('name', LAYOUTS)
def test_folders(name):
    want = LAYOUTS[name]
    for file in want: touch(f'd/{file}')
    found, names, left_out = listed()
    used = {f: v for f, v in want.items() if v}
    assert found == used
    labels = {label for label, _ in found.values()}
    assert names == sorted(labels - {None})
    hidden = {f for f in want if '/.' in f'/{f}'}
    said = sum(left_out.values(), [])
    assert {*said} == want.keys() - used - hidden

def test_parts_of_a_download():
    "A folder with a table of the same name beside it is a part of a download, no class."
    touch('d/part-1/a.jpg', 'd/part-2/b.jpg', 'd/part-2/b.json', 'd/part-2/b.txt')
    addresses = pa.table(dict(url=['u'], key=['0']))
    for i in (1, 2): pq.write_table(addresses, f'd/part-{i}.parquet')
    found, names, left_out = listed()
    assert found == {'part-1/a.jpg': (None, None), 'part-2/b.jpg': (None, None)}
    assert names == []
    assert left_out == {'a table without images': ['part-1.parquet', 'part-2.parquet'],
                        'not an image': ['part-2/b.json', 'part-2/b.txt']}

def test_unicode():
    "The same name in two normal forms is one class."
    forms = [unicodedata.normalize(form, 'Café') for form in ('NFC', 'NFD')]
    touch(f'd/{forms[0]}/1.png', f'd/{forms[1]}/2.png', 'd/tea/3.png')
    _, names, _ = listed()
    assert names == [forms[0], 'tea']
    for form in forms: assert class_number(names, form) == 0
    assert class_number([forms[1]], forms[0]) == 0

def test_classes_called_like_keywords():
    names = ['10', 'all', 'any', 'Rose', 'rose', '2']
    for i, name in enumerate(names): assert class_number(names, name) == i
    labels = pick_labels(names, None, ['any', '2', 'ROSE'], 3)
    assert labels.tolist() == [2, 5, 4]
    # what is no name may be a number, or mean any class
    assert class_number(names, '3') == 3
    assert class_number(names, 2) == 2
    assert pick_labels(['a', 'b'], None, 'any', 1).tolist() == [2]

# ---- links ----
def test_links(place):
    "Links to folders and files are followed, what leads nowhere is said, and nothing counts twice."
    touch('store/1.png', 'store/2.png', 'files/x.png', 'd/iris/3.png', 'd/iris/4.png')
    Path('d/rose').symlink_to(place/'store')
    Path('d/iris/5.png').symlink_to(place/'files/x.png')
    Path('d/iris/lost.png').symlink_to(place/'nowhere.png')
    Path('d/lost').symlink_to(place/'nowhere')
    found, names, left_out = listed()
    assert names == ['iris', 'rose']
    assert len(found) == 5
    assert left_out == {'no file, or a link that leads nowhere': ['iris/lost.png', 'lost']}
    # a link to all of it
    Path('link').symlink_to(place/'d')
    assert len(listed('link')[0]) == 5

CIRCLES = {
    'to itself': {'me': '.'}, 'up': {'a/up': '..'}, 'further up': {'a/deep/up': '../..'}, 'one way': {'a/b': '../b'},
    'both ways': {'a/b': '../b', 'b/a': '../a'}, 'an alias': {'latest': 'b'}, 'out and back': {'a/out': '../../store'},
    'a file to itself': {'a/x.png': 'x.png'}}

@pytest.mark.parametrize('name', CIRCLES)
def test_circles(name, place):
    touch('d/a/1.png', 'd/a/deep/2.png', 'd/b/3.png', 'store/y.txt')
    Path('store/back').symlink_to(place/'d')
    for link, to in CIRCLES[name].items(): Path(f'd/{link}').symlink_to(to)
    found, names, _ = listed()
    assert found == {'a/1.png': ('a', None), 'a/deep/2.png': ('a', None), 'b/3.png': ('b', None)}
    assert names == ['a', 'b']

def test_splits_made_of_links(place):
    "One store, and folders of splits whose links choose from it."
    store = place/'d/images'
    touch('d/images/a/1.png', 'd/images/b/2.png', 'd/images/b/3.png')
    for split in ('train', 'test'): Path(f'd/{split}').mkdir()
    for name in 'ab': Path(f'd/train/{name}').symlink_to(store/name)
    Path('d/test/3.png').symlink_to(store/'b/3.png')
    found, names, left_out = listed()
    assert names == ['a', 'b']
    assert found['train/a/1.png'] == ('a', 'train')
    assert found['test/3.png'] == (None, 'test')
    assert left_out == {'beside the splits': ['images/a/1.png', 'images/b/2.png', 'images/b/3.png']}

def test_a_run_inside_its_data():
    touch('d/1.png', 'd/runs/mine/run.json', 'd/runs/mine/previews/1.png', 'd/runs/mine/best/x.png')
    found, _, left_out = listed()
    assert [*found] == ['1.png']
    assert left_out == {'made by a training run': ['runs/mine']}

def test_a_run_in_the_folder_of_its_data():
    touch('d/1.png', 'd/run.json', 'd/previews/1.png', 'd/loss.png')
    found, _, left_out = listed()
    assert [*found] == ['1.png']
    assert left_out == {'made by a training run': ['loss.png', 'previews'], 'not an image': ['run.json']}

@pytest.mark.skipif(sys.platform != 'linux', reason='other systems have no such names')
def test_names_that_are_no_text():
    "Old file systems have names in other codes."
    for name in (b'd/bl\xfcte/1.png', b'd/rose/2.png', b'd/\xe9.txt'): touch(os.fsdecode(name))
    found, names, left_out = listed()
    assert names == ['bl?te', 'rose']
    assert found == {'bl?te/1.png': ('bl?te', None), 'rose/2.png': ('rose', None)}

def test_what_is_no_file():
    touch('d/1.png')
    os.mkfifo('d/pipe.png')
    found, _, left_out = listed()
    assert [*found] == ['1.png']
    assert left_out == {'no file, or a link that leads nowhere': ['pipe.png']}

# ---- metadata files ----
def write_csv(file, *rows, dialect='excel', encoding='utf-8'):
    with open(file, 'w', newline='', encoding=encoding) as f: csv.writer(f, dialect).writerows(rows)

def write_jsonl(file, *rows):
    lines = [json.dumps(row) + '\n' for row in rows]
    Path(file).write_text(''.join(lines))

def test_metadata_csv():
    "The labels of the file count, folders do not; -1, nothing and what is not in the file have none."
    for i in range(6): touch(f'd/x/{i}.png')
    touch('d/y/6.png')
    rows = [['x/0.png', 'rose, red', 'a'], ['x/1.png', 'iris', 'b'], ['x\\2.png', ' iris ', 'c'],
            ['./x/3.png', '-1', 'd'], ['x/4.png', '', 'e'], ['x/99.png', 'iris', 'f']]
    write_csv('d/metadata.csv', ['file_name', 'label', 'text'], *rows)
    found, names, left_out = listed()
    labels = [label for label, _ in found.values()]
    assert labels == ['rose, red', 'iris', 'iris', None, None, None, None]
    assert names == ['iris', 'rose, red']
    assert left_out == {'named in a metadata file, but not there': ['x/99.png']}

@pytest.mark.parametrize('dialect, encoding', [('excel', 'utf-8-sig'), ('excel-tab', 'utf-8')])
def test_spreadsheets(dialect, encoding):
    touch('d/1.png', 'd/2.png')
    write_csv('d/metadata.csv', ['file_name', 'label'], ['1.png', 'b'], ['2.png', 'a'], dialect=dialect, encoding=encoding)
    assert listed()[1] == ['a', 'b']
    Path('d/metadata.csv').write_text('file_name;label\n1.png;c\n2.png;a, b\n')
    assert listed()[1] == ['a, b', 'c']

def test_metadata_jsonl():
    "Numbers, words, lists and truth values; numbers are sorted by value; one file for each split."
    touch('d/train/1.png', 'd/train/2.png', 'd/train/3.png', 'd/test/4.png')
    rows = [dict(file_name=f'{i}.png', label=label) for i, label in enumerate([10, [9], 2.0, True], 1)]
    write_jsonl('d/train/metadata.jsonl', *rows[:3])
    write_jsonl('d/test/metadata.jsonl', rows[3])
    found, names, _ = listed()
    assert names == ['2', '9', '10', 'True']
    assert found['train/2.png'] == ('9', 'train')
    assert found['test/4.png'] == ('True', 'test')

def test_splits_in_metadata():
    for i in range(4): touch(f'd/{i}.png')
    rows = [dict(file_name=f'{i}.png', split=split) for i, split in enumerate(['train', 'Val', 1])]
    write_jsonl('d/metadata.jsonl', *rows)
    found, names, _ = listed()
    splits = [split for _, split in found.values()]
    assert splits == ['train', 'validation', '1', None]
    assert names == []

FILES = 'a/0.png', 'b/1.png', 'a/2.png', 'b/3.png'
NEEDED = 'columns file_name and label are needed, not '
COLUMNS = {   # other columns than the files, or all columns -> class names, what is said
    'a usual name wins over folders': (dict(Label=['x', 'y', 'x', 'y']), 'xy', []),
    'names win over numbers': (dict(label=[0, 1, 0, 1], class_name=['x', 'y', 'x', 'y']), 'xy', []),
    'captions': (dict(text=[*'wxyz']), 'ab', [NEEDED + 'file_name, text']),
    'one caption for all': (dict(text=['x']*4), 'ab', [NEEDED + 'file_name, text']),
    'no usual name': (dict(species=[*'xyxy'], author=[*'wxyz']), 'ab', [NEEDED + 'file_name, species, author']),
    'no column of files': (dict(image_path=FILES, Class=[*'xyxy']), 'ab', [NEEDED + 'image_path, class']),
    'File_Name': (dict(File_Name=FILES, label=[*'xyxy']), 'xy', []),
    'a header alone': (dict(file_name=[], label=[]), 'ab', [NEEDED + 'none']),
    'two rows for a file': (dict(file_name=['a/0.png', *FILES], label=[*'yxyxy']), 'xy', ['an earlier row for the same image']),
    'a split alone': (dict(split=['train', 'test']*2), 'ab', []),
}

@pytest.mark.parametrize('name', COLUMNS)
def test_columns_of_metadata(name):
    columns, names, said = COLUMNS[name]
    touch(*[f'd/{file}' for file in FILES])
    own = {'file_name', 'File_Name', 'image_path'} & columns.keys()
    columns = columns if own else dict(file_name=FILES) | columns
    write_csv('d/metadata.csv', columns, *zip(*columns.values()))
    _, found, left_out = listed()
    assert (found, [*left_out]) == ([*names], said)

def test_the_only_column_of_loose_images():
    for i in range(4): touch(f'd/{i}.png')
    write_csv('d/metadata.csv', ['file_name', 'what'], *zip([f'{i}.png' for i in range(4)], 'xyxy'))
    assert listed()[1] == ['x', 'y']

def test_absolute_paths(place):
    touch('d/1.png', 'd/2.png')
    write_csv('d/metadata.csv', ['file_name', 'label'], [place/'d/1.png', 'x'], [place/'d/2.png', 'y'])
    assert listed()[1:] == (['x', 'y'], {})

@pytest.mark.parametrize('encoding', ['utf-16', 'latin-1'])
def test_other_encodings(encoding):
    touch('d/1.png')
    Path('d/metadata.csv').write_text('file_name,label\n1.png,blüte\n', encoding)
    check_refused(listed, 'save it as UTF-8 text')

def test_file_names_in_another_normal_form():
    name = 'blüte.png'
    touch('d/' + unicodedata.normalize('NFD', name), 'd/2.png')
    write_csv('d/metadata.csv', ['file_name', 'label'], [unicodedata.normalize('NFC', name), 'a'], ['2.png', 'b'])
    assert listed()[1] == ['a', 'b']

@pytest.mark.parametrize('text', [b'file_name,label\n\xff\xfe,a\n', b'\0\1\2', b'file_name,label\n"1.png,a\n' + b'x'*200_000])
def test_broken_csv(text):
    touch('d/1.png')
    Path('d/metadata.csv').write_bytes(text)
    try: listed()
    except FlowerDiffError as e:
        assert 'd/metadata.csv cannot be read' in str(e)
        assert '\n' not in str(e)

@pytest.mark.parametrize('text', ['{"file_name": ', '[1, 2]', '[{"file_name": "1.png", "label": "a"}]', '"words"', '['*100_000, '{"file_name": "1.png", "label": ' + '9'*5000 + '}'])
def test_broken_jsonl(text):
    touch('d/1.png')
    Path('d/metadata.jsonl').write_text(text)
    with pytest.raises(FlowerDiffError, match='d/metadata.jsonl cannot be read in line 1 .*write one object a line'): listed()

# ---- tables ----
def pil(i): return Image.fromarray(np.full((16, 16, 3), 9*i, np.uint8))

def table(n=4, **columns):
    "A table of images, with columns of (values, type)."
    features = Features(image=HFImage())
    values = dict(image=[pil(i) for i in range(n)])
    for name, (column, kind) in columns.items():
        features[name] = kind
        values[name] = column
    return Dataset.from_dict(values, features=features)

def labels(t, split=None):
    items, names, left_out = list_tables([(t, 'x', split)])
    return [item.label for item in items], names

NAMES = ClassLabel(names=['iris', 'rose'])
LABELS = {   # values, type -> labels, class names
    'numbers with names': ([0, 1, -1, None], NAMES, ['iris', 'rose', None, None], ['iris', 'rose']),
    'lists of numbers with names': ([[1], [], [0, 1], None], List(NAMES), ['rose', None, None, None], ['iris', 'rose']),
    'numbers': ([10, 9, -1, None], Value('int64'), ['10', '9', None, None], ['9', '10']),
    'floats': ([10., 9.5, float('nan'), None], Value('float64'), ['10', '9.5', None, None], ['9.5', '10']),
    'truth values': ([True, False, None, True], Value('bool'), ['True', 'False', None, 'True'], ['False', 'True']),
    'words': (['rose', ' iris', '', None], Value('string'), ['rose', 'iris', None, None], ['iris', 'rose']),
    'words in lists': ([['rose'], ['iris'], [], None], List(Value('string')), ['rose', 'iris', None, None], ['iris', 'rose']),
    'any, all, 1': (['any', 'all', '1', 'none'], Value('string'), ['any', 'all', '1', 'none'], ['1', 'all', 'any', 'none']),
    'accents': ([unicodedata.normalize(f, 'é') for f in ('NFC', 'NFD', 'NFKC', 'NFKD')], Value('string'), ['é']*4, ['é']),
    'words as bytes': ([b'rose', b'iris', b'', None], Value('binary'), ['rose', 'iris', None, None], ['iris', 'rose']),
    'structures': ([dict(a=1), dict(a=2)]*2, dict(a=Value('int64')), [None]*4, []),
}

@pytest.mark.parametrize('name', LABELS)
def test_labels(name):
    values, kind, want, names = LABELS[name]
    assert labels(table(label=(values, kind))) == (want, names)

@pytest.mark.parametrize('form', ['struct', 'bytes'])
def test_a_number_without_a_name(form):
    "A label that the names do not reach is none, also where the images are not stored as their type says."
    cells = table().data.table.column('image')
    if form == 'bytes': cells = pa.array([cell['bytes'] for cell in cells.to_pylist()])
    features = Features(image=HFImage(), label=NAMES).to_dict()
    info = json.dumps(dict(info=dict(features=features)))
    t = pa.table(dict(image=cells, label=pa.array([0, 1, 7, -5])))
    t = t.replace_schema_metadata(dict(huggingface=info))
    found, _ = labels(Dataset(t))
    assert found == ['iris', 'rose', None, None]

SPLIT_COLUMNS = {
    'words': (['train', 'dev', None, 'Extra'], Value('string'), ['train', 'validation', 'none', 'extra']),
    'numbers': ([0, 1, 2, None], Value('int64'), ['0', '1', '2', 'none']),
    'floats': ([0., 1., 2., float('nan')], Value('float64'), ['0', '1', '2', 'none']),
    'truth values': ([True, False]*2, Value('bool'), ['true', 'false']*2),
    'names': ([0, 1, 0, 1], ClassLabel(names=['train', 'test']), ['train', 'test']*2),
}

@pytest.mark.parametrize('name', SPLIT_COLUMNS)
def test_split_columns(name):
    values, kind, want = SPLIT_COLUMNS[name]
    t = table(split=(values, kind))
    items, names, _ = list_tables([(t, 'x', None)])
    splits = [item.split for item in items]
    assert splits == want
    assert names == []

def test_columns_of_images():
    "By their type, or as bytes by their name; addresses are no images."
    t = table().cast_column('image', HFImage(decode=False))
    data = [cell['bytes'] for cell in t['image']]
    cells = [dict(bytes=b, path=None) for b in data]
    def listed(column):
        t = Dataset(pa.table(dict(img=column)))
        items, _, _ = list_tables([(t, 'x', None)])
        return [item.data for item in items]
    for column in (data, cells): assert listed(column) == data
    check_refused(lambda: listed(pa.array(data, pa.binary_view())), 'x cannot be read as a table of images (Unsupported cast from binary_view')
    with pytest.raises(FlowerDiffError, match='x has no image column .its columns: img'):
        listed(['https://example.org/1.jpg'])

def test_rows_without_an_image():
    cells = [dict(bytes=b'x', path=None), None, dict(bytes=None, path=None)]
    t = pa.table(dict(image=cells, label=['a', 'b', 'c']))
    items, names, left_out = list_tables([(Dataset(t), 'x', None)])
    assert len(items) == 1
    assert left_out == {'a row without an image': ['x row 1', 'x row 2']}

def test_tables_beside_images():
    "Tables that hold images win, and the rest is said."
    Path('d').mkdir()
    table().to_parquet('d/train-0.parquet')
    pq.write_table(pa.table(dict(caption=['a'])), 'd/captions.parquet')
    touch('d/beside.png')
    found, _, left_out = listed()
    splits = {split for _, split in found.values()}
    assert splits == {'train'}
    assert left_out == {'a table without images': ['captions.parquet'], 'beside the parquet files': ['beside.png']}

@pytest.mark.parametrize('file, split', [
    ('train-00000-of-00002.parquet', 'train'), ('data/test.parquet', 'test'), ('default/train/0000.parquet', 'train'),
    ('valid_0.parquet', 'validation'), ('flowers.parquet', None), ('trained.parquet', None)])
def test_splits_of_tables(file, split):
    assert table_split(Path(file)) == split

# ---- what is no source ----
@pytest.mark.parametrize('name, todo', [
    ('d/1.png', 'give its folder'), ('d.zip', 'unpack it'), ('d/mine', 'give one'), ('./d.txt', 'give one')])
def test_no_source(name, todo):
    "The second part of a name may be mistyped: the Hub is not asked."
    touch('d/1.png', 'd.zip')
    check_refused(lambda: open_source(name), f"'{name}' is no folder, parquet file or Hub data set (owner/name): {todo}")

# ---- the Hub ----
CONFIGS = """---
configs:
- config_name: photos
  data_dir: photos
- config_name: drawings
  data_dir: drawings
---
"""

def test_the_hub_is_asked_once(monkeypatch, capfd):
    "Without a network, the answer comes at once, and in one line."
    asked = []
    def no_network(self, method, url, **kwargs):
        asked.append(url)
        raise OSError('no network')
    monkeypatch.setattr(type(get_session()), 'request', no_network)
    check_refused(lambda: hub_commit('me/none'), "the Hugging Face Hub gave no such dataset (no network)")
    assert sum('me/none' in url for url in asked) == 1 and not capfd.readouterr().err

def test_configurations(place, monkeypatch):
    "They are named, and chosen by name; here a folder stands for the Hub, and datasets says what it says."
    import datasets
    for config in ('photos', 'drawings'):
        Path(f'hub/{config}').mkdir(parents=True)
        t = table(label=([0, 1, 0, 1], NAMES))
        t.to_parquet(f'hub/{config}/train.parquet')
    Path('hub/README.md').write_text(CONFIGS)
    load = datasets.load_dataset
    def load_dataset(name, *config, revision): return load(str(place/'hub'), *config, cache_dir=str(place/'cache'))
    monkeypatch.setattr('datasets.load_dataset', load_dataset)
    message = 'needs one of its configurations (photos, drawings): say which, as in me/flowers:photos'
    check_refused(lambda: list_hub('me/flowers', 'abc'), f"'me/flowers' {message}")
    check_refused(lambda: list_hub('me/flowers:x', 'abc'), f"'me/flowers:x' {message}")
    listing = list_hub('me/flowers:drawings', 'abc')
    assert len(listing.items) == 4
    assert open_source('me/flowers:drawings').kind == 'hub'
