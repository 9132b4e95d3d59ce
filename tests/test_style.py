"""How dense the code may be, how large the package, and who may import whom. Nothing is run but imports.

Density is counted over function bodies: neither signatures nor docstrings, comments and blank lines."""
import ast, re, subprocess, sys
from functools import cache
from pathlib import Path
import pytest

top = Path(__file__).resolve().parent.parent
package = sorted(p for p in (top/'flowerdiff').glob('*.py') if p.name != '_modidx.py')
scripts = sorted(p for folder in ('tests', 'research', '.ci') for p in (top/folder).glob('*.py'))

# of the package, in function bodies: 40,000 for 64 px, and what enlarging, what people bring, first contact and Muon take
MAX_NODES = 55_900
MAX_LINES = 500 # of a module, neither blank nor a marker of nbdev
MATHEMATICS = 'schedule', 'denoiser', 'baseline_unet', 'attention_unet', 'sampling', 'guidance'

def name_of(path): return str(path.relative_to(top))

def every(paths): return pytest.mark.parametrize('path', paths, ids=[name_of(p) for p in paths])

def read(path): return path.read_text(encoding='utf-8')

@cache
def tree_of(path): return ast.parse(read(path))

def functions(node):
    "Find the outermost functions; what is inside them belongs to them."
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)): yield child
        else: yield from functions(child)

def statements(path):
    "Find the statements of all function bodies, without the docstrings."
    for f in functions(tree_of(path)):
        documented = ast.get_docstring(f) is not None
        yield from f.body[documented:]

def count_nodes(path):
    "Count the syntax nodes in function bodies. Formatting does not change them."
    return sum(1 for s in statements(path) for _ in ast.walk(s))

def body_lines(path):
    "Find the lines of function bodies that hold code."
    lines = read(path).splitlines()
    numbers = set()
    for s in statements(path): numbers |= {*range(s.lineno - 1, s.end_lineno)}
    body = [lines[i].strip() for i in sorted(numbers)]
    kept = [i for i, line in zip(sorted(numbers), body) if line and line[0] != '#']
    return [lines[i] for i in kept]

def too_dense(path):
    "List what makes a file denser than the law allows."
    lines = body_lines(path)
    n = max(len(lines), 1)
    found = []
    for width, limit in ((100, .07), (140, .005), (180, 1e-9)):
        share = sum(len(line) > width for line in lines)/n
        if share >= limit: found.append(f'{share:.1%} of its lines have over {width} characters')
    nodes = count_nodes(path)/n
    if nodes >= 16: found.append(f'{nodes:.1f} syntax nodes a line (fewer than 16)')
    return found

@every(package + scripts)
def test_density(path):
    found = too_dense(path)
    assert not found, f'{found}: one statement, one thought, one line'

def test_package_is_small():
    nodes = sum(map(count_nodes, package))
    assert nodes <= MAX_NODES, f'{nodes:,} syntax nodes: at most {MAX_NODES:,}'

@every(package)
def test_module_is_short(path):
    lines = [line for line in read(path).splitlines() if line.strip()]
    n = sum(not line.startswith('# %%') for line in lines)
    assert n <= MAX_LINES, f'{n} lines: at most {MAX_LINES}. Two subjects make two notebooks'

def imports(path):
    "Find what a module imports from others of the package, as pairs of module and name."
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            full = '.'*node.level + (node.module or '')
            own = re.match(r'(?:\.|flowerdiff\.)(\w+)', full)
            if own: yield from ((own[1], a.name) for a in node.names)
        elif isinstance(node, ast.Import):
            names = [a.name.split('.') for a in node.names]
            yield from ((n[1], '') for n in names if n[0] == 'flowerdiff' and n[1:])

@every(package)
def test_no_private_imports(path):
    private = [f'{module}.{name}' for module, name in imports(path) if name.startswith('_')]
    assert not private, f'{private}: make them public, or define them where they are used'

@cache
def notebook_of(module):
    "Find the notebook that a module comes from; '' for none."
    path = top/f'flowerdiff/{module}.py'
    found = re.search(r'File to edit: \S*?(\w+)\.ipynb', read(path) if path.exists() else '')
    return found[1] if found else ''

@every(package)
def test_imports_go_one_way(path):
    own = notebook_of(path.stem)
    later = {module for module, _ in imports(path) if notebook_of(module) >= own}
    assert not later or not own, f'imports {later}: a notebook uses what stands above it'

def opens_text(node):
    "Does a call open a file, or read or write text?"
    if not isinstance(node, ast.Call): return False
    function, call = ast.unparse(node.func), ast.unparse(node)
    if function in ('Image.open', 'safe_open', 'write_text'): return False
    binary = re.search(r"'r?b'|'r\+b'", call)
    name = function.split('.')[-1]
    return name in ('open', 'read_text', 'write_text') and not binary

@every(package)
def test_text_is_utf8(path):
    "On Windows, files that are opened without an encoding have that of the code page."
    calls = [ast.unparse(node) for node in ast.walk(tree_of(path)) if opens_text(node)]
    without = [call for call in calls if 'utf-8' not in call]
    # screen.js and screen.css are ASCII
    assert not without or path.stem == 'dashboard', without

def test_mathematics_is_light():
    "Who reads or uses the mathematics needs neither Pillow nor datasets."
    code = ', '.join(f'flowerdiff.{m}' for m in MATHEMATICS)
    code = f'import sys, {code}; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=top, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    heavy = {'PIL', 'datasets'} & {*done.stdout.split()}
    assert not heavy, f'they import {heavy}'
