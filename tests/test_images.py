"Guards for flowerdiff.images: what it refuses, what must not change, and the right pixels of odd files."
import io, struct
from importlib.util import find_spec
import numpy as np, pytest, torch
from PIL import Image, ImageCms, ImageOps
from flowerdiff.images import *
from refused import check_refused

images = draw_flowers(5)[0]
first = Image.fromarray(images[0].permute(1, 2, 0).numpy())
photo = first.resize((320, 320))

def plain(value, dtype=np.uint8): return Image.fromarray(np.full((8, 8), value, dtype))

def saved(im, kind='PNG', **how):
    "Save an image; returns the bytes of the file."
    file = io.BytesIO()
    im.save(file, kind, **how)
    return file.getvalue()

def colour(*args, **how):
    "Read an image of one colour."
    image = read_image(*args, **how)
    return image.flatten(1)[:,0].tolist()

def difference(a, b):
    "Find the largest difference."
    a, b = (np.asarray(x.tolist() if torch.is_tensor(x) else x, float) for x in (a, b))
    return np.abs(a - b).max()

def tensor_of(im):
    "Turn an RGB image into a tensor."
    return torch.from_numpy(np.array(im)).permute(2, 0, 1)

FLOATS = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)

# (call, what the message must say)
REFUSED = [
    (lambda: save_animation(images, 'a.txt'), "unknown ending of an animation '.txt'"),
    (lambda: save_animation(images, 'a.gif', 0), 'fps is 0'),
    (lambda: read_image(b'no image'), 'this cannot be read as an image (cannot identify image file)'),
    (lambda: read_image('nowhere.png'), 'nowhere.png cannot be read as an image (No such file or directory)'),
    (lambda: read_image(plain(1e6, np.float32)), 'which value is white (they go from 1e+06 to 1e+06)'),
    (lambda: read_image(plain(2**20, np.int32)), 'which value is white'),
    (lambda: read_image(plain(np.nan, np.float32)), '(they go from nan to nan)'),
    (lambda: read_image(Image.fromarray(FLOATS)), '(they go from -1 to 1)'),
    (lambda: read_image(first, fit='squeeze'), "unknown fit 'squeeze': use crop, pad, stretch"),
    (lambda: read_image(first, channels=2), 'channels is 2: give 1 (grey), 3 (RGB) or 4'),
    (lambda: read_image(first, background='whitish'), "background is 'whitish': give a colour"),
    (lambda: read_image(first, background=None), 'background is None: give a colour'),
    (lambda: read_image(first, white=0), 'white is 0'),
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

# ---- formats ----
LOSSLESS = dict(png='PNG', webp='WEBP', bmp='BMP', dib='DIB', tif='TIFF', ppm='PPM', tga='TGA', jp2='JPEG2000', gif='GIF')
LOSSY = dict(jpg='JPEG', jfif='JPEG', jpe='JPEG', mpo='MPO', avif='AVIF')

@pytest.mark.parametrize('ending, kind', (LOSSLESS | LOSSY).items())
def test_formats(ending, kind, tmp_path):
    "From a path, from bytes and from a view of bytes."
    file = tmp_path/f'a.{ending}'
    flower = first.quantize(256).convert('RGB')
    how = dict(lossless=True) if kind == 'WEBP' else {}
    flower.save(file, kind, **how)
    image = read_image(file)
    data = file.read_bytes()
    for source in (str(file), data, bytearray(data), memoryview(data)):
        assert torch.equal(read_image(source), image)
    assert file.suffix in IMAGE_SUFFIXES
    distance = (image.float() - tensor_of(flower).float()).abs()
    assert distance.mean() < 12
    if ending in LOSSLESS: assert distance.max() == 0

@pytest.mark.parametrize('size', [None, 16])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'AVIF', 'GIF', 'BMP', 'TIFF', 'PPM', 'TGA', 'JPEG2000'])
def test_a_file_cut_off(kind, size):
    "It is an error wherever the cut is; never a grey half."
    data = saved(photo, kind)
    for part in (.02, .3, .6, .97):
        cut = data[:int(part*len(data))]
        check_refused(lambda: read_image(cut, size), 'save it again, or give another')

@pytest.mark.parametrize('size', [None, 16])
def test_a_file_filled_with_zeros(size):
    data = saved(photo, 'JPEG')
    half = len(data)//2
    check_refused(lambda: read_image(data[:half] + bytes(half), size), 'truncated, and filled with zeros')
    # some cameras fill up whole files
    assert torch.equal(read_image(data + bytes(500), size), read_image(data, size))

@pytest.mark.skipif(bool(find_spec('pillow_heif')), reason='pillow-heif is installed')
def test_heic_says_what_to_install():
    data = b'\0\0\0\x18ftypheic' + bytes(100)
    check_refused(lambda: read_image(data), 'HEIC needs pillow-heif: pip install pillow-heif')
    assert {'.heic', '.heif'} <= IMAGE_SUFFIXES

@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG', 'TIFF'])
def test_first_frame(kind):
    red = Image.new('RGB', (8, 8), 'red')
    lime = Image.new('RGB', (8, 8), 'lime')
    how = dict(lossless=True) if kind == 'WEBP' else {}
    data = saved(red, kind, save_all=True, append_images=[lime], **how)
    with Image.open(io.BytesIO(data)) as im:
        assert im.n_frames == 2
    assert colour(data) == [255, 0, 0]

def test_faults_are_counted_together():
    data = saved(photo, 'JPEG')
    reasons = set()
    for n in (1000, 1500, 2000):
        with pytest.raises(ImageError) as e: read_image(data[:n])
        reasons.add(e.value.reason)
    assert reasons == {'image file is truncated'}

def test_megapixels(monkeypatch, tmp_path):
    "The limit is named, and one setting raises it."
    # what is set here is not to stay
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
    file = tmp_path/'large.png'
    Image.new('1', (1500, 1400)).save(file)
    def read(limit):
        monkeypatch.setenv('FLOWERDIFF_MAX_MEGAPIXELS', limit)
        return read_image(file, 8)
    check_refused(lambda: read('2'), 'more than 2 megapixels: raise $FLOWERDIFF_MAX_MEGAPIXELS')
    check_refused(lambda: read('2'), 'if you trust it (it has 2)')
    check_refused(lambda: read('many'), "$FLOWERDIFF_MAX_MEGAPIXELS is 'many': give a whole number")
    assert read('3').shape == (3, 8, 8)

@pytest.mark.parametrize('kind, opened', [('JPEG', (500, 375)), ('PNG', (4000, 3000))])
def test_large_photos_are_decoded_small(kind, opened):
    data = saved(first.resize((4000, 3000)), kind)
    with open_image(data, (64, 64)) as im: assert im.size == opened
    whole = Image.open(io.BytesIO(data))
    right = tensor_of(ImageOps.fit(whole, (64, 64)))
    distance = (read_image(data, 64).float() - right.float()).abs()
    assert distance.mean() < .5
    assert distance.max() < 12

# ---- white ----
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'PPM'])
@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_bits(bits, kind):
    "The largest value says how many bits are used; white is white."
    white = 2**bits - 1
    values = np.array([[0, white//5, white]]*3, np.uint16)
    data = saved(Image.fromarray(values), kind)
    with open_image(data) as im:
        assert white_level(im) == white
    image = read_image(data)
    assert image[0,0].tolist() == [0, 51, 255]

def test_white_can_be_given():
    dark = plain(819, np.uint16)
    assert colour(dark) == [round(819/1023*255)]*3
    assert colour(dark, white=4095) == [51]*3
    # what has 8 bits stays
    assert torch.equal(read_image(first, white=4095), images[0])

@pytest.mark.parametrize('scale', [1, 255, 65535])
@pytest.mark.parametrize('kind', [np.float32, np.int32])
def test_floats_and_long_numbers(scale, kind):
    # whole numbers of 0 and 1 are dark
    if scale == 1 and kind == np.int32: return
    values = np.array([[0, .2, 1.]]*3)*scale
    im = Image.fromarray(values.astype(kind))
    image = read_image(saved(im, 'TIFF'))
    assert image[1,1].tolist() == [0, 51, 255]

@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'LA', 'PA'])
def test_grey_and_palettes(mode):
    im = first.convert('L').convert(mode)
    assert difference(read_image(im)[0], im.convert('L')) == 0

# for lightness, a = 80 and b = 67: red
UNUSUAL = dict(HSV=(0, 255, 255), YCbCr=(76, 85, 255), LAB=(136, 128 + 80, 128 + 67))

@pytest.mark.parametrize('mode', UNUSUAL)
def test_unusual_modes(mode):
    red = colour(Image.new(mode, (8, 8), UNUSUAL[mode]))
    assert difference(red, [255, 0, 0]) < 12

# ---- transparency and channels ----
@pytest.mark.parametrize('mode, value', [('RGBA', (255, 0, 0, 0)), ('LA', (0, 0))])
@pytest.mark.parametrize('size', [8, None])
def test_transparent_is_white(mode, value, size):
    clear = Image.new(mode, (20, 30), value)
    assert read_image(clear, size).min() == 255
    assert colour(clear, size, background='#0080ff') == [0, 128, 255]
    assert colour(clear, size, channels=1, background='black') == [0]

@pytest.mark.parametrize('kind', ['PNG', 'GIF'])
def test_transparent_colour_of_a_palette(kind):
    im = Image.new('P', (8, 8), 1)
    im.putpalette([0, 0, 0, 200, 0, 0])
    assert colour(saved(im, kind, transparency=1)) == [255]*3
    if kind == 'GIF': return
    faint = saved(im, kind, transparency=bytes([255, 51]))
    assert colour(faint) == [244, 204, 204]

@pytest.mark.parametrize('im', [plain(7), plain(65535, np.uint16)], ids=['8 bits', '16 bits'])
def test_transparent_grey(im):
    "One grey value may be declared transparent."
    data = saved(im, transparency=7)
    assert colour(data) == [255]*3

def test_four_channels():
    half = Image.new('RGBA', (8, 8), (10, 20, 30, 128))
    assert colour(half, channels=4) == [10, 20, 30, 128]
    assert colour(first, channels=4)[3] == 255

def test_an_invisible_colour_does_not_bleed():
    sprite = Image.new('RGBA', (64, 64), (0, 255, 0, 0))
    sprite.paste((200, 0, 0, 255), (16, 16, 48, 48))
    r, g, _, a = read_image(sprite, 7, channels=4).flatten(1)
    assert a.min() == 0
    assert g[a > 0].max() == 0
    assert r[a > 0].min() > 190

def test_one_channel():
    grey = first.convert('L')
    for im in (first, grey): assert difference(read_image(im, channels=1)[0], grey) == 0

# ---- size ----
def test_a_square_stays_as_it_is():
    assert torch.equal(read_image(first, 64), images[0])

def test_fit():
    "Crop keeps the middle, pad keeps all, stretch distorts."
    wide = Image.new('RGB', (200, 100), 'black')
    wide.paste('white', (40, 0, 160, 100))
    assert read_image(wide, 10).min() == 255
    row = read_image(wide, (10, 20), fit='stretch')[0,5]
    assert row[:3].max() < 5
    assert row[6:14].min() > 235
    padded = read_image(wide, 20, fit='pad', background='red')
    assert padded[:,0,0].tolist() == [255, 0, 0]
    assert padded[:,10,0].tolist() == [0, 0, 0]
    assert padded[:,10,10].tolist() == [255, 255, 255]
    # with a channel for it, the bars are transparent
    padded = read_image(wide, 20, fit='pad', channels=4)
    assert padded[3,0,0] == 0

@pytest.mark.parametrize('fit', ['crop', 'pad', 'stretch'])
@pytest.mark.parametrize('shape', [(1, 1), (1, 3000), (3000, 1), (2, 5), (1300, 700)])
def test_any_shape(shape, fit):
    im = Image.new('RGB', shape, 'red')
    assert read_image(im, 16, fit=fit).shape == (3, 16, 16)
    assert read_image(im, (30, 12), fit=fit, channels=1).shape == (1, 30, 12)

# ---- orientation ----
CORNERS = Image.new('RGB', (40, 20), 'black')
CORNERS.paste('red', (0, 0, 10, 10))
CORNERS.paste('lime', (30, 0, 40, 10))
# how Pillow turns an upright image into one that is stored with each value
STORED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}

@pytest.mark.parametrize('value', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'AVIF'])
def test_orientation(kind, value):
    stored = CORNERS.transpose(STORED[value]) if value in STORED else CORNERS
    exif = Image.Exif()
    exif[0x0112] = value
    how = {} if kind == 'TIFF' else dict(quality=100)
    image = read_image(saved(stored, kind, exif=exif, **how))
    assert image.shape == (3, 20, 40)
    red, lime, black = image[:,3,3], image[:,3,36], image[:,17,3]
    assert red[0] > 200 and red[1] < 60
    assert lime[1] > 200 and lime[0] < 60
    assert black.max() < 60

def entries(order):
    "Make the head of a block of EXIF data and, for the number of entries, a count; and an entry: a turn by a quarter."
    def entry(*values): return struct.pack(order + 'HHII', *values)
    def number(n): return struct.pack(order + 'H', n)
    name = b'II*\0' if order == '<' else b'MM\0*'
    head = name + struct.pack(order + 'I', 8)
    six = 6 if order == '<' else 6 << 16
    turned = entry(0x0112, 3, 1, six)
    return head, number, entry, turned

def photo_shape(block):
    data = saved(Image.new('RGB', (40, 20)), 'JPEG', exif=block)
    return read_image(data).shape

@pytest.mark.parametrize('order', ['<', '>'])
def test_orientation_of_broken_blocks(order):
    "The note is used if it is there, whatever is broken after it or before it."
    head, number, entry, turned = entries(order)
    blocks = dict(
        whole=head + number(1) + turned + bytes(4),
        nothing_after=head + number(1) + turned,
        cut=head + number(9) + turned,
        value_nowhere=head + number(2) + entry(0x010f, 2, 500, 60000) + turned,
        odd_type=head + number(2) + entry(0x011a, 77, 3, 1) + turned + bytes(4),
        entries_nowhere=head[:4] + struct.pack(order + 'I', 9999) + number(1) + turned)
    for name, block in blocks.items():
        assert photo_shape(b'Exif\0\0' + block) == (3, 40, 20), name

@pytest.mark.parametrize('order', ['<', '>'])
def test_blocks_that_say_nothing(order):
    head, number, entry, turned = entries(order)
    zero = head + number(1) + entry(0x0112, 3, 1, 0)
    for block in (b'', bytes(40), head, head + turned[:7], zero):
        block = b'Exif\0\0' + block
        assert photo_shape(block) == (3, 20, 40)

# ---- colour profiles ----
# what red, green and blue are in CIE XYZ
SPACES = dict(
    srgb=[[.4361, .3851, .1431], [.2225, .7169, .0606], [.0139, .0971, .7141]],
    p3=[[.51512, .29198, .15710], [.24120, .69225, .06657], [-.00105, .04189, .78407]],
    adobe=[[.60974, .20528, .14919], [.31111, .62567, .06322], [.01947, .06087, .74457]])
SPACES = {name: np.array(space) for name, space in SPACES.items()}
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()

def fixed(values): return struct.pack('>3i', *(round(v*65536) for v in values))

def rgb_profile(space, gamma=None):
    "Make the profile of another RGB space out of that of sRGB."
    data = bytearray(SRGB_PROFILE)
    count, = struct.unpack('>I', data[128:132])
    for i in range(count):
        entry = data[132+12*i:144+12*i]
        tag, at, _ = struct.unpack('>4sII', entry)
        if tag[1:] == b'XYZ':
            column = b'rgb'.index(tag[0])
            data[at+8:at+20] = fixed(SPACES[space][:,column])
        if gamma and tag == b'rTRC':
            curve = struct.pack('>4sIIH', b'curv', 0, 1, round(gamma*256))
            data[at:at+14] = curve
    # a profile called sRGB is left alone
    named = 'sRGB'.encode('utf-16-be')
    return bytes(data).replace(named, b'\0x'*4)

def linear(v): return np.where(v <= .04045, v/12.92, ((v + .055)/1.055)**2.4)

def encoded(v):
    v = v.clip(0, 1)
    return np.where(v <= .0031308, v*12.92, 1.055*v**(1/2.4) - .055)

@pytest.mark.parametrize('space, gamma', [('p3', None), ('adobe', 2.19922)])
@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'TIFF', 'WEBP', 'AVIF'])
def test_rgb_profiles(space, gamma, kind):
    "Display P3 and Adobe RGB, by the formula."
    how = dict(icc_profile=rgb_profile(space, gamma))
    if kind != 'TIFF': how['quality'] = 100
    for rgb in ((180, 120, 90), (60, 140, 200), (128, 128, 128), (90, 200, 120)):
        v = np.array(rgb)/255
        light = v**gamma if gamma else linear(v)
        xyz = SPACES[space]@light
        right = 255*encoded(np.linalg.solve(SPACES['srgb'], xyz))
        im = Image.new('RGB', (16, 16), rgb)
        data = saved(im, kind, **how)
        for size in (None, 8):
            found = colour(data, size)
            assert difference(found, right) < 3.5

def test_profile_with_transparency():
    how = dict(icc_profile=rgb_profile('adobe', 2.2))
    half = Image.new('RGBA', (8, 8), (255, 128, 0, 128))
    whole = colour(saved(half.convert('RGB'), **how))
    assert colour(saved(half, **how), channels=4) == [*whole, 128]
    assert whole != [255, 128, 0]

def test_profile_of_a_screen_in_a_grey_image():
    grey = saved(plain(100), icc_profile=rgb_profile('p3'))
    assert difference(colour(grey), 100) < 2

WHITE = fixed([.9642, 1, .8249])
DESC = b'desc' + bytes(4) + struct.pack('>I', 5) + b'test' + bytes(79)
RAMP = bytes(range(256))
IDENTITY = fixed([1, 0, 0]) + fixed([0, 1, 0]) + fixed([0, 0, 1])
# lightness, a and b for no ink and all ink of cyan, magenta, yellow, black
CORNERS_OF_INKS = bytes([255, 128, 128, 0, 128, 128]*8)
INKS = b'mft1' + bytes(4) + bytes([4, 3, 2, 0]) + IDENTITY + RAMP*4 + CORNERS_OF_INKS + RAMP*3

def cmyk_profile():
    "Make the profile of a strange press: only its black ink is seen."
    parts = dict(desc=DESC, cprt=b'text' + bytes(4) + b'none', wtpt=b'XYZ ' + bytes(4) + WHITE, A2B0=INKS)
    at = 128 + 4 + 12*len(parts)
    index = struct.pack('>I', len(parts))
    for name, part in parts.items():
        index += struct.pack('>4sII', name.encode(), at, len(part))
        at += len(part)
    head = struct.pack('>I4sI4s4s4s', at, b'lcms', 0x02400000, b'prtr', b'CMYK', b'Lab ')
    head += bytes(12) + b'acsp'
    head = head.ljust(68, b'\0') + WHITE
    return head.ljust(128, b'\0') + index + b''.join(parts.values())

@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
def test_cmyk(kind):
    "Without a profile by rule of thumb, with one as it says."
    cyan = Image.new('CMYK', (16, 16), (255, 0, 0, 0))
    grey = Image.new('CMYK', (16, 16), (255, 255, 0, 128))
    assert difference(colour(saved(cyan, kind)), [0, 255, 255]) < 4
    how = dict(icc_profile=cmyk_profile())
    white = colour(saved(cyan, kind, **how))
    assert min(white) > 250
    grey = colour(saved(grey, kind, **how))
    assert np.ptp(grey) < 4

PROFILES = dict(of_srgb=SRGB_PROFILE, cut_off=SRGB_PROFILE[:200], rubbish=b'rubbish', for_another_mode=cmyk_profile())

@pytest.mark.parametrize('name', PROFILES)
def test_profiles_that_change_nothing(name):
    assert torch.equal(read_image(saved(first, icc_profile=PROFILES[name])), images[0])

def test_notes_in_an_image(tmp_path):
    "Any text, in images of any number of channels; other files have none."
    file = tmp_path/'a.png'
    for channels in (1, 3, 4):
        image = torch.arange(channels*6, dtype=torch.uint8).view(channels, 2, 3)
        write_png(image, file, dict(seed=3, name='Gänse, 花'))
        assert read_facts(file) == dict(seed='3', name='Gänse, 花')
        assert torch.equal(read_image(file, channels=channels), image)
    (tmp_path/'b.png').write_bytes(file.read_bytes()[:30])
    (tmp_path/'c.png').write_text('')
    Image.new('RGB', (4, 4)).save(tmp_path/'d.png', 'JPEG')
    assert all(read_facts(tmp_path/f'{name}.png') == {} for name in 'bcde')
