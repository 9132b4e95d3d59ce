"""What every notebook owes its reader, checked without running it. (`test_notebooks.py` runs them.)"""
import ast, io, json, re, statistics, tokenize
from functools import cache
from pathlib import Path
import pytest
from nbdev.doclinks import nbglob

top = Path(__file__).resolve().parent.parent
notebooks = sorted(nbglob(top/'nbs', as_path=True))
numbered = [p for p in notebooks if re.match(r'\d', p.name)]
modules = sorted(p for p in (top/'flowerdiff').glob('*.py') if not p.name.startswith('_'))
sidebar = (top/'nbs/sidebar.yml').read_text(encoding='utf-8')

def name_of(path):
    "Name a notebook or module: 'core' for 00_core.ipynb and core.py, 'tutorials/quickstart.ipynb' without a number."
    if path not in notebooks: return path.stem
    if path in numbered: return re.sub(r'^\d+_', '', path.stem)
    return str(path.relative_to(top/'nbs'))

def every(paths): return pytest.mark.parametrize('path', paths, ids=[name_of(p) for p in paths])

# What a notebook is made of

@cache
def cells(path):
    "Read the cells: kind, source, outputs."
    out = []
    for c in json.loads(path.read_text(encoding='utf-8'))['cells']:
        source = ''.join(c['source'])
        out.append((c['cell_type'], source, c.get('outputs', [])))
    return out

def code_of(path): return [source for kind, source, _ in cells(path) if kind == 'code']

def prose_of(path): return [source for kind, source, _ in cells(path) if kind == 'markdown']

def tree_of(source):
    "Parse a cell; cells of shell commands have no statements."
    try: return ast.parse(source)
    except SyntaxError: return ast.Module([], [])

def code_lines(source):
    "Count the lines that hold statements: not documentation, parameters on lines of their own, comments."
    lines = set()
    for node in ast.walk(tree_of(source)):
        if not isinstance(node, ast.stmt): continue
        value = getattr(node, 'value', None)
        if isinstance(node, ast.Expr) and isinstance(value, ast.Constant): continue
        # of a compound statement its first line; the others are statements themselves
        end = node.lineno if hasattr(node, 'body') else node.end_lineno
        lines |= {*range(node.lineno, end + 1)}
    return len(lines)

def only_imports(source):
    "Does a cell hold nothing but imports, or nothing at all?"
    kinds = ast.Import, ast.ImportFrom
    return all(isinstance(s, kinds) for s in tree_of(source).body)

def exports(source): return bool(re.search(r'^#\| *exports?\b', source, re.M))

def hides(source): return bool(re.search(r'^#\| *(hide\b|include: *false)', source, re.M))

def lessons(path):
    "Find the cells of code that a reader sees, without imports: source, outputs."
    for kind, source, outputs in cells(path):
        if kind != 'code' or only_imports(source) or hides(source): continue
        yield source, outputs

# Prose, figures and links

@every(notebooks)
def test_title(path):
    first = cells(path)[0][1]
    found = re.match(r'# \S.*\n\n> \S', first)
    assert found, f'begins with {first[:60]!r}: want "# Title", an empty line, "> subtitle"'

@every(notebooks)
def test_prose(path):
    prose, code = len(prose_of(path)), len(code_of(path))
    assert prose >= .5*code, f'{prose} cells of prose to {code} of code'

def shows_image(outputs):
    "Is there an image among the outputs of a cell?"
    kinds = [mime for out in outputs for mime in out.get('data', {})]
    return any(mime.startswith('image/') for mime in kinds)

@every(notebooks)
def test_alt_text(path):
    bare = r'!\[\]\([^)]*\)|<img(?![^>]*alt=)[^>]*>'
    silent = []
    for i, (kind, source, outputs) in enumerate(cells(path)):
        if shows_image(outputs) and '#| fig-alt: "' not in source: silent.append(i)
        if kind == 'markdown' and re.search(bare, source): silent.append(i)
    assert not silent, f'images without alt text in cells {silent}'

@every(notebooks)
def test_size(path):
    size = path.stat().st_size/1e6
    assert size < 1, f'{size:.2f} MB: make figures smaller'

@every(notebooks)
def test_no_errors_or_warnings(path):
    bad = []
    for i, (_, _, outputs) in enumerate(cells(path)):
        for out in outputs:
            text = ''.join(out.get('text', ''))
            if out['output_type'] == 'error' or 'Warning:' in text: bad.append(i)
    assert not bad, f'errors or warnings in the stored outputs of cells {bad}'

@every(notebooks)
def test_links(path):
    "Links between notebooks lead somewhere."
    text = '\n'.join(prose_of(path))
    links = re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', text)
    lost = [link for link in links if not (path.parent/link).exists()]
    assert not lost, f'links lead nowhere: {lost}'

def anchor(heading):
    "Make the name that a heading has on its page."
    words = re.sub(r'[^\w\s-]', '', heading.lower())
    return re.sub(r'\s+', '-', words.strip())

def anchors(path):
    "Find the names of the headings of a notebook."
    text = '\n'.join(prose_of(path))
    return {anchor(h) for h in re.findall(r'^#+ (.*)', text, re.M)}

@every(notebooks)
def test_anchors(path):
    "Links to a section of another notebook name one of its headings."
    text = '\n'.join(prose_of(path))
    links = re.findall(r'\]\(([^):#\s]+\.ipynb)#([^)\s]+)', text)
    lost = [f'{file}#{name}' for file, name in links if name not in anchors(path.parent/file)]
    assert not lost, f'links lead to no heading: {lost}'

@every(notebooks)
def test_sidebar(path):
    name = path.relative_to(top/'nbs')
    assert str(name) in sidebar, f'{name} is not in nbs/sidebar.yml'

def test_pages():
    "No two notebooks make the same page of the site, on which numbers are left out."
    names = [str(p.relative_to(top/'nbs')).lower() for p in notebooks]
    pages = [re.sub(r'^\d+[a-z0-9]*_', '', name) for name in names]
    twice = {page for page in pages if pages.count(page) > 1}
    assert not twice, f'{twice}: rename one notebook of each'

@every([p for p in notebooks if p.stem != 'index'])
def test_next(path):
    last = [source for kind, source, _ in cells(path)[-3:] if kind == 'markdown']
    assert '**Next:**' in '\n'.join(last), 'does not end with what comes next: "**Next:** ..."'

# Lessons: short cells, each followed by what it does

@every(notebooks)
def test_short_cells(path):
    "Half of the cells have at most 4 lines, nine in ten at most 12, and none more than 24."
    lines = sorted(filter(None, map(code_lines, code_of(path))))
    median = statistics.median(lines)
    tenth = lines[int(.9*(len(lines) - 1))]
    found = []
    if median > 4: found.append(f'the median cell has {median:g} lines (at most 4)')
    if tenth > 12: found.append(f'nine in ten cells have up to {tenth} lines (at most 12)')
    if lines[-1] > 24: found.append(f'the longest cell has {lines[-1]} lines (at most 24)')
    assert not found, found

@every(notebooks)
def test_shown(path):
    "Four in five cells that export nothing end in something to see."
    outputs = [outputs for source, outputs in lessons(path) if not exports(source)]
    shown, n = sum(map(bool, outputs)), len(outputs)
    assert shown >= .8*n, f'{shown} of {n} cells that export nothing have an output'

@every(numbered)
def test_in_a_row(path):
    "Never more than three exported cells in a row without a demonstration."
    kinds = ['e' if exports(source) else '.' for source, _ in lessons(path)]
    rows = ''.join(kinds).split('.')
    longest = max(map(len, rows))
    assert longest <= 3, f'{longest} exported cells in a row'

@every(numbered)
def test_hidden(path):
    "Hidden cells hold at most a tenth of the code."
    code = code_of(path)
    hidden = sum(code_lines(s) for s in code if hides(s))
    share = hidden/max(1, sum(map(code_lines, code)))
    assert share <= .1, f'{share:.0%} of the code is hidden: guards belong to tests/'

def definitions(source):
    "Find the public functions and classes that a cell exports, and whether they are methods."
    if not exports(source): return
    for node in tree_of(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        if node.name.startswith('_') or node.name == 'forward': continue
        decorators = [ast.unparse(d) for d in node.decorator_list]
        yield node.name, 'patch' in ' '.join(decorators)

@every(notebooks)
def test_used(path):
    "Every exported function and class is used in its cell or below; a method may serve one shown before."
    code, unused = code_of(path), []
    for i, source in enumerate(code):
        for name, method in definitions(source):
            own = re.sub(rf'(def|class) {name}\b', '', source)
            others = code[i + 1:]
            if method: others = code[:i] + others
            text = '\n'.join([own, *others])
            if not re.search(rf'\b{name}\b', text): unused.append(name)
    assert not unused, f'exported, and never used: {unused}'

# Documentation

def public(body, owner=''):
    "Find the public functions, classes and methods among statements: full name, node."
    for node in body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        if node.name.startswith('_') and node.name != '__init__': continue
        name = f'{owner}{node.name}'
        yield name, node
        if isinstance(node, ast.ClassDef): yield from public(node.body, f'{name}.')

def parameters(function):
    "Find the parameters of a function."
    a = function.args
    found = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
    return [p for p in found if p and p.arg not in ('self', 'cls')]

def undocumented(name, node, commented):
    "Find what lacks its documentation: the name itself, or parameters without a comment on their line."
    if not ast.get_docstring(node) and node.name not in ('__init__', 'forward'): yield name
    # all samplers have the signature that their decorator documents
    sampler = any(ast.unparse(d).startswith('sampler(') for d in node.decorator_list)
    if sampler or isinstance(node, ast.ClassDef): return
    for p in parameters(node):
        own = p.lineno > node.lineno and p.lineno in commented
        if not own: yield f'{name}({p.arg})'

@every(modules)
def test_docments(path):
    "Public names have a docstring, and their parameters a comment each."
    source = path.read_text(encoding='utf-8')
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    commented = {t.start[0] for t in tokens if t.type == tokenize.COMMENT}
    missing = []
    for name, node in public(ast.parse(source).body):
        missing += undocumented(name, node, commented)
    assert not missing, f'no docment for {missing}'
