"""Check the built site and README.md: every notebook has its page and its place in the sidebar, and no link or image
of our own is missing. Usage: check_links.py SITE_FOLDER"""
import re, sys
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

top = Path(__file__).resolve().parent.parent

def read(path): return path.read_text(encoding='utf-8')

class Page(HTMLParser):
    "The links, images and anchors of one page."
    def __init__(self, path):
        super().__init__()
        self.links, self.ids = set(), set()
        self.feed(read(path))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get('id'): self.ids.add(attrs['id'])
        if tag == 'a' and attrs.get('name'): self.ids.add(attrs['name'])
        if tag == 'base': return
        for key in ('href', 'src'):
            if attrs.get(key): self.links.add((tag, attrs[key]))

class Site:
    "The pages of a built site, and what is wrong with them."
    def __init__(self, folder):
        self.folder, self.bad, self.checked = folder, [], 0
        self.pages = {f: Page(f) for f in sorted(folder.rglob('*.html'))}
        settings = ConfigParser(delimiters=['='])
        settings.read(top/'settings.ini', encoding='utf-8')
        names = settings['DEFAULT']
        self.home = names['doc_host'] + names['doc_baseurl'] + '/'

    def check_link(self, page, tag, link):
        "Check that a link of a page leads somewhere."
        base = page.parent
        # nbdev links names to the published address
        published = tag == 'a' and link.startswith(self.home)
        if published: base, link = self.folder, './' + link[len(self.home):]
        parts = urlsplit(link)
        if parts.scheme or link.startswith('//'): return
        path, fragment = unquote(parts.path), unquote(parts.fragment)
        self.checked += 1
        file = (base/path).resolve() if path else page
        if file.is_dir(): file /= 'index.html'
        where = f'{page.relative_to(self.folder)}: {link}'
        if not file.exists(): return self.bad.append(f'{where}: no such file')
        if not fragment or file not in self.pages: return
        wanted = {fragment}
        # nbdev also links methods that only their class documents
        if published: wanted.add(fragment.rpartition('.')[0])
        if not wanted & self.pages[file].ids:
            self.bad.append(f'{where}: no such place in {file.name}')

    def check_links(self):
        for page, content in self.pages.items():
            for tag, link in sorted(content.links): self.check_link(page, tag, link)

    def check_notebooks(self):
        "Check that each notebook has its page, and its place in the sidebar; returns how many there are."
        nbs, n = top/'nbs', 0
        sidebar = read(nbs/'sidebar.yml')
        for notebook in sorted(nbs.rglob('*.ipynb')):
            rel = notebook.relative_to(nbs)
            if any(part[0] in '._' for part in rel.parts): continue
            n += 1
            # nbdev's rule
            name = re.sub(r'^\d+[a-zA-Z0-9]*_', '', rel.name.lower())
            page = rel.with_name(name).with_suffix('.html')
            if self.folder/page not in self.pages: self.bad.append(f'nbs/{rel}: no page {page}')
            if rel.as_posix() not in sidebar: self.bad.append(f'nbs/{rel}: not in nbs/sidebar.yml')
        return n

    def check_readme(self):
        "Check that what README.md links to is there, and that all its images are used."
        text = read(top/'README.md')
        links = {*re.findall(r'(?<!\w)\[[^\]]*\]\(([^)\s]+)', text)}
        links |= {*re.findall(r'(?:src|href)="([^"]+)"', text)}
        for link in sorted(links):
            parts = urlsplit(link)
            if parts.scheme or link.startswith('#'): continue
            file = top/unquote(parts.path)
            if not file.exists(): self.bad.append(f'README.md: {link}: no such file')
        for file in sorted((top/'index_files').rglob('*')):
            name = file.relative_to(top).as_posix()
            if file.is_file() and name not in links: self.bad.append(f'{name}: not used by README.md')

if __name__ == '__main__':
    site = Site(Path(sys.argv[1]).resolve())
    site.check_links()
    n = site.check_notebooks()
    site.check_readme()
    fine = f'{len(site.pages)} pages, {n} notebooks, {site.checked} internal links and images: none broken'
    print('\n'.join(site.bad) or fine)
    sys.exit(bool(site.bad))
