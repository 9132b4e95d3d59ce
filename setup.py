"The package as settings.ini describes it."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=['='])
parser.read(here/'settings.ini', encoding='utf-8')
cfg = parser['DEFAULT']
words = lambda key: cfg.get(key, '').split()
extras = {name: words(f'{name}_requirements') for name in ('film', 'eval', 'app')}

licenses = {'apache2': 'Apache-2.0'}
statuses = dict(zip('1234567', ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature', '7 - Inactive']))
# A package index shows the README by itself, so what it links to is named by its full address.
address = lambda m: f"{m[1]}{m[2]}({cfg['git_url']}/{'raw' if m[1] else 'blob'}/{cfg['branch']}/"
readme = re.sub(r'(?<!\w)(!?)(\[[^\]]*\])\((?![a-z]+:|#)', address, (here/'README.md').read_text(encoding='utf-8'))

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme,
    long_description_content_type='text/markdown',
    author=cfg['author'],
    url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host'] + cfg['doc_baseurl']},
    keywords=cfg['keywords'],
    license_expression=licenses[cfg['license']],
    # The code is Apache-2.0; what may be done with the weights stands beside them.
    license_files=['LICENSE', 'flowerdiff/weights/LICENSE.md'],
    classifiers=[
        f"Development Status :: {statuses[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        'Intended Audience :: Education',
        f"Natural Language :: {cfg['language']}",
        'Framework :: Jupyter',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Processing',
        'Programming Language :: Python :: 3 :: Only',
    ],
    python_requires=f">={cfg['min_python']}",
    install_requires=words('requirements'),
    extras_require=extras | {'dev': words('dev_requirements') + sum(extras.values(), [])},
    packages=find_packages(include=['flowerdiff', 'flowerdiff.*']),
    package_data={'flowerdiff': ['weights/**', 'notebooks/*.ipynb', 'recipes/*.json', 'screen.*']},
    include_package_data=False,  # exactly what package_data names
    entry_points={
        'console_scripts': words('console_scripts'),
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"],  # lets nbdev link `names` in the docs to their pages
    },
    zip_safe=False,
)
