"""The notebook that `flowerdiff_lab` opens, in JupyterLab in a real browser: run it, press Generate, watch.

    FLOWERDIFF_SLOW=1 pytest .ci/test_browser.py      with FLOWERDIFF_SHOTS=FOLDER it keeps its screenshots there
"""
import os, secrets, shutil, socket, subprocess, sys, time, urllib.request
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
        try: yield browser.new_page(viewport=dict(width=1280, height=900))
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
    def __init__(self, page): self.page, self.on = page, page.locator('.jp-OutputArea-output').last
    def button(self, name): return self.on.locator('button', has_text=name)
    def field(self, name): return self.on.get_by_label(name, exact=True)
    def says(self, text, seconds=60): self.on.locator('.widget-html', has_text=text).wait_for(timeout=1000*seconds)
    def pixels(self): return self.on.locator('img').evaluate(pixels)
    def ready(self, seconds=0): self.on.locator('button:enabled', has_text='Generate').wait_for(timeout=1000*seconds)
    def busy(self): return self.button('Generate').is_disabled()

    def press(self):
        "Press Generate; back when the run has begun."
        self.button('Generate').click()
        self.on.locator('button:enabled', has_text='Stop').wait_for(timeout=10000)

    def end(self, seconds=120):
        "What is shown when the run has ended well."
        self.ready(seconds)
        self.says('pictures in', 5)
        return self.changes(None)

    def changes(self, before, seconds=5):
        "What is shown once it is no longer `before`."
        end = time.monotonic() + seconds
        while (now := self.pixels()) in (before, None):
            assert time.monotonic() < end, f'the picture is the same after {seconds} s'
            time.sleep(.05)
        return now

@pytest.fixture
def dashboard(lab, page):
    "play.ipynb, opened and run: the dashboard on its page."
    page.goto(lab, wait_until='domcontentloaded')
    page.locator('.jp-NotebookPanel .jp-Cell').first.wait_for(timeout=60000)
    page.evaluate(kernel_is_there)
    idle(page)
    page.get_by_role('menuitem', name='Run', exact=True).click()
    page.get_by_role('menuitem', name='Run All Cells', exact=True).click()
    d = Dashboard(page)
    try: d.ready(60)
    except Exception: pytest.fail('no dashboard on the page, but: ' + '; '.join(page.locator('.jp-OutputArea-output').all_inner_texts()))
    idle(page)
    return d

def test_play(dashboard, page, tmp_path):
    d, shots = dashboard, Path(os.environ.get('FLOWERDIFF_SHOTS') or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    shot = lambda name: page.screenshot(path=shots/f'{name}.png')
    shot('0-before')

    # Noise at once, which then changes until there is a result
    d.on.evaluate(count_pictures)
    began = time.monotonic()
    d.press()
    d.on.locator('img').wait_for(timeout=20000)
    noise, first = d.changes(None), time.monotonic() - began
    shot('1-running')
    result, whole = d.end(), time.monotonic() - began
    n = page.evaluate('window.pictures.size')
    print(f'noise {first:.1f} s after the click, result after {whole:.1f} s; {n} pictures shown')
    assert n >= 2
    assert noise != result or whole < 1   # a fast machine may be there before the first look
    shot('2-pictures')

    # The other view, without sampling again
    d.button('rows by time step').click()
    rows = d.changes(result)
    shot('3-rows')
    d.button('pictures').click()
    assert d.changes(rows) == result

    # The other network; the same seed gives the same pixels
    d.button('plain').click()
    d.press()
    plain = d.end()
    assert plain not in (result, noise)
    shot('4-plain')
    d.press()
    assert d.end() == plain

    # Stop, and go on
    d.field('Steps').fill('1000'); d.field('Steps').press('Tab')
    d.press()
    d.says('of 1000 evaluations')
    began = time.monotonic()
    d.button('Stop').click()
    d.ready(10)
    print(f'stopped {time.monotonic() - began:.1f} s after the click')
    d.says('Stopped', 5)
    d.field('Steps').fill('2'); d.field('Steps').press('Tab')
    d.press()
    assert d.end() not in (result, plain, noise)

    # A narrow window, with the list of files put away
    page.keyboard.press('Control+b')
    page.set_viewport_size(dict(width=520, height=900))
    time.sleep(1)
    assert d.on.evaluate('e => e.scrollWidth <= e.clientWidth'), 'something is cut off in a narrow window'
    shot('5-narrow')
