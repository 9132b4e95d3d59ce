"""What every notebook of the book owes its reader, checked without running it. (`test_notebooks.py` runs them.)"""
import ast, io, json, re, tokenize
from functools import cache
from pathlib import Path
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

top = Path(__file__).resolve().parent.parent
notebooks = sorted(nbglob(top/'nbs', as_path=True))
modules = sorted(p for p in (top/'flowerdiff').glob('*.py') if not p.name.startswith('_'))
text = lambda x: ''.join(x)
every = lambda paths: pytest.mark.parametrize('path', paths, ids=[p.stem for p in paths])

@cache
def cells(path): return [(c['cell_type'], text(c['source']), c.get('outputs', [])) for c in json.loads(path.read_text(encoding='utf-8'))['cells']]

def code_of(path): return [s for kind, s, _ in cells(path) if kind == 'code']

def parsed(src):
    "Its syntax tree, and the lines that hold a comment; cells of shell commands have none"
    try: return ast.parse(src), {t.start[0] for t in tokenize.generate_tokens(io.StringIO(src).readline) if t.type == tokenize.COMMENT}
    except SyntaxError: return ast.Module([], []), set()

@every(notebooks)
def test_title(path):
    first = cells(path)[0][1]
    assert re.match(r'# \S.*\n\n> \S', first), f'begins with {first[:60]!r}: want "# Title", an empty line, "> subtitle"'

@every(notebooks)
def test_prose(path):
    prose, code = (sum(k == kind for k, *_ in cells(path)) for kind in ('markdown', 'code'))
    assert prose >= .5*code, f'{prose} cells of prose to {code} of code'

@every(notebooks)
def test_alt_text(path):
    silent = [i for i, (_, s, outs) in enumerate(cells(path)) if any(m.startswith('image/') for o in outs for m in o.get('data', {})) and '#| fig-alt: "' not in s]
    silent += [f'{i}: {m[0]}' for i, (kind, s, _) in enumerate(cells(path)) if kind == 'markdown' for m in re.finditer(r'!\[\]\([^)]*\)|<img(?![^>]*alt=)[^>]*>', s)]
    assert not silent, f'pictures without alt text in cells {silent}'

@every(notebooks)
def test_size(path): assert path.stat().st_size < 1e6, f'{path.stat().st_size/1e6:.2f} MB: make figures smaller'

@every(notebooks)
def test_no_errors_or_warnings(path):
    bad = [i for i, (*_, outs) in enumerate(cells(path)) for o in outs if o['output_type'] == 'error' or 'Warning:' in text(o.get('text', ''))]
    assert not bad, f'errors or warnings in the stored outputs of cells {bad}'

def code_lines(src):
    "How many lines of a cell hold statements; documentation, parameters on lines of their own and comments are none"
    lines = set()
    for n in ast.walk(parsed(src)[0]):
        if not isinstance(n, ast.stmt) or isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant): continue
        lines |= {n.lineno} if hasattr(n, 'body') else {*range(n.lineno, n.end_lineno + 1)}
    return len(lines)

@every(notebooks)
def test_short_cells(path):
    long = [f'cell {i}: {n} lines' for i, (kind, s, _) in enumerate(cells(path)) if kind == 'code' and (n := code_lines(s)) > 25 and '# in one piece: ' not in s]
    assert not long, f'{long}: divide them, or give the reason in a comment, "# in one piece: ..."'

@every(notebooks)
def test_used_where_defined(path):
    "Every exported function and class is used in a cell further down; a method may serve one that was shown before."
    code, unused = code_of(path), []
    for i, s in enumerate(code):
        if not re.search(r'#\| ?export', s): continue
        for n in parsed(s)[0].body:
            if not isinstance(n, (ast.FunctionDef, ast.ClassDef)) or n.name.startswith('_') or n.name == 'forward': continue
            method = any('patch' in ast.unparse(d) for d in getattr(n, 'decorator_list', []))
            rest = code[:i]*method + [s.replace(f'def {n.name}', '').replace(f'class {n.name}', '')] + code[i + 1:]
            if not re.search(rf'\b{n.name}\b', '\n'.join(rest)): unused.append(n.name)
    assert not unused, f'exported, and never used: {unused}'

@every(modules)
def test_docments(path):
    tree, comments = parsed(path.read_text(encoding='utf-8'))
    missing = []
    def check(f, owner=''):
        if f.name.startswith('_') and f.name != '__init__': return
        a, name = f.args, f'{owner}{f.name}'
        params = [p for p in a.posonlyargs + a.args + a.kwonlyargs + [p for p in (a.vararg, a.kwarg) if p] if p.arg not in ('self', 'cls')]
        missing.extend(f'{name}({p.arg})' for p in params if p.lineno == f.lineno or p.lineno not in comments)
        if f.name not in ('__init__', 'forward') and not ast.get_docstring(f): missing.append(name)
    for n in tree.body:
        if isinstance(n, ast.FunctionDef): check(n)
        elif isinstance(n, ast.ClassDef) and not n.name.startswith('_'):
            if not ast.get_docstring(n): missing.append(n.name)
            for m in n.body:
                if isinstance(m, ast.FunctionDef): check(m, f'{n.name}.')
    assert not missing, f'no docment for {missing}'

def test_links():
    "Links between notebooks lead somewhere, and every notebook has its place in the sidebar."
    lost = [f'{p.name}: {m}' for p in notebooks for kind, s, _ in cells(p) if kind == 'markdown'
            for m in re.findall(r'\]\((?![a-z]+:|#)([^)#\s]+)', s) if not (p.parent/m).exists()]
    sidebar = (top/'nbs/sidebar.yml').read_text(encoding='utf-8')
    lost += [f'{p.name} is not in sidebar.yml' for p in notebooks if str(p.relative_to(top/'nbs')) not in sidebar]
    assert not lost, lost

@every([p for p in notebooks if p.stem not in ('index', '10_bench')])
def test_next(path): assert any('**Next:**' in s for kind, s, _ in cells(path)[-3:] if kind == 'markdown'), 'does not end with what comes next: "**Next:** ..."'
