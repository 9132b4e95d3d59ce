"""The dashboard in a real browser, in JupyterLab and as a page of its own.

    FLOWERDIFF_SLOW=1 pytest tests/test_browser.py      FLOWERDIFF_SHOTS=FOLDER keeps its screenshots there
    python tests/test_browser.py                        makes those of the documentation, in nbs/images
    python tests/test_browser.py -k walk                the film alone
"""
import io, json, os, re, secrets, shutil, socket, subprocess, sys, time, urllib.request
from importlib.resources import files
from pathlib import Path
import pytest

slow = os.environ.get('FLOWERDIFF_SLOW') == '1'
pytestmark = pytest.mark.skipif(not slow, reason='needs a browser and minutes: set FLOWERDIFF_SLOW=1')

# No news pop-up over the page, and every cell in the page even when scrolled away
SETTINGS = {
    'apputils-extension/notification': dict(fetchNews='false', checkForUpdates=False, doNotDisturbMode=True),
    'notebook-extension/tracker': dict(windowingMode='none')}

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def answers(url):
    try: return urllib.request.urlopen(url, timeout=2)
    except OSError: return None

def wait_for(condition, server, log, seconds=60):
    "Wait until a server that writes a log is ready."
    end = time.monotonic() + seconds
    while not (found := condition()):
        alive = server.poll() is None and time.monotonic() < end
        assert alive, f'the server did not start:\n{log.read_text()[-3000:]}'
        time.sleep(.25)
    return found

def own_environment(home, token):
    "A JupyterLab without anybody's settings."
    env = {k: v for k, v in os.environ.items() if not k.startswith('JUPYTER')}
    folders = dict(JUPYTER_CONFIG_DIR='config', JUPYTER_DATA_DIR='data', JUPYTER_RUNTIME_DIR='run', IPYTHONDIR='ipython',
                   JUPYTERLAB_SETTINGS_DIR='settings', JUPYTERLAB_WORKSPACES_DIR='workspaces')
    for name, settings in SETTINGS.items():
        file = home/f'settings/@jupyterlab/{name}.jupyterlab-settings'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    return env | dict(JUPYTER_TOKEN=token) | {k: str(home/v) for k, v in folders.items()}

@pytest.fixture
def lab(tmp_path, request):
    "The address of play.ipynb in a JupyterLab of its own; its parameter says how many dashboards are in it."
    work, log, port, token = tmp_path/'work', tmp_path/'lab.log', free_port(), secrets.token_hex(16)
    work.mkdir()
    notebook = json.loads((files('flowerdiff')/'notebooks/play.ipynb').read_text())
    *before, dashboard = notebook['cells']
    notebook['cells'] = before + [dashboard | dict(id=f'dashboard{k}') for k in range(getattr(request, 'param', 1))]
    (work/'play.ipynb').write_text(json.dumps(notebook))
    options = ['--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}', '--ServerApp.port_retries=0',
               f'--ServerApp.root_dir={work}', '--expose-app-in-browser']
    with log.open('w') as out:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', *options], stdout=out, stderr=out,
                                  env=own_environment(tmp_path/'home', token), stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(f'http://127.0.0.1:{port}/api'), server, log)
        yield f'http://127.0.0.1:{port}/lab/tree/play.ipynb?reset&token={token}'
    finally:
        # takes its kernels with it
        server.terminate()
        try: server.wait(15)
        except subprocess.TimeoutExpired: server.kill()
        server.wait()

@pytest.fixture
def browser():
    "A headless Chromium: the system's, or else Playwright's own."
    from playwright.sync_api import sync_playwright
    path = shutil.which('chromium') or shutil.which('chromium-browser')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=['--no-sandbox', '--disable-gpu'])
        try: yield browser
        finally: browser.close()

def new_page(browser, **how):
    context = browser.new_context(accept_downloads=True, permissions=['clipboard-read', 'clipboard-write'], **how)
    page = context.new_page()
    page.on('dialog', lambda dialog: dialog.accept())
    return page

@pytest.fixture
def page(browser):
    "That of a laptop."
    return new_page(browser, viewport=dict(width=1366, height=1100))

@pytest.fixture
def phone(browser):
    return new_page(browser, viewport=dict(width=390, height=844), has_touch=True, is_mobile=True)

# A number for what the images show, or null while there are none
PIXELS = """e => { let sum = 7
    const all = [...e.querySelectorAll('canvas')]
    for (const c of all) sum = c.getContext('2d').getImageData(0, 0, c.width, c.height).data.reduce((a, v) => (a*31 + v) >>> 0, sum)
    return all.length ? `${sum}:${all.length}` : null }"""

# Are all images white, as before a run has something to show?
BLANK = """e => [...e.querySelectorAll('canvas')].every(c =>
    c.getContext('2d').getImageData(0, 0, c.width, c.height).data.every(v => v == 255))"""

# Seconds from a press of Generate to the bar that shows how far it is
LIFE = """e => new Promise(done => {
    const began = performance.now(), bar = e.querySelector('.widget-hprogress'), generate = e.querySelector('.fa-play').closest('button')
    const look = () => bar.offsetWidth ? done((performance.now() - began)/1000) : requestAnimationFrame(look)
    generate.click()
    look() })"""

# For each new size of the first image: pixels in it, where it is on the page, and the number of what the images show then
PLACES = 'e => { const pixels = ' + PIXELS + """
    window.places = []
    const canvas = e.querySelector('canvas')
    new MutationObserver(() => { const r = canvas.getBoundingClientRect()
        window.places.push([canvas.width, r.left, r.width, r.height, pixels(e)]) }).observe(canvas, {attributes: true}) }"""

# A kernel that never comes must not keep the test for ever: `evaluate` has no time limit of its own
KERNEL_IS_THERE = """() => Promise.race([
    new Promise((_, no) => setTimeout(() => no('no kernel after 60 s'), 60000)),
    (async () => { const s = window.jupyterapp.shell.currentWidget.sessionContext
        await s.ready
        await s.session.kernel.info })()])"""

def idle(page):
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60000)

class Dashboard:
    "The one on the page, as someone with a mouse sees it."
    def __init__(self, page):
        self.page, self.on = page, page.locator('.flowerdiff').last

    def button(self, name):
        # which says how many
        if name == 'Generate': name = r'Generate [\d,]+ images?'
        return self.on.locator('button', has_text=re.compile(rf'^\s*{name}\s*$')).first

    def field(self, name): return self.on.get_by_label(name, exact=True)

    def says(self, text, seconds=60):
        self.on.locator('.widget-html', has_text=text).first.wait_for(timeout=1000*seconds)

    @property
    def grid(self): return self.on.locator('.flowerdiff-screen').first

    @property
    def large(self): return self.on.locator('.flowerdiff-screen.draw canvas')

    def pixels(self): return self.grid.evaluate(PIXELS)

    def captions(self): return [text for text in self.on.locator('.flowerdiff-caption').all_inner_texts() if text]

    def labels(self): return [grid.locator('.row > span').all_inner_texts() for grid in self.on.locator('.by-time').all()]

    def ready(self, seconds=0):
        self.on.locator('button:enabled', has_text='Generate').wait_for(timeout=1000*seconds)

    def opened(self):
        "Wait until the first images are there."
        self.on.locator('.flowerdiff-caption', has_text='images').first.wait_for(timeout=90000)
        self.ready(60)

    def write(self, name, text):
        self.field(name).fill(str(text))
        self.field(name).press('Tab')

    def press(self, name='Generate'):
        "Press a button; back when the run has begun."
        self.button(name).click()
        self.on.locator('button:enabled', has_text='Stop').wait_for(timeout=10000)

    def end(self, seconds=240, text='images'):
        "What is shown when the run has ended well."
        self.ready(seconds)
        self.says('Done', 5)
        self.on.locator('.flowerdiff-caption', has_text=text).first.wait_for(timeout=5000)
        time.sleep(.3)
        return self.changes(None)

    def refuses(self, text):
        "Press Generate, which is refused."
        self.button('Generate').click()
        self.says(text, 5)
        self.ready(5)

    def changes(self, before, seconds=5):
        "What is shown once it is no longer `before`."
        end = time.monotonic() + seconds
        while (now := self.pixels()) in (before, None):
            assert time.monotonic() < end, f'the image is the same after {seconds} s'
            time.sleep(.05)
        return now

    def pick(self, i, k=0):
        "Click on image `i` of run `k`."
        self.on.locator('.flowerdiff-screen').nth(k).locator('figure').nth(i).click()

    def stop(self):
        "Stop, and return the share done: some steps of many are over."
        self.says(re.compile(r'[1-9]\d?%'), 60)
        self.button('Stop').click()
        self.says('Stopped at', 10)
        self.ready(10)
        share = re.search(r'Stopped at (\d+)%', self.on.inner_text())[1]
        assert self.captions()[0].endswith(' · stopped'), self.captions()
        return int(share)

    def upload(self, file):
        with self.page.expect_file_chooser() as chooser: self.on.locator('.widget-upload').click()
        chooser.value.set_files(file)

    def fits(self):
        "Nothing is wider than the window."
        wide = self.page.evaluate('document.documentElement.scrollWidth') > self.page.viewport_size['width']
        return not wide and self.on.evaluate('e => e.scrollWidth <= e.clientWidth')

    def shot(self, name):
        "A screenshot, if they are wanted."
        folder = os.environ.get('FLOWERDIFF_SHOTS')
        if not folder: return
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.page.mouse.move(0, 0)
        time.sleep(.5)
        self.on.screenshot(path=f'{folder}/dashboard-{name}.jpg', type='jpeg', quality=45)

def run_all(page):
    for name in ('Run', 'Run All Cells'): page.get_by_role('menuitem', name=name, exact=True).click()

def open_notebook(page, address):
    page.goto(address, wait_until='domcontentloaded')
    page.locator('.jp-NotebookPanel .jp-Cell').first.wait_for(timeout=60000)
    page.evaluate(KERNEL_IS_THERE)
    idle(page)

@pytest.fixture
def dashboard(lab, page):
    "play.ipynb, opened and run: the dashboard on its page."
    open_notebook(page, lab)
    # the list of files away
    page.keyboard.press('Control+b')
    run_all(page)
    d = Dashboard(page)
    try: d.opened()
    except Exception:
        texts = page.locator('.jp-OutputArea-output').all_inner_texts()
        pytest.fail(f"no dashboard on the page, but: {'; '.join(texts)}")
    idle(page)
    return d

def download(d, name, tmp_path):
    "What a button puts into the downloads."
    with d.page.expect_download(timeout=60000) as file: d.button(name).click()
    path = tmp_path/file.value.suggested_filename
    file.value.save_as(path)
    d.ready(10)
    return path

def first_screen(d, height):
    "On opening there are images, and what to do; the rest is folded away."
    assert d.captions()[0].startswith('12 images · with attention · any flower · seed 0 · dpmpp_2m, 7 steps · guidance 4 · ')
    first = d.grid.locator('figure').first.bounding_box()
    assert first['y'] + first['height'] < height and first['width'] > 40
    for name in ('Steps', 'Guidance', 'Images'): assert not d.field(name).is_visible(), f'{name} is not folded away'
    for name in ('Flower', 'Seed'): assert d.field(name).is_visible()
    d.says('Click an image to see it large', 1)
    assert d.fits()

def unfold(d):
    d.on.get_by_text('Advanced').click()
    d.field('Steps').wait_for(timeout=5000)
    d.says('How many it takes: 1 to 1,000', 1)

def generate(d):
    "A sign of life and noise at once, which then changes until there is a result."
    before, began = d.pixels(), time.monotonic()
    life = d.on.evaluate(LIFE)
    noise = d.changes(before)
    first = time.monotonic() - began
    result, whole = d.end(), time.monotonic() - began
    print(f'a sign of life after {life:.2f} s, noise after {first:.2f} s, result after {whole:.1f} s')
    assert noise != result and life < 2
    assert d.captions()[0].startswith('60 images · with attention · any flower · seed 0')
    return result

def click_and_copy(d):
    "A click: the image large and smooth, with its actions below it, and its code, which goes to the clipboard."
    d.pick(13)
    d.says('Image 13 of seed 0')
    at = d.large.bounding_box()
    assert at['width'] > 250 and d.button('Variations').bounding_box()['y'] > at['y'] + at['height']
    rendering = 'c => getComputedStyle(c).imageRendering'
    assert d.large.evaluate(rendering) == 'auto'
    d.field('Pixels').check()
    d.on.locator('.flowerdiff-screen.draw.pixels').wait_for(timeout=5000)
    assert d.large.evaluate(rendering) == 'pixelated'
    d.field('Pixels').uncheck()
    d.button('Copy code').click()
    time.sleep(.5)
    code = d.page.evaluate('navigator.clipboard.readText()')
    assert "load('attention')" in code and 'start=13' in code

def draw_rectangle(d):
    at, mouse = d.large.bounding_box(), d.page.mouse
    mouse.move(at['x'] + 60, at['y'] + 60)
    mouse.down()
    mouse.move(at['x'] + 180, at['y'] + 200)
    mouse.up()
    drawn = d.on.locator('i.rectangle').bounding_box()
    assert abs(drawn['x'] - at['x'] - 60) < 6 and abs(drawn['y'] - at['y'] - 60) < 6, 'drawn where the mouse was not'

def save_files(d, tmp_path):
    from PIL import Image
    im = Image.open(download(d, 'PNG', tmp_path))
    assert im.size == (12*66 + 2, 5*66 + 2) and 'flowerdiff' in im.text
    assert Image.open(download(d, 'Save PNG', tmp_path)).size == (64, 64)
    settings = download(d, 'Settings', tmp_path)
    assert json.loads(settings.read_text())[0]['n'] == 60

def use_the_keyboard(d):
    "The notebook does not take the arrows for itself. Back brings the images, and the controls."
    d.grid.focus()
    # from image 13, one to the right and one down
    cols = d.grid.evaluate("e => { const all = [...e.querySelectorAll('figure')]; "
                           "return all.filter(f => f.offsetTop == all[0].offsetTop).length }")
    for key in ('ArrowRight', 'ArrowDown', 'Enter'): d.page.keyboard.press(key)
    d.says(f'Image {13 + 1 + cols} of seed 0')
    d.press('Interpolate')
    d.end(text='12 images · interpolation')
    d.write('Steps', 3)
    d.button('Back').click()
    d.on.locator('.flowerdiff-caption', has_text='60 images').wait_for(timeout=5000)
    assert d.field('Steps').input_value() == '7'

def look_at_the_run(d, result):
    "The other view and the slider, without sampling again."
    d.button('rows by time step').click()
    rows = d.changes(result)
    d.button('denoised estimate').click()
    assert d.changes(rows) != result
    labels = d.labels()[0]
    assert labels[0] == 'sigma 40' and labels[-1] == 'sigma 0: image' and len(labels) == 8
    d.shot('rows')
    d.button('noisy').click()
    d.button('images').click()
    time.sleep(1)
    assert d.changes(rows) == result
    d.on.locator('.widget-slider:visible').first.locator('.noUi-handle').focus()
    for _ in range(4): d.page.keyboard.press('ArrowLeft')
    d.says('sigma', 5)
    earlier = d.changes(result)
    for _ in range(4): d.page.keyboard.press('ArrowRight')
    assert d.changes(earlier) is not None
    d.says('sigma 0: image', 5)

def use_the_other_network(d, result):
    "The same seed gives the same pixels. Compare takes what is shown, whatever the controls say by now."
    d.button('new seed each time').click()
    d.write('Images', 6)
    d.button('plain').click()
    d.press()
    # another network while one is at work
    d.button('with attention').click()
    plain = d.end(text='6 images · plain · any flower · seed 0')
    d.button('plain').click()
    d.press()
    assert d.end() == plain != result
    assert d.on.get_by_role('combobox', name='Flower').is_enabled()
    d.write('Flower', 'rose')
    d.press('Compare')
    d.end()
    plain, attention = d.captions()
    assert '6 images · plain · any flower · seed 0' in plain and '6 images · with attention · any flower · seed 0' in attention
    d.button('rows by time step').click()
    d.on.locator('.by-time').nth(1).wait_for(timeout=5000)
    time.sleep(1)
    a, b = d.labels()
    assert a == b and a[0] == 'sigma 80: pure noise' and a[-1] == 'sigma 0: image'
    widths = {round(box['width']) for box in [c.bounding_box() for c in d.on.locator('.by-time canvas').all()]}
    assert len(widths) == 1, f'columns of the widths {widths}'
    d.shot('compare')
    d.button('images').click()
    d.pick(3, k=1)
    d.says('Image 3 of seed 0')
    d.says('with attention: ', 5)
    d.write('Flower', '')

def type_nonsense(d):
    "What is typed stays there, and what is wrong with it is said."
    wrong = (
        ('Images', 0, 'Images = 0: give a whole number from 1 to 1000'),
        ('Images', 100000, 'Images = 100000: give a whole number from 1 to 1000'),
        ('Steps', 10000, 'Steps = 10000: give a whole number from 1 to 1000'),
        ('Guidance', -2, 'Guidance = -2.0: give a number from 0 to 100'),
        ('Seed', -1, 'Seed = -1: give a whole number from 0 to 4294967295'))
    for name, typed, message in wrong:
        before = d.field(name).input_value()
        d.write(name, typed)
        d.refuses(message)
        assert d.field(name).input_value() == str(typed)
        d.write(name, before)
    # a field of numbers takes no letters
    before = d.field('Seed').input_value()
    d.field('Seed').press_sequentially('abc')
    d.field('Seed').press('Tab')
    assert d.field('Seed').input_value() == before
    d.write('Images', 60)
    d.write('Flower', 'Sunn flour')
    d.refuses('did you mean sunflower')
    d.write('Flower', '')

def stop(d):
    "Stop, in the unit of the bar, on what the images would have become; and go on. The sheet is that of all classes."
    d.write('Flower', 'one of each')
    d.write('Steps', 200)
    d.press()
    d.says(re.compile(r'[1-9]\d?%'), 120)
    began = time.monotonic()
    share = d.stop()
    stopped = time.monotonic() - began
    print(f'stopped {stopped:.1f} s after the click, at {share}%')
    assert stopped < 2
    assert d.captions()[0].startswith('102 images · plain · one of each')
    assert d.grid.locator('figcaption').all_inner_texts()[:2] == ['pink primrose', 'hard-leaved pocket orchid']
    d.says('denoised estimate', 1)
    d.write('Flower', '')
    d.write('Images', 12)
    d.write('Steps', 2)
    d.press()
    return d.end()

def come_back(page, lab, shown):
    "Reload the page: it is all still there. Reload it in the middle of a run, and it goes on."
    page.keyboard.press('Control+s')
    time.sleep(1)
    open_notebook(page, lab)
    d = Dashboard(page)
    d.ready(30)
    assert d.changes(None) == shown
    assert d.field('Steps').input_value() == '2'
    d.write('Steps', 1000)
    d.press()
    d.says('%')
    page.goto('about:blank')
    open_notebook(page, lab)
    d = Dashboard(page)
    d.says('%')
    d.stop()
    d.button('Back').click()
    d.on.locator('.flowerdiff-caption', has_text=' 2 steps').wait_for(timeout=5000)
    time.sleep(.5)
    assert d.pixels() == shown and d.field('Steps').input_value() == '2'
    return d

def use_a_photo(d, photo):
    "It is selected, as any other image."
    d.upload(photo)
    d.on.locator('.flowerdiff-caption', has_text='A photo').wait_for(timeout=10000)
    d.says('Your photo', 10)
    d.ready(10)
    assert d.large.evaluate('c => [...c.getContext("2d").getImageData(32, 32, 1, 1).data]') == [200, 30, 60, 255]

@pytest.fixture
def photo(tmp_path):
    "Not of the size of the images."
    from PIL import Image
    Image.new('RGB', (300, 200), (200, 30, 60)).save(tmp_path/'photo.png')
    return tmp_path/'photo.png'

def test_lab(dashboard, page, lab, photo, tmp_path):
    d = dashboard
    first_screen(d, 768)
    unfold(d)
    result = generate(d)
    click_and_copy(d)
    draw_rectangle(d)
    d.shot('picture')
    save_files(d, tmp_path)
    use_the_keyboard(d)
    look_at_the_run(d, result)
    use_the_other_network(d, result)
    type_nonsense(d)
    use_a_photo(d, photo)
    draw_rectangle(d)
    d.press('Inpaint')
    d.says('%')
    d.stop()
    two = stop(d)
    assert two != result
    d = come_back(page, lab, two)
    # a narrow window
    page.set_viewport_size(dict(width=520, height=900))
    time.sleep(1)
    assert d.fits(), 'something is cut off in a narrow window'

@pytest.mark.parametrize('lab', [2], indirect=True)
def test_enlarging(dashboard, page, tmp_path):
    "Each small image is replaced by its large one, in its place, and a click shows it whole. Another dashboard is at work."
    from PIL import Image
    d, other = dashboard, Dashboard(page)
    other.on = page.locator('.flowerdiff').first
    for one in (d, other):
        unfold(one)
        one.write('Images', 12)
    other.button('plain').click()
    d.button('256').click()
    d.press()
    d.on.locator('.flowerdiff-caption', has_text='12 images').wait_for(timeout=10000)
    d.grid.evaluate(PLACES)
    other.press()
    assert other.end(text='12 images · plain') is not None
    all_large = d.end(text='12 images · size 256 · with attention')
    widths, *places, shown = zip(*page.evaluate('window.places'))
    assert shown[0] != all_large, 'none was small when the first was large'
    assert {*widths} == {256} and [len({*numbers}) for numbers in places] == [1, 1, 1], f'the grid has moved: {places}'
    d.pick(2)
    d.says('Image 2 of seed 0')
    assert d.large.evaluate('c => c.width') == 256
    assert Image.open(download(d, 'Save PNG', tmp_path)).size == (256, 256)
    im = Image.open(download(d, 'PNG', tmp_path))
    assert im.size == (12*258 + 2, 260) and json.loads(im.text['flowerdiff'])[0]['size'] == 256

def command(name, folder):
    "A command of the package, as pip would write it."
    file = folder/f'flowerdiff_{name}'
    file.write_text(f'from flowerdiff.cli import {name}\n{name}()')
    return file

def test_training(dashboard, page, tmp_path):
    "A run in another process, watched."
    d, nothing = dashboard, subprocess.DEVNULL
    options = '--data drawn:64 --size 32 --model baseline --batch_size 8 --minutes .5 --out runs/mine'
    train = subprocess.Popen([sys.executable, command('train', tmp_path), *options.split()], cwd=tmp_path/'work',
                             stdout=nothing, stderr=nothing)
    def step():
        found = re.search(r'step ([\d,]+)', d.on.inner_text())
        return int(found[1].replace(',', ''))
    try:
        page.get_by_role('tab', name='Watch training').click()
        d.write('Folder', 'runs/mine')
        d.button('Watch').click()
        d.says('images a second', 60)
        first = step()
        # losses, and a preview
        d.on.locator('img.widget-image:visible').nth(1).wait_for(timeout=60000)
        time.sleep(3)
        assert step() > first
        d.shot('training')
    finally:
        train.kill()
        train.wait()

@pytest.fixture
def app(tmp_path):
    "The address of the page that `flowerdiff_lab --app` starts."
    pytest.importorskip('voila')
    log, port = tmp_path/'app.log', str(free_port())
    options = ['--folder', tmp_path, '--app', '--no_browser', '--port', port]
    with log.open('w') as out:
        server = subprocess.Popen([sys.executable, command('lab', tmp_path), *options], stdout=out, stderr=out,
                                  stdin=subprocess.DEVNULL, start_new_session=True)
    try: yield wait_for(lambda: re.search(r'http://\S+\?token=\w+', log.read_text()), server, log)[0]
    finally:
        # the command, and Voila that it has started
        if server.poll() is None: os.killpg(server.pid, 15)
        server.wait(15)

def test_app(app, phone, photo, tmp_path):
    "On a telephone."
    from PIL import Image
    assert '127.0.0.1' in app or 'localhost' in app
    phone.goto(app.split('?')[0])
    assert not phone.locator('.flowerdiff').count(), 'a page without the token'
    phone.goto(app, timeout=60000)
    d = Dashboard(phone)
    d.opened()
    assert not phone.locator('.jp-InputArea-editor').count()
    assert 'Jupyter' not in phone.inner_text('body') and 'Run All' not in phone.inner_text('body')
    first_screen(d, 844)
    d.shot('phone')
    first = d.changes(None)
    d.pick(7)
    d.says('Image 7 of seed 0')
    time.sleep(1)
    large = d.large.bounding_box()
    assert large['width'] > 250 and large['y'] >= 0 and large['y'] + large['height'] <= 844, 'the image is out of sight'
    assert Image.open(download(d, 'PNG', tmp_path)).size == (12*66 + 2, 66 + 2)
    use_a_photo(d, photo)
    d.press('Variations')
    bar = d.on.locator('.widget-hprogress')
    phone.wait_for_function('e => { const {top, bottom} = e.getBoundingClientRect(); return top >= 0 && top < bottom && bottom <= innerHeight }',
                            arg=bar.element_handle(), timeout=3000)
    d.end(text='12 images · variations')
    use_a_photo(d, photo)
    d.press('Interpolate')
    d.end(text='12 images · interpolation')
    d.button('plain').click()
    d.press('Compare')
    d.end(text='12 images · interpolation of your photo and your photo · plain')
    d.button('rows by time step').click()
    d.on.locator('.by-time').nth(1).wait_for(timeout=5000)
    time.sleep(1)
    a, b = d.labels()
    assert a == b and a[0] == 'sigma 40: pure noise' and a[-1] == 'sigma 0: image'
    assert d.fits() and d.on.locator('.by-time').first.bounding_box()['width'] > 300
    assert first != d.pixels()

class Film:
    "Stills of a page, each with a line of text below it."
    def __init__(self, page): self.page, self.images, self.seconds = page, [], []

    def still(self, text, at=None, seconds=2.):
        "Photograph the page, with a ring around what is about to be clicked."
        from PIL import Image, ImageDraw, ImageFont
        if at: at.scroll_into_view_if_needed()
        photo = Image.open(io.BytesIO(self.page.screenshot())).convert('RGB')
        image = Image.new('RGB', (photo.width, photo.height + 44), '#263238')
        image.paste(photo)
        draw = ImageDraw.Draw(image)
        draw.text((16, photo.height + 9), text, 'white', ImageFont.load_default(22))
        if at:
            box = at.bounding_box()
            x, y = box['x'] + box['width']/2, box['y'] + box['height']/2
            draw.ellipse([x - 26, y - 26, x + 26, y + 26], outline='#e91e63', width=5)
        self.images.append(image)
        self.seconds.append(seconds)

    def save(self, file):
        first, *others = self.images
        first.save(file, save_all=True, append_images=others, duration=[int(1000*s) for s in self.seconds],
                   loop=0, quality=40, method=6)

def film_run(d, film, text, name, most=5):
    "Film a run from the press of a button to its end."
    film.still(text, d.button(name))
    d.press(name)
    last, began = None, len(film.images)
    while not d.button('Generate').is_enabled():
        now = d.pixels()
        if now != last and not d.grid.evaluate(BLANK): film.still(text, seconds=.6)
        last = now
        time.sleep(.3)
    # some of these, in equal steps
    more = len(film.images) - began
    few = min(most, more)
    kept = [*range(began), *[began + more*k//few for k in range(few)]]
    film.images, film.seconds = [[values[k] for k in kept] for values in (film.images, film.seconds)]

@pytest.mark.skipif('FLOWERDIFF_SHOTS' not in os.environ, reason='makes a film of the dashboard: say where with FLOWERDIFF_SHOTS')
def test_walk(app, browser, tmp_path):
    "Open, generate, scrub, compare, click, vary, save: a film for the documentation."
    page = new_page(browser, viewport=dict(width=1000, height=860))
    page.goto(app, timeout=60000)
    d, film = Dashboard(page), Film(page)
    d.opened()
    unfold(d)
    d.write('Images', 27)
    d.on.get_by_text('Advanced').click()
    time.sleep(.5)
    film.still('1. Open: the first flowers come by themselves')
    film_run(d, film, '2. Generate: noise becomes flowers', 'Generate')
    film.still('2. Generate: noise becomes flowers')
    handle, = d.on.locator('.widget-slider:visible .noUi-handle').all()
    for _ in range(5):
        handle.press('ArrowLeft')
        time.sleep(1)
        film.still('3. Scrub: the time slider goes back into the noise', handle, 1.)
    for _ in range(5): handle.press('ArrowRight')
    film_run(d, film, '4. Compare: both networks, from the same noise', 'Compare')
    film.still('4. Compare: both networks, from the same noise', seconds=3.)
    d.button('Back').click()
    d.on.locator('.flowerdiff-caption', has_text='27 images · with attention').wait_for(timeout=5000)
    time.sleep(.5)
    d.pick(5)
    d.says('Image 5 of seed 0')
    time.sleep(.5)
    film.still('5. Click: one flower, large, and the code that makes it', d.grid.locator('figure').nth(5), 3.)
    strength = d.on.locator('.widget-slider:visible .noUi-handle').last
    for _ in range(3): strength.press('ArrowRight')
    film.still('6. Vary: say how much it may change', strength)
    film_run(d, film, '6. Vary: twelve others like it', 'Variations')
    film.still('6. Vary: twelve others like it', seconds=3.)
    download(d, 'PNG', tmp_path)
    d.says('is in your downloads')
    film.still('7. Save: all of them, or one, with the settings inside', d.button('PNG'), 3.)
    folder = Path(os.environ['FLOWERDIFF_SHOTS'])
    folder.mkdir(parents=True, exist_ok=True)
    film.save(folder/'dashboard-walk.webp')

if __name__ == '__main__':
    images = Path(__file__).parents[1]/'nbs/images'
    os.environ |= dict(FLOWERDIFF_SLOW='1', FLOWERDIFF_SHOTS=str(images))
    sys.exit(subprocess.call([sys.executable, '-m', 'pytest', '-q', '-s', __file__, *sys.argv[1:]]))
