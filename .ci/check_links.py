"""Check the built site and README.md: every notebook has its page and its place in the sidebar, and no link or picture
of our own is missing. Usage: check_links.py SITE_FOLDER"""
import re, sys
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

top = Path(__file__).resolve().parent.parent
site = Path(sys.argv[1]).resolve()
parser = ConfigParser(delimiters=['='])
parser.read(top/'settings.ini', encoding='utf-8')
home = parser['DEFAULT']['doc_host'] + parser['DEFAULT']['doc_baseurl'] + '/'


class Page(HTMLParser):
    "The links, pictures and anchors of one page"
    def __init__(self, path):
        super().__init__()
        self.links, self.ids = set(), set()
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get('id'): self.ids.add(attrs['id'])
        if tag == 'a' and attrs.get('name'): self.ids.add(attrs['name'])
        for key in 'href', 'src':
            if attrs.get(key) and tag != 'base': self.links.add((tag, attrs[key]))


pages = {f: Page(f) for f in sorted(site.rglob('*.html'))}
bad, checked = [], 0

for page, content in pages.items():
    for tag, link in sorted(content.links):
        base, ours = page.parent, tag == 'a' and link.startswith(home)
        if ours: base, link = site, './' + link[len(home):]  # nbdev links names to the published address
        if urlsplit(link).scheme or link.startswith('//'): continue
        path, fragment = unquote(urlsplit(link).path), unquote(urlsplit(link).fragment)
        checked += 1
        file = (base/path).resolve() if path else page
        if file.is_dir(): file /= 'index.html'
        where = f'{page.relative_to(site)}: {link}'
        if not file.exists(): bad.append(f'{where}: no such file')
        # nbdev also links methods that only their class documents
        elif fragment and file in pages and not {fragment, fragment.rpartition('.')[0] if ours else fragment} & pages[file].ids: bad.append(f'{where}: no such place in {file.name}')

notebooks = [nb for nb in sorted((top/'nbs').rglob('*.ipynb')) if not any(part[0] in '._' for part in nb.relative_to(top/'nbs').parts)]
sidebar = (top/'nbs'/'sidebar.yml').read_text(encoding='utf-8')
for nb in notebooks:
    rel = nb.relative_to(top/'nbs')
    page = site/rel.with_name(re.sub(r'^\d+[a-zA-Z0-9]*_', '', rel.name.lower())).with_suffix('.html')  # nbdev's rule
    if page not in pages: bad.append(f'nbs/{rel}: no page {page.relative_to(site)}')
    if rel.as_posix() not in sidebar: bad.append(f'nbs/{rel}: not in nbs/sidebar.yml')

readme = (top/'README.md').read_text(encoding='utf-8')
links = {m[1] for m in re.finditer(r'(?<!\w)\[[^\]]*\]\(([^)\s]+)', readme)} | {m[1] for m in re.finditer(r'(?:src|href)="([^"]+)"', readme)}
for link in sorted(links):
    if not urlsplit(link).scheme and not link.startswith('#') and not (top/unquote(urlsplit(link).path)).exists(): bad.append(f'README.md: {link}: no such file')
for f in sorted((top/'index_files').rglob('*')) if (top/'index_files').exists() else []:
    if f.is_file() and f.relative_to(top).as_posix() not in links: bad.append(f'{f.relative_to(top)}: not used by README.md')

print('\n'.join(bad) or f'{len(pages)} pages, {len(notebooks)} notebooks, {checked} internal links and pictures: none broken')
sys.exit(bool(bad))
