"""Time how 200 large photos are read, with and without JPEG's small decoding: `python research/bench_photos.py`

Pillow's `draft` lets the JPEG decoder leave out what a small image does not show. The photos are made up: drawn
flowers, enlarged to 12 megapixels, with noise. It writes nbs/results/bench_photos.json, which the page nbs/bench.ipynb
shows. It takes some minutes on two cores."""
import json, os, sys, tempfile, time
from pathlib import Path
import numpy as np
from PIL import Image, JpegImagePlugin
from flowerdiff.data import load_images
from flowerdiff.images import draw_flowers
from bench import describe_machine, peak_mb, run_python
from common import top, write_json

RESULT = top/'nbs/results/bench_photos.json'
PHOTOS, WIDTH, HEIGHT, SIZE = 200, 4000, 3000, 64
WAYS = 'draft', 'full'

def write_photos(
    folder:Path, # to fill
):
    "Write JPEG files like those of a camera."
    rng = np.random.default_rng(0)
    noise = rng.integers(-12, 13, (HEIGHT, WIDTH, 1))
    flowers, _ = draw_flowers(4, SIZE)
    for k, flower in enumerate(flowers):
        small = Image.fromarray(flower.permute(1, 2, 0).numpy())
        large = np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
        photo = Image.fromarray((large + noise).clip(0, 255).astype(np.uint8))
        photo.save(folder/'photo.jpg', quality=90)
        data = (folder/'photo.jpg').read_bytes()
        (folder/'photo.jpg').unlink()
        for i in range(k, PHOTOS, len(flowers)):
            (folder/f'{i:03}.jpg').write_bytes(data)

def read_photos(
    folder:str, # with the photos
    way:str, # one of WAYS
)->dict: # seconds, and seconds of all cores; MB at the peak, and MB of the libraries alone
    "Read all photos in a process that has done nothing else."
    if way == 'full': JpegImagePlugin.JpegImageFile.draft = lambda *args: None
    libraries, began, cpu = peak_mb('cpu'), time.perf_counter(), time.process_time()
    images = load_images(folder, SIZE, verbose=False)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert len(images) == PHOTOS
    return dict(seconds=seconds, cpu=cpu, peak_mb=peak_mb('cpu'), libraries_mb=libraries)

def report(
    found:dict, # what main writes
)->str: # several lines
    "Format what was measured."
    machine = ', '.join(f'{k} {v}' for k, v in found['machine'].items())
    count, width, height = found['photos']
    lines = [machine, f'{count} photos of {width} x {height} px, {found["mb"]:.1f} MB each', '']
    for way in WAYS:
        r = found[way]
        beyond = r['peak_mb'] - r['libraries_mb']
        lines.append(f"{way:5}  {r['cpu']:6.1f} s of one core, {beyond:6.0f} MB beside the libraries")
    return '\n'.join(lines)

def main():
    found = dict(machine=describe_machine('cpu'), photos=[PHOTOS, WIDTH, HEIGHT])
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder)/'photos'
        photos.mkdir()
        write_photos(photos)
        found['mb'] = sum(f.stat().st_size for f in photos.iterdir())/PHOTOS/1e6
        for way in WAYS:
            # or the second would find what the first has kept
            os.environ['FLOWERDIFF_CACHE'] = f'{folder}/{way}'
            found[way] = run_python('photos', __file__, str(photos), way)
    print(report(found))
    write_json(RESULT, found)

if __name__ == '__main__':
    if sys.argv[2:]: print(json.dumps(read_photos(*sys.argv[1:])))
    else: main()
