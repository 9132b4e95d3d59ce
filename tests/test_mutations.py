"""Damaged files end in an error of ours, or in images or a model; never in a crash, a long wait or a full memory.

`python tests/test_mutations.py 5000 7` tries 5,000 mutations with the seed 7. Each runs in a process of its own."""
import io, os, random, re, shutil, signal, subprocess, sys, tempfile
from pathlib import Path
import pytest

MEMORY, SECONDS = 2*2**20, 20 # KiB, s
TABLES = ['a.parquet', 'metadata.csv', 'metadata.jsonl', 'config.json', 'model.safetensors']

JSONL = b'''{"file_name": "0.png", "label": "rose", "split": "train"}
{"file_name": "1.png", "label": "iris", "split": "train"}
{"file_name": "2.png", "label": -1, "split": 7}
{"file_name": "3.png", "label": [3], "split": null}
'''
CSV = b'''file_name,label,split\r
0.png,"rose, red",train\r
1.png,iris,val\r
2.png,-1,1\r
3.png,,\r
'''

def save(im, name, how):
    "Save an image; returns the bytes of the file."
    from PIL import Image
    kind = Image.registered_extensions()[Path(name).suffix]
    file = io.BytesIO()
    im.save(file, kind, **how)
    return file.getvalue()

def images_to_save(ims):
    "Choose images, and how to save them, for each name of a file."
    import numpy as np
    from PIL import Image, ImageCms
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010f] = 'a maker'
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB'))
    # one called sRGB is not looked at
    profile = profile.tobytes().replace(b'\0s\0R\0G\0B', b'\0t\0e\0s\0t')
    rich = dict(exif=exif, icc_profile=profile)
    grey = np.asarray(ims[0].convert('L'))
    deep = Image.fromarray(grey.astype(np.uint16)*16)
    floats = Image.fromarray(grey/np.float32(255))
    return {
        'a.jpg': (ims[0], rich),
        'b.jpg': (ims[1], dict(progressive=True)),
        'c.jpg': (ims[2].convert('CMYK'), {}),
        'a.png': (ims[0], rich),
        'b.png': (ims[1].quantize(8), dict(transparency=3)),
        'c.png': (deep, {}),
        'd.png': (ims[0].convert('RGBA'), {}),
        'a.webp': (ims[0], rich),
        'b.webp': (ims[1], dict(lossless=True)),
        'a.gif': (ims[0], dict(save_all=True, append_images=ims[1:])),
        'a.avif': (ims[0], {}),
        'a.bmp': (ims[0], {}),
        'a.tif': (ims[0], rich),
        'b.tif': (ims[1], dict(compression='tiff_lzw')),
        'c.tif': (ims[2], dict(compression='jpeg')),
        'd.tif': (floats, {}),
        'e.tif': (deep, dict(compression='tiff_deflate')),
        'a.ppm': (ims[0], {}),
        'b.pgm': (deep, {}),
        'a.tga': (ims[0], dict(compression='tga_rle')),
        'a.jp2': (ims[0], {})}

def valid_files():
    "Make small files that can be read: a folder of files for each name."
    from datasets import ClassLabel, Dataset, Features, Image as HFImage, Value
    from PIL import Image
    from flowerdiff.images import draw_flowers
    flowers, _ = draw_flowers(4, 24)
    ims = [Image.fromarray(x.permute(1, 2, 0).numpy()) for x in flowers]
    files = {name: save(im, name, how) for name, (im, how) in images_to_save(ims).items()}
    kind = Features(
        image=HFImage(),
        label=ClassLabel(names=['iris', 'rose']),
        split=Value('string'),
        image_id=Value('int64'))
    columns = dict(
        image=ims,
        label=[0, 1, -1, 1],
        split=['train', 'val', None, 'test'],
        image_id=range(4))
    table = Dataset.from_dict(columns, features=kind)
    file = io.BytesIO()
    table.to_parquet(file)
    folders = {name: {name: data} for name, data in files.items()}
    folders['a.parquet'] = {'a.parquet': file.getvalue()}
    pngs = {f'{i}.png': files['a.png'] for i in range(4)}
    for name, text in dict(jsonl=JSONL, csv=CSV).items():
        name = f'metadata.{name}'
        folders[name] = pngs | {name: text}
    model = model_files()
    return folders | {name: model for name in model}

def model_files():
    "Make the files of a small model."
    from flowerdiff.config import ModelConfig, build
    from flowerdiff.models import save
    config = ModelConfig(
        16, 'v', 'cosine', 'attention', 3, dict(widths=[16, 32], attention=[1], n_emb=32, n_classes=2), dict(steps=3),
        classes=['iris', 'rose'], class_counts=[1, 2], sigma_data=.5)
    with tempfile.TemporaryDirectory() as d:
        save(build(config), config, Path(d))
        return {f.name: f.read_bytes() for f in Path(d).iterdir()}

WORDS = [b'null', b'-1', b'1e999', b'[[[[', b'{"a": {}}', b'"', b',', b'\n', b'\0', b'\xff\xfe', b'../../x', b'9'*400, b'NaN', b'true', b'"'*99]

NUMBERS = [b'\xff'*4, b'\x7f' + b'\xff'*3, bytes(4), b'\0\0\xff\xff', b'\x80\0\0\0']

def change(data, rng):
    "Change some bytes."
    # the beginning is where sizes and types are written
    end = rng.choice([len(data), min(len(data), 64)])
    at = rng.randrange(end)
    n = rng.choice([1, 2, 4, 8, 1 + len(data)//2])
    what = rng.randrange(7)
    if what == 0: data[at] = rng.randrange(256)
    elif what == 1: data[at] ^= 1 << rng.randrange(8)
    elif what == 2: data[at:at+4] = rng.choice(NUMBERS)
    elif what == 3: del data[at:at+n]
    elif what == 4: data[at:at] = data[at:at+n]
    elif what == 5: data[at:at+n] = rng.randbytes(min(n, 64))
    else: del data[at:]

def change_value(data, rng):
    "Put another value in the place of one in a file of text."
    values = [*re.finditer(rb'"[^"\n]*"|[^,:{}\s"]+', data)]
    if not values: return
    value = rng.choice(values)
    data[value.start():value.end()] = rng.choice(WORDS)

def mutate(data, rng, text):
    "Change a file in one or more places."
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if text and rng.random() < .7: change_value(data, rng)
        else: change(data, rng)
        data = data or bytearray(1)
    return bytes(data)

def attempt(folder):
    "Load a folder; returns what is wrong with how it ended."
    from flowerdiff.core import FlowerDiffError
    call = sample_folder if (folder/'config.json').exists() else read_folder
    try: return call(folder)
    except FlowerDiffError as e: return '' if '\n' not in str(e) else f'several lines: {e}'
    except BaseException as e: return f'{type(e).__name__}: {e}'

def sample_folder(folder):
    "Load a model and sample it; returns what is wrong."
    from flowerdiff.models import load
    m = load(folder, 'cpu')
    x = m.sample(1)
    return '' if x.shape == (1, m.config.channels, *m.config.size) else f'shape {x.shape}'

def read_folder(folder):
    "Load images; returns what is wrong."
    from flowerdiff.data import load_images
    d = load_images(folder, 16, verbose=False)
    valid = d.images.shape[1:] == (3, 16, 16)
    if d.labels is not None:
        numbers = {*range(len(d.class_names))}
        valid = valid and len(d.labels) == len(d) and {*d.labels.tolist()} <= numbers
    return '' if valid else f'not valid: {d}'

def in_child(call):
    "Run a call in a forked process, within the limits; returns what is wrong."
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.write(write, call().encode()[:4000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as f: said = f.read()
    _, status, usage = os.wait4(child, 0)
    if status: return f'ended by a signal, or with an exit status: {os.waitstatus_to_exitcode(status)}'
    if usage.ru_maxrss > MEMORY: return f'{usage.ru_maxrss/2**20:.1f} GiB'
    return said

def main(n=300, seed=0):
    "Try mutations; prints what went wrong, and returns how often."
    import torch
    files, failed = valid_files(), 0
    good = files['a.png']['a.png']
    # libraries are loaded once, before the processes fork
    import datasets, pyarrow.parquet, flowerdiff.data, flowerdiff.models
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as d:
        os.environ['FLOWERDIFF_CACHE'] = f'{d}/cache'
        for i in range(n):
            rng = random.Random(seed*1_000_000 + i)
            name = rng.choice([*files] + TABLES*3)
            folder = Path(d)/str(i)
            folder.mkdir()
            for file, data in files[name].items():
                if file == name: data = mutate(data, rng, 'metadata' in name or name == 'config.json')
                (folder/file).write_bytes(data)
            # sometimes there is something good besides
            if rng.random() < .3 and 'config.json' not in files[name]: (folder/'good.png').write_bytes(good)
            wrong = in_child(lambda: attempt(folder))
            if wrong: print(f'{i} {name}: {wrong[:300]}', flush=True)
            failed += bool(wrong)
            shutil.rmtree(folder)
    print(f'{n} mutations, {failed} ended badly')
    return failed

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='this system cannot fork')
def test_mutations():
    call = [sys.executable, __file__, '300']
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]

if __name__ == '__main__':
    failed = main(*map(int, sys.argv[1:]))
    sys.exit(bool(failed))
