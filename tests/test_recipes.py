"""The recipes of the package: each can be trained, and those for large images are what the pages say of them."""
import math
import pytest, torch
from flowerdiff.core import make_folder
from flowerdiff.data import load_images
from flowerdiff.runs import Run
from flowerdiff.settings import RECIPES, Budget, Settings, read_recipe

names = sorted(file.name.removesuffix('.json') for file in RECIPES.iterdir())
direct = [name for name in names if name.startswith('direct')]

# (recipe, number of a stage)
stages = [(name, i) for name in names for i in range(len(read_recipe(name).get('stages', [{}])))]

def settings_of(name, stage=0, **changes):
    "Read the settings of a stage of a recipe, and its budget."
    recipe = read_recipe(name)
    recipe |= recipe.pop('stages', [{}])[stage]
    held_out = recipe.pop('held_out')
    budget = Budget(recipe.pop('minutes', None), recipe.pop('epochs', None))
    assert held_out == 'validation'
    return Settings(**recipe | changes), budget

@pytest.mark.parametrize('name, stage', stages)
def test_recipe_takes_a_step(name, stage, tmp_path):
    "A batch of two drawn images goes through the whole network, and changes it."
    settings, budget = settings_of(name, stage, batch_size=2)
    data = load_images('drawn:2', settings.size, verbose=False)
    run = Run(settings, data, make_folder(tmp_path/'run'), budget, device='cpu')
    before = [p.clone() for p in run.net.parameters()]
    run.train_step()
    after = list(run.net.parameters())
    assert all(p.isfinite().all() for p in after)
    same = [torch.equal(p, old) for p, old in zip(after, before)]
    assert not all(same)
    run.config.all_presets()

@pytest.mark.parametrize('name', direct)
def test_direct_recipes_shift_the_noise_and_attend_to_small_grids(name):
    s, _ = settings_of(name)
    shift = s.size/64
    middle = math.exp(s.noise_options['mean'])
    assert middle == pytest.approx(shift, rel=.02)
    assert s.preset['interval'] == pytest.approx([.2*shift, 5*shift])
    grid = s.size/s.net['fold']
    for level in s.net['attention']: assert grid/2**level <= 16
