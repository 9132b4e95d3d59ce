"""The dashboard in a real browser, in JupyterLab and as a page of its own.

    FLOWERDIFF_SLOW=1 pytest tests/test_browser.py      FLOWERDIFF_SHOTS=FOLDER keeps its screenshots there
    python tests/test_browser.py                        makes those of the documentation, in nbs/images
"""
import json, os, re, secrets, shutil, socket, subprocess, sys, time, urllib.request
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
def lab(tmp_path):
    "The address of play.ipynb in a JupyterLab of its own."
    work, log, port, token = tmp_path/'work', tmp_path/'lab.log', free_port(), secrets.token_hex(16)
    work.mkdir()
    shutil.copy(files('flowerdiff')/'notebooks/play.ipynb', work)
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
def page():
    "A page of a headless Chromium: the system's, or else Playwright's own."
    from playwright.sync_api import sync_playwright
    path = shutil.which('chromium') or shutil.which('chromium-browser')
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=['--no-sandbox', '--disable-gpu'])
        context = browser.new_context(viewport=dict(width=1120, height=1100), accept_downloads=True,
                                      permissions=['clipboard-read', 'clipboard-write'])
        page = context.new_page()
        page.on('dialog', lambda dialog: dialog.accept())
        try: yield page
        finally: browser.close()

# A number for what an <img> shows, or null while it changes
PIXELS = """async i => { try { await i.decode() } catch { return null }
    const c = document.createElement('canvas'), w = i.naturalWidth, h = i.naturalHeight
    c.width = w; c.height = h
    const x = c.getContext('2d')
    x.drawImage(i, 0, 0)
    return x.getImageData(0, 0, w, h).data.reduce((a, v) => (a*31 + v) >>> 0, 7) + ':' + w + 'x' + h }"""

COUNT_IMAGES = """e => { window.images = new Set()
    const look = () => window.images.add(e.querySelector('.flowerdiff-screen img').src)
    new MutationObserver(look).observe(e, {subtree: true, attributes: true, attributeFilter: ['src']}) }"""

# For each image that the grid shows: its width in pixels, and where it is on the page; the first may still be hidden
PLACES = """e => { window.places = []
    const img = e.querySelector('.flowerdiff-screen img')
    img.addEventListener('load', () => { const r = img.getBoundingClientRect()
        if (r.width) window.places.push([img.naturalWidth, r.left, r.width, r.height]) }) }"""

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
        return self.on.locator('button', has_text=re.compile(rf'^\s*{name}\s*$')).first

    def field(self, name): return self.on.get_by_label(name, exact=True)

    def says(self, text, seconds=60):
        self.on.locator('.widget-html', has_text=text).first.wait_for(timeout=1000*seconds)

    def pixels(self): return self.on.locator('.flowerdiff-screen img').first.evaluate(PIXELS)

    def ready(self, seconds=0):
        self.on.locator('button:enabled', has_text='Generate').wait_for(timeout=1000*seconds)

    def write(self, name, text):
        self.field(name).fill(str(text))
        self.field(name).press('Tab')

    def press(self, name='Generate'):
        "Press a button; back when the run has begun."
        self.button(name).click()
        self.on.locator('button:enabled', has_text='Stop').wait_for(timeout=10000)

    def end(self, seconds=180, text='images in'):
        "What is shown when the run has ended well."
        self.ready(seconds)
        self.says(text, 5)
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

    def pick(self, i, cols=12, rows=5):
        "Click on image `i`."
        at = self.on.locator('.flowerdiff-screen').first.bounding_box()
        x, y = (i % cols + .5)/cols, (i//cols + .5)/rows
        self.page.mouse.click(at['x'] + x*at['width'], at['y'] + y*at['height'])

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
    try: d.ready(60)
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

def generate(d):
    "Noise at once, which then changes until there is a result."
    d.on.evaluate(COUNT_IMAGES)
    began = time.monotonic()
    d.press()
    d.on.locator('.flowerdiff-screen img').first.wait_for(timeout=20000)
    noise, first = d.changes(None), time.monotonic() - began
    result, whole = d.end(), time.monotonic() - began
    shown = d.page.evaluate('window.images.size')
    print(f'noise {first:.2f} s after the click, result after {whole:.1f} s; {shown} images shown')
    assert noise != result and shown >= 2
    return result

def click_and_copy(d):
    "A click: the image with its code, which goes to the clipboard."
    d.pick(13)
    d.says('Image 13 of seed 0')
    d.button('Copy code').click()
    time.sleep(.5)
    code = d.page.evaluate('navigator.clipboard.readText()')
    assert "load('attention')" in code and 'start=13' in code

def draw_rectangle(d):
    at = d.on.locator('.flowerdiff-draw .flowerdiff-screen').bounding_box()
    mouse = d.page.mouse
    mouse.move(at['x'] + 60, at['y'] + 60)
    mouse.down()
    mouse.move(at['x'] + 180, at['y'] + 200)
    mouse.up()
    drawn = d.on.locator('i.rectangle').bounding_box()
    assert abs(drawn['x'] - at['x'] - 60) < 4 and abs(drawn['y'] - at['y'] - 60) < 4, 'drawn where the mouse was not'
    d.shot('picture')

def save_files(d, tmp_path):
    from PIL import Image
    im = Image.open(download(d, 'PNG', tmp_path))
    assert im.size == (12*66 + 2, 5*66 + 2) and 'flowerdiff' in im.text
    assert Image.open(download(d, 'Save PNG', tmp_path)).size == (64, 64)
    settings = download(d, 'Settings', tmp_path)
    assert json.loads(settings.read_text())[0]['n'] == 60

def use_the_keyboard(d):
    "The notebook does not take the arrows for itself."
    d.on.locator('.flowerdiff-screen').first.focus()
    for key in ('ArrowRight', 'ArrowDown', 'Enter'): d.page.keyboard.press(key)
    d.says('Image 26 of seed 0')
    d.press('Interpolate')
    d.end(text='12 images in')
    d.button('Back').click()
    assert d.changes(None) is not None
    d.says('60 images in', 5)

def look_at_the_run(d, result):
    "The other view and the slider, without sampling again."
    d.button('rows by time step').click()
    rows = d.changes(result)
    d.button('denoised estimate').click()
    assert d.changes(rows) != result
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
    d.says('result', 5)

def use_the_other_network(d, result):
    "The same seed gives the same pixels."
    d.on.locator('.widget-toggle-button:has(.fa-unlock)').first.click()
    d.button('plain').click()
    d.press()
    plain = d.end()
    assert plain != result
    d.press()
    assert d.end() == plain
    assert d.on.get_by_role('combobox', name='Flower').is_enabled()
    d.press('Compare')
    assert d.end(text='plain: 60 images in') not in (plain, result)
    d.shot('compare')
    # an image of the second network
    d.pick(63, rows=10)
    d.says('Image 3 of seed 0')
    d.says('plain: ', 5)

def type_nonsense(d):
    "What is wrong is said."
    d.write('Seed', -1)
    d.refuses('seed = -1: give a whole number')
    d.write('Seed', 0)
    d.write('Steps', 10000)
    d.refuses('steps = 10000')

def stop(d):
    "Stop, and go on."
    d.write('Steps', 1000)
    d.press()
    d.says('% done')
    began = time.monotonic()
    d.button('Stop').click()
    d.ready(10)
    stopped = time.monotonic() - began
    print(f'stopped {stopped:.1f} s after the click')
    assert stopped < 2
    d.says('Stopped', 5)
    d.write('Steps', 2)
    d.press()
    return d.end()

def come_back(page, lab, shown):
    "Reload the page: it is all still there."
    page.keyboard.press('Control+s')
    time.sleep(1)
    open_notebook(page, lab)
    d = Dashboard(page)
    d.ready(30)
    assert d.changes(None) == shown
    assert d.field('Steps').input_value() == '2'
    d.press()
    assert d.end() == shown
    return d

def test_lab(dashboard, page, lab, tmp_path):
    d = dashboard
    result = generate(d)
    click_and_copy(d)
    draw_rectangle(d)
    save_files(d, tmp_path)
    use_the_keyboard(d)
    look_at_the_run(d, result)
    use_the_other_network(d, result)
    type_nonsense(d)
    two = stop(d)
    assert two != result
    d = come_back(page, lab, two)
    # a narrow window
    page.keyboard.press('Control+b')
    page.set_viewport_size(dict(width=520, height=900))
    time.sleep(1)
    whole = d.on.evaluate('e => e.scrollWidth <= e.clientWidth')
    assert whole, 'something is cut off in a narrow window'
    d.shot('narrow')

def test_enlarging(dashboard, page, tmp_path):
    "Each small image is replaced by its large one, in its place, and a click shows it whole."
    from PIL import Image
    d = dashboard
    d.write('Images', 4)
    d.button('256').click()
    d.on.evaluate(PLACES)
    d.press()
    d.says('of 4')
    partly = d.pixels()
    assert d.end() != partly
    widths, *places = zip(*page.evaluate('window.places'))
    # those enlarged came one after the other
    assert [*widths] == sorted(widths) and {*widths} == {4*66 + 2, 4*(4*66 + 2)} and widths.count(widths[-1]) >= 2
    assert [len({*numbers}) for numbers in places] == [1, 1, 1], f'the grid has moved: {places}'
    d.pick(2, 4, 1)
    d.says('Image 2 of seed 0')
    image = d.on.locator('.flowerdiff-draw img')
    assert image.evaluate('i => [i.naturalWidth, i.width]') == [256, 256]
    assert Image.open(download(d, 'Save PNG', tmp_path)).size == (256, 256)
    im = Image.open(download(d, 'PNG', tmp_path))
    assert im.size == (4*(4*66 + 2), 4*68) and json.loads(im.text['flowerdiff'])[0]['size'] == 256

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

def test_app(app, page, tmp_path):
    from PIL import Image
    assert '127.0.0.1' in app or 'localhost' in app
    page.goto(app.split('?')[0])
    assert not page.locator('.flowerdiff').count(), 'a page without the token'
    page.goto(app, timeout=60000)
    d = Dashboard(page)
    d.ready(60)
    assert not page.locator('.jp-InputArea-editor').count()
    d.press()
    result = d.end()
    d.pick(7)
    d.says('Image 7 of seed 0')
    d.shot('app')
    assert Image.open(download(d, 'PNG', tmp_path)).size == (12*66 + 2, 5*66 + 2)
    d.button('plain').click()
    d.press()
    assert d.end() != result

if __name__ == '__main__':
    images = Path(__file__).parents[1]/'nbs/images'
    os.environ |= dict(FLOWERDIFF_SLOW='1', FLOWERDIFF_SHOTS=str(images))
    sys.exit(subprocess.call([sys.executable, '-m', 'pytest', '-q', '-s', __file__]))
