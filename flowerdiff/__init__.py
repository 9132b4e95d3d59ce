"""Diffusion models for images of flowers: `from flowerdiff import load`"""
__version__ = "0.1.0"

# imported when they are used, because PyTorch takes seconds
FRONT_DOORS = dict(load='models', load_images='data', train='runs')
FRONT_DOORS |= dict(read_image='images', Dashboard='dashboard')

def __getattr__(name):
    "Import a front door."
    if name not in FRONT_DOORS:
        raise AttributeError(f"module 'flowerdiff' has no attribute '{name}'")
    from importlib import import_module
    # these give models their methods to edit images, and to share a model
    for more in ('editing', 'evaluation'): import_module(f'flowerdiff.{more}')
    return getattr(import_module(f'flowerdiff.{FRONT_DOORS[name]}'), name)

def __dir__(): return [*globals(), *FRONT_DOORS]
