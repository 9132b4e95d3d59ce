"""Checks that a tag, settings.ini and the package say the same version, and prints what CHANGELOG.md says about it.

    python .github/release.py v0.1.0    for a release: the entry must have a date
    python .github/release.py           as a rehearsal, for the version in settings.ini"""
import re, sys
from configparser import ConfigParser
from pathlib import Path

top = Path(__file__).resolve().parent.parent
read = lambda name: (top/name).read_text(encoding='utf-8')
settings = ConfigParser(delimiters=['='])
settings.read_string(read('settings.ini'))
version = settings['DEFAULT']['version']
package = re.search(r'^__version__ *= *"(.*)"', read('flowerdiff/__init__.py'), re.M)[1]
tag = sys.argv[1] if len(sys.argv) > 1 else None

if package != version: sys.exit(f'settings.ini says {version}, flowerdiff/__init__.py says {package}: run nbdev_export')
if tag not in (None, f'v{version}'): sys.exit(f'the tag is {tag}, settings.ini says {version}: the tag must be v{version}')
entry = re.search(rf'^## \[{re.escape(version)}\] - (.*?)\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)', read('CHANGELOG.md'), re.M | re.S)
if not entry: sys.exit(f'CHANGELOG.md has no entry that begins "## [{version}] - "')
date, notes = entry[1].strip(), re.sub(r'\n +', ' ', entry[2].strip())  # GitHub would break a release's lines where the file does
if tag and not re.fullmatch(r'\d{4}-\d\d-\d\d', date): sys.exit(f'CHANGELOG.md says "{date}" for {version}: give the date of the release, as in 2026-01-31')
if not notes: sys.exit(f'the entry for {version} in CHANGELOG.md is empty')
print(notes)
