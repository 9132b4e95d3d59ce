"""What `import flowerdiff` and `python -m flowerdiff` give."""
import subprocess, sys

import flowerdiff, pytest

def python(*args):
    "Run Python, and return what it prints."
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout

def test_import_is_light():
    code = 'import sys; old = {*sys.modules}; import flowerdiff; print(*{*sys.modules} - old)'
    assert python('-c', code).split() == ['flowerdiff']

def test_front_doors():
    from flowerdiff import Dashboard, load, load_images, read_image, train
    for f in (Dashboard, load, load_images, read_image, train): assert f.__name__ in dir(flowerdiff)

def test_loaded_models_edit():
    "Whoever has only met load finds all that models can do."
    printed = python('-c', 'from flowerdiff import load; print(*dir(load()))')
    assert {'variations', 'interpolate', 'inpaint', 'push_to_hub'} <= {*printed.split()}

def test_no_other_names():
    with pytest.raises(ImportError): from flowerdiff import paint
    with pytest.raises(AttributeError, match="no attribute 'paint'"): flowerdiff.paint

def test_commands_are_listed():
    listed = python('-m', 'flowerdiff')
    names = 'sample', 'enlarge', 'train', 'eval', 'lab'
    assert all(f'flowerdiff_{name} ' in listed for name in names)
    assert 'Make flowers from noise' in listed
