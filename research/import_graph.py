"""Draw which module imports which: `python research/import_graph.py` writes nbs/images/imports.png

Modules stand in the order of their notebooks. Every arc goes from a module up to one that it imports."""
import ast
from pathlib import Path
import matplotlib.pyplot as plt
from matplotlib.patches import Arc

top = Path(__file__).resolve().parent.parent
notebooks = sorted((top/'nbs').glob('[0-9]*_*.ipynb'))
numbers, order = zip(*[p.stem.split('_', 1) for p in notebooks])

def imported(module):
    "Find the modules of the package that a module imports."
    tree = ast.parse((top/f'flowerdiff/{module}.py').read_text(encoding='utf-8'))
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom): continue
        name = node.module or ''
        if not node.level and not name.startswith('flowerdiff.'): continue
        found.add(name.removeprefix('flowerdiff.'))
    return found & {*order}

def draw(ax):
    "Draw the modules in a column, and their imports as arcs beside it."
    for i, module in enumerate(order):
        ax.text(-.2, -i, f'{numbers[i]} {module}', ha='right', va='center', fontsize=9)
        for other in imported(module):
            j = order.index(other)
            height = i - j
            color = f'C{j % 10}'
            ax.add_patch(Arc((0, -(i + j)/2), height, height, theta1=-90, theta2=90, color=color, lw=.8))
    ax.set(xlim=(-4, len(order)/2), ylim=(-len(order) + .5, .5), aspect='equal')
    ax.axis('off')

def main():
    "Write the picture."
    fig, ax = plt.subplots(figsize=(5, 6.4), layout='constrained')
    draw(ax)
    out = top/'nbs/images/imports.png'
    fig.savefig(out, dpi=110)
    print(out.relative_to(top))

if __name__ == '__main__': main()
