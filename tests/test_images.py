"Guards for flowerdiff.images: what it refuses, and what must not change."
import io

import numpy as np, pytest, torch
from PIL import Image
from flowerdiff.core import FlowerDiffError
from flowerdiff.images import *
from refused import check_refused

images = draw_flowers(5)[0]
first = Image.fromarray(images[0].permute(1, 2, 0).numpy())

def filled(value): return torch.full((3, 8, 8), value, dtype=torch.uint8)

# (call, what the message must say)
REFUSED = [
    (lambda: save_animation(images, 'a.txt'), "unknown ending of an animation '.txt'"),
    (lambda: save_animation(images, 'a.gif', 0), 'fps is 0'),
    (lambda: to_square(Image.new('F', (8, 8)), 8), 'mode F has no fixed white'),
    (lambda: read_image(b'no image'), 'cannot be read as an image'),
]

@pytest.mark.parametrize('call, message', REFUSED)
def test_refused(call, message): check_refused(call, message)

def test_bytes_and_floats():
    b = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(b)), b)
    assert torch.equal(to_uint8(b), b)
    assert to_uint8(torch.tensor([-3., 3.])).tolist() == [0, 255]

def test_a_flower_does_not_depend_on_their_number():
    assert torch.equal(draw_flowers(24)[0][:5], images)
    assert not torch.equal(draw_flowers(5, seed=1)[0], images)

@pytest.mark.parametrize('kind', ('gif', 'webp'))
def test_animations_have_all_frames(kind, tmp_path):
    save_animation(images, tmp_path/f'a.{kind}')
    assert Image.open(tmp_path/f'a.{kind}').n_frames == len(images)

def test_a_square_stays_as_it_is():
    assert torch.equal(to_square(first, 64), images[0])

def test_transparent_is_white():
    clear = Image.new('RGBA', (20, 30), (255, 0, 0, 0))
    assert torch.equal(to_square(clear, 8), filled(255))

def test_grey_of_16_bits():
    grey = Image.fromarray(np.full((8, 8), 51*257, np.uint16))
    assert torch.equal(to_square(grey, 8), filled(51))

def test_the_middle_is_kept():
    wide = Image.new('RGB', (200, 100), 'black')
    wide.paste('white', (40, 0, 160, 100))
    assert (to_square(wide, 10) == 255).all()

def test_a_file_cut_off():
    file = io.BytesIO()
    first.save(file, 'PNG')
    assert torch.equal(read_image(file.getvalue()), images[0])
    with pytest.raises(FlowerDiffError, match='save it again, or leave it out'):
        read_image(file.getvalue()[:100])
