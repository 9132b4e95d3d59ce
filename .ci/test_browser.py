"""The dashboard in a real browser, in JupyterLab and as a page of its own.

    FLOWERDIFF_SLOW=1 pytest .ci/test_browser.py      with FLOWERDIFF_SHOTS=FOLDER it keeps its screenshots there
    python .ci/test_browser.py                        makes those of the documentation anew, in nbs/images
"""
import io, json, os, re, secrets, shutil, socket, subprocess, sys, time, urllib.error, urllib.request
from importlib.resources import files
from pathlib import Path
import pytest

pytestmark = pytest.mark.skipif(os.environ.get('FLOWERDIFF_SLOW') != '1', reason='needs a browser and a minute: set FLOWERDIFF_SLOW=1')

# No news pop-up over the page, and every cell in the page even when scrolled away
settings = {'apputils-extension/notification': '{"fetchNews": "false", "checkForUpdates": false, "doNotDisturbMode": true}',
            'notebook-extension/tracker': '{"windowingMode": "none"}'}

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def answers(url):
    try: return urllib.request.urlopen(url, timeout=2)
    except OSError: return None

@pytest.fixture
def lab(tmp_path):
    "The address of play.ipynb in a JupyterLab of its own, without anybody's settings."
    home, work, token = tmp_path/'home', tmp_path/'work', secrets.token_hex(16)
    for name, text in settings.items():
        file = home/f'settings/@jupyterlab/{name}.jupyterlab-settings'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    work.mkdir()
    shutil.copy(files('flowerdiff')/'notebooks/play.ipynb', work)
    env = {k: v for k, v in os.environ.items() if not k.startswith('JUPYTER')}
    env |= dict(JUPYTER_TOKEN=token, JUPYTER_CONFIG_DIR=f'{home}/config', JUPYTER_DATA_DIR=f'{home}/data', JUPYTER_RUNTIME_DIR=f'{home}/run',
                JUPYTERLAB_SETTINGS_DIR=f'{home}/settings', JUPYTERLAB_WORKSPACES_DIR=f'{home}/workspaces', IPYTHONDIR=f'{home}/ipython')
    port, log = free_port(), tmp_path/'lab.log'
    with log.open('w') as out:
        server = subprocess.Popen([sys.executable, '-m', 'jupyterlab', '--no-browser', '--allow-root', '--ip=127.0.0.1', f'--port={port}',
            '--ServerApp.port_retries=0', f'--ServerApp.root_dir={work}', '--expose-app-in-browser'], env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not answers(f'http://127.0.0.1:{port}/api'):
            assert server.poll() is None and time.monotonic() < end, f'JupyterLab did not start:\n{log.read_text()[-3000:]}'
            time.sleep(.25)
        yield f'http://127.0.0.1:{port}/lab/tree/play.ipynb?reset&token={token}'
    finally:
        server.terminate()               # takes its kernels with it
        try: server.wait(15)
        except subprocess.TimeoutExpired: server.kill(); server.wait()

@pytest.fixture
def page():
    "A page of a headless Chromium: the system's, or else Playwright's own."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=shutil.which('chromium') or shutil.which('chromium-browser'), args=['--no-sandbox', '--disable-gpu'])
        context = browser.new_context(viewport=dict(width=1120, height=1100), accept_downloads=True, permissions=['clipboard-read', 'clipboard-write'])
        page = context.new_page()
        page.on('dialog', lambda dialog: dialog.accept())
        try: yield page
        finally: browser.close()

# A number for what an <img> shows, or null while it changes
pixels = """async i => { try { await i.decode() } catch { return null }
    const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;
    const x = c.getContext('2d'); x.drawImage(i, 0, 0);
    return x.getImageData(0, 0, c.width, c.height).data.reduce((a, v) => (a*31 + v) >>> 0, 7) + ':' + c.width + 'x' + c.height }"""

count_pictures = """e => { window.pictures = new Set(); new MutationObserver(() => window.pictures.add(e.querySelector('img').src))
    .observe(e, {subtree: true, attributes: true, attributeFilter: ['src']}) }"""

# A kernel that never comes must not keep the test for ever: `evaluate` has no time limit of its own
kernel_is_there = """() => Promise.race([new Promise((_, no) => setTimeout(() => no('no kernel after 60 s'), 60000)),
    (async () => { const s = window.jupyterapp.shell.currentWidget.sessionContext; await s.ready; await s.session.kernel.info })()])"""

def idle(page): page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=60000)

class Dashboard:
    "The one on the page, as someone with a mouse sees it."
    def __init__(self, page): self.page, self.on = page, page.locator('.flowerdiff').last
    def button(self, name): return self.on.locator('button', has_text=re.compile(rf'^\s*{name}\s*$')).first
    def field(self, name): return self.on.get_by_label(name, exact=True)
    def says(self, text, seconds=60): self.on.locator('.widget-html', has_text=text).first.wait_for(timeout=1000*seconds)
    def pixels(self, k=0): return self.on.locator('.flowerdiff-screen img').nth(k).evaluate(pixels)
    def ready(self, seconds=0): self.on.locator('button:enabled', has_text='Generate').wait_for(timeout=1000*seconds)
    def write(self, name, text): self.field(name).fill(str(text)); self.field(name).press('Tab')

    def press(self, name='Generate'):
        "Press a button; back when the run has begun."
        self.button(name).click()
        self.on.locator('button:enabled', has_text='Stop').wait_for(timeout=10000)

    def end(self, seconds=120, text='pictures in'):
        "What is shown when the run has ended well."
        self.ready(seconds)
        self.says(text, 5)
        time.sleep(.3)
        return self.changes(None)

    def changes(self, before, seconds=5):
        "What is shown once it is no longer `before`."
        end = time.monotonic() + seconds
        while (now := self.pixels()) in (before, None):
            assert time.monotonic() < end, f'the picture is the same after {seconds} s'
            time.sleep(.05)
        return now

    def pick(self, i, cols=12, rows=5):
        "Click on picture `i`."
        at = self.on.locator('.flowerdiff-screen').first.bounding_box()
        self.page.mouse.click(at['x'] + (i % cols + .5)*at['width']/cols, at['y'] + (i//cols + .5)*at['height']/rows)

    def shot(self, name):
        "A screenshot, if they are wanted."
        if not (folder := os.environ.get('FLOWERDIFF_SHOTS')): return
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.page.mouse.move(0, 0)
        time.sleep(.5)
        self.on.screenshot(path=f'{folder}/dashboard-{name}.jpg', type='jpeg', quality=45)

def run_all(page):
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()

def open_notebook(page, address):
    page.goto(address, wait_until='domcontentloaded')
    page.locator('.jp-NotebookPanel .jp-Cell').first.wait_for(timeout=60000)
    page.evaluate(kernel_is_there)
    idle(page)

@pytest.fixture
def dashboard(lab, page):
    "play.ipynb, opened and run: the dashboard on its page."
    open_notebook(page, lab)
    page.keyboard.press('Control+b')       # the list of files away
    run_all(page)
    d = Dashboard(page)
    try: d.ready(60)
    except Exception: pytest.fail('no dashboard on the page, but: ' + '; '.join(page.locator('.jp-OutputArea-output').all_inner_texts()))
    idle(page)
    return d

def download(d, name, tmp_path):
    "What a button puts into the downloads."
    with d.page.expect_download(timeout=60000) as file: d.button(name).click()
    file.value.save_as(tmp_path/file.value.suggested_filename)
    return tmp_path/file.value.suggested_filename

def test_lab(dashboard, page, lab, tmp_path):
    from PIL import Image
    d = dashboard

    # Noise at once, which then changes until there is a result
    d.on.evaluate(count_pictures)
    began = time.monotonic()
    d.press()
    d.on.locator('img').first.wait_for(timeout=20000)
    noise, first = d.changes(None), time.monotonic() - began
    result, whole = d.end(), time.monotonic() - began
    print(f'noise {first:.2f} s after the click, result after {whole:.1f} s; {page.evaluate("window.pictures.size")} pictures shown')
    assert noise != result and page.evaluate('window.pictures.size') >= 2

    # A click: the picture with its code, which goes to the clipboard, and files
    d.pick(13)
    d.says('Picture 13 of seed 0')
    d.button('Copy code').click()
    time.sleep(.5)
    assert "load('attention')" in (code := page.evaluate('navigator.clipboard.readText()')) and 'start=13' in code
    at = d.on.locator('.flowerdiff-draw .flowerdiff-screen').bounding_box()
    for move in ((60, 60), (180, 200)):
        page.mouse.move(at['x'] + move[0], at['y'] + move[1])
        if move[0] == 60: page.mouse.down()
    page.mouse.up()
    d.on.locator('button:enabled', has_text='Fill in').wait_for(timeout=5000)
    d.shot('picture')
    im = Image.open(download(d, 'PNG', tmp_path))
    assert im.size == (12*66 + 2, 5*66 + 2) and 'flowerdiff' in im.text
    assert Image.open(one := download(d, 'Save PNG', tmp_path)).size == (64, 64)
    settings = download(d, 'Settings', tmp_path)
    assert json.loads(settings.read_text())['do'][0]['n'] == 60

    # The same by keyboard; the notebook does not take the arrows for itself
    d.on.locator('.flowerdiff-screen').first.focus()
    for key in ('ArrowRight', 'ArrowDown', 'Enter'): page.keyboard.press(key)
    d.says('Picture 26 of seed 0')
    d.press('Interpolate 13 to 26')
    d.end(text='12 pictures in')
    d.button('Back').click()
    assert d.changes(None) is not None
    d.says('60 pictures in', 5)

    # The other view and the slider, without sampling again
    d.button('rows by time step').click()
    rows = d.changes(result)
    d.button('guess').click()
    assert d.changes(rows) != result
    d.shot('rows')
    d.button('noisy').click()
    d.button('pictures').click()
    time.sleep(1)
    assert d.changes(rows) == result
    slider = d.on.locator('.widget-slider:visible').first
    slider.locator('.noUi-handle').focus()
    for _ in range(4): page.keyboard.press('ArrowLeft')
    d.says('sigma', 5)
    earlier = d.changes(result)
    for _ in range(4): page.keyboard.press('ArrowRight')
    assert d.changes(earlier) is not None
    d.says('result', 5)

    # The other network; the same seed gives the same pixels
    d.on.locator('button[title^="Locked"], .widget-toggle-button:has(.fa-unlock)').first.click()
    d.button('plain').click()
    d.press()
    plain = d.end()
    assert plain not in (result, noise)
    d.press()
    assert d.end() == plain
    assert d.on.get_by_role('combobox', name='Flower').is_enabled()
    d.press('Compare')
    assert d.end(text='From the same noise') not in (plain, result)
    d.shot('compare')

    # What is wrong is said
    d.write('Seed', 'tulip'); d.button('Generate').click(); d.says("seed is 'tulip'", 5); d.ready(5)
    d.write('Seed', '0')
    d.write('Steps', 10000); d.button('Generate').click(); d.says('steps is 10000', 5); d.ready(5)

    # Stop, and go on
    d.write('Steps', 1000)
    d.press()
    d.says('of 2000 evaluations')
    began = time.monotonic()
    d.button('Stop').click()
    d.ready(10)
    stopped = time.monotonic() - began
    print(f'stopped {stopped:.1f} s after the click')
    assert stopped < 2
    d.says('Stopped', 5)
    d.write('Steps', 2)
    d.press()
    two = d.end()
    assert two not in (result, plain, noise)

    # Run the cell again, then reload the page: it is all still there
    page.locator('.jp-CodeCell').last.click(position=dict(x=30, y=10))
    page.keyboard.press('Control+Enter')
    idle(page)
    d = Dashboard(page)
    assert d.changes(None) == two
    page.keyboard.press('Control+s')
    time.sleep(1)
    open_notebook(page, lab)
    d = Dashboard(page)
    d.ready(30)
    assert d.changes(None) == two
    assert d.field('Steps').input_value() == '2'
    d.press()
    assert d.end() == two

    # A narrow window
    page.keyboard.press('Control+b')
    page.set_viewport_size(dict(width=520, height=900))
    time.sleep(1)
    assert d.on.evaluate('e => e.scrollWidth <= e.clientWidth'), 'something is cut off in a narrow window'
    d.shot('narrow')

def command(name, folder):
    "A command of the package, as pip would write it."
    file = folder/f'flowerdiff_{name}'
    file.write_text(f'from flowerdiff.cli import {name}\n{name}()')
    return file

def test_training(dashboard, page, tmp_path):
    "A run in another process, watched."
    d = dashboard
    train = subprocess.Popen([sys.executable, command('train', tmp_path), '--data', 'drawn:64', '--size', '32', '--model', 'baseline',
                              '--batch_size', '8', '--minutes', '.5', '--out', 'runs/mine'], cwd=tmp_path/'work', stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        page.get_by_role('tab', name='Watch training').click()
        d.write('Folder', 'runs/mine')
        d.button('Watch').click()
        step = lambda: int(re.search(r'step ([\d,]+)', d.on.inner_text())[1].replace(',', ''))
        d.says('pictures a second', 60)
        first = step()
        d.on.locator('img.widget-image:visible').nth(1).wait_for(timeout=60000)      # losses, and a preview
        time.sleep(3)
        assert step() > first
        d.shot('training')
    finally: train.kill(); train.wait()

@pytest.fixture
def app(tmp_path):
    "The address of the page that `flowerdiff_lab --app` starts."
    pytest.importorskip('voila')
    log = tmp_path/'app.log'
    with log.open('w') as out:
        server = subprocess.Popen([sys.executable, command('lab', tmp_path), '--folder', tmp_path, '--app', '--no_browser', '--port', str(free_port())],
                                  stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r'http://\S+\?token=\w+', log.read_text())):
            assert server.poll() is None and time.monotonic() < end, f'no page:\n{log.read_text()[-3000:]}'
            time.sleep(.25)
        yield found[0]
    finally:
        if server.poll() is None: os.killpg(server.pid, 15)       # the command, and Voila that it has started
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
    d.says('Picture 7 of seed 0')
    d.shot('app')
    assert Image.open(download(d, 'PNG', tmp_path)).size == (12*66 + 2, 5*66 + 2)
    d.button('plain').click()
    d.press()
    assert d.end() != result

if __name__ == '__main__':
    os.environ |= dict(FLOWERDIFF_SLOW='1', FLOWERDIFF_SHOTS=str(Path(__file__).parents[1]/'nbs/images'))
    sys.exit(subprocess.call([sys.executable, '-m', 'pytest', '-q', '-s', __file__]))
