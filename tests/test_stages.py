"Guards of flowerdiff.stages: what is refused, what each stage starts from, and exact resume."
import json, re, subprocess, sys
import pytest, torch
from flowerdiff.core import FlowerDiffError
from flowerdiff.checkpoints import Checkpoint
from flowerdiff.data import load_images
from flowerdiff.models import load
from flowerdiff.runs import Run, Stopped, train
from flowerdiff.settings import read_recipe
from flowerdiff.stages import plan_stages, train_stages

LITTLE = dict(model='baseline', batch_size=8, net=dict(widths=[8, 16]), device='cpu')
STAGES = [dict(size=8, epochs=4, lr=2e-3), dict(size=16, epochs=3)]

@pytest.fixture(scope='module')
def data(): return load_images('drawn:24', 16, verbose=False)

@pytest.fixture(scope='module')
def done(data, tmp_path_factory):
    "The folder of a complete run."
    folder = tmp_path_factory.mktemp('stages')/'done'
    go(data, folder)
    return folder

def go(data, folder, stages=STAGES, **kw):
    "Train in stages."
    return train_stages(data, folder, stages, **LITTLE | kw)

def weights(folder): return (folder/'model.safetensors').read_bytes()

WRONG = [
    (5, 'stages is 5'),
    ([], 'stages is []'),
    ({}, 'stages is {}'),
    ([dict(size=8)], 'give settings, and epochs or minutes'),
    ([7], 'stage 1 is 7'),
    ([*STAGES, dict(size=16, epochs=1, lr=7)], 'lr is 7'),
    ([*STAGES, dict(size=16, epochs=0)], 'epochs is 0'),
    ([*STAGES, dict(size=16, epochs=1, depth=3)], 'depth')]

@pytest.mark.parametrize('stages, message', WRONG)
def test_refused_at_once(data, tmp_path, stages, message):
    with pytest.raises(FlowerDiffError, match=re.escape(message)): go(data, tmp_path/'run', stages)
    assert not (tmp_path/'run').exists()

def test_larger_than_loaded(data, tmp_path):
    with pytest.raises(FlowerDiffError, match='load them larger'):
        go(data, tmp_path/'run', [dict(size=32, epochs=1)])

def test_sizes_are_checked_first(data, tmp_path):
    "The network halves images once, which 15 px does not allow."
    with pytest.raises(FlowerDiffError, match='multiples of 2'):
        go(data, tmp_path/'run', [dict(size=8, epochs=1), dict(size=15, epochs=1)])
    assert not (tmp_path/'run').exists()

def test_stream(data, tmp_path, monkeypatch):
    import flowerdiff.stages
    monkeypatch.setattr(flowerdiff.stages, 'ImageStream', type(data))
    with pytest.raises(FlowerDiffError, match='leave out stream'): go(data, tmp_path/'run')

def test_taken(data, done):
    with pytest.raises(FlowerDiffError, match='already holds a run'): go(data, done)

def test_each_has_its_size(done):
    assert [load(folder, 'cpu').config.size for folder in (done/'stage-1', done)] == [(8, 8), (16, 16)]

def test_like_two_runs(data, done, tmp_path):
    "A stage is what a run with init is."
    first = train(data.resized(8), tmp_path/'a', **LITTLE | STAGES[0])
    train(data, tmp_path/'b', init=str(tmp_path/'a'), **LITTLE | STAGES[1])
    assert weights(tmp_path/'b') == weights(done)

def test_init_is_for_the_first(data, done, tmp_path):
    go(data, tmp_path/'run', init=str(done))
    first, last = [Checkpoint(tmp_path/'run'/name).read(with_state=False)[0]['settings'] for name in ('stage-1', '')]
    assert first['init'] == str(done) and last['init'] == str(tmp_path/'run/stage-1')
    before = weights(tmp_path/'run')
    go(data, tmp_path/'run', init=str(done), resume=True)
    assert weights(tmp_path/'run') == before

@pytest.mark.parametrize('steps', [5, 12, 16])
def test_stopped_in_any_stage(data, done, tmp_path, monkeypatch, steps):
    "In the first, between both, and in the second: the same weights."
    taken, step = 0, Run.train_step
    def counted(self):
        nonlocal taken
        if taken == steps: raise Stopped('stopped', 15)
        taken += 1
        step(self)
        if taken == steps: self.checkpoint()
    with monkeypatch.context() as m:
        m.setattr(Run, 'train_step', counted)
        with pytest.raises(Stopped): go(data, tmp_path/'run')
    go(data, tmp_path/'run', resume=True)
    assert weights(tmp_path/'run') == weights(done)

def test_moved(data, done, tmp_path):
    "A run goes on in another place."
    go(data, tmp_path/'old')
    (tmp_path/'old').rename(tmp_path/'new')
    go(data, tmp_path/'new', resume=True)
    assert weights(tmp_path/'new') == weights(done)

def test_first_is_over_when_the_second_begins(data, done, tmp_path):
    go(data, tmp_path/'run')
    before = weights(tmp_path/'run/stage-1')
    longer = [STAGES[0] | dict(epochs=9), STAGES[1]]
    go(data, tmp_path/'run', longer, resume=True)
    assert weights(tmp_path/'run/stage-1') == before

def test_resized(data):
    small = data.resized(8)
    mean = data.images.float().unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    assert torch.equal(small.images, mean.round().byte())
    assert small.key != data.key and small.key == data.resized((8, 8)).key
    assert data.resized(16) is data and torch.equal(small.labels, data.labels)
    assert data.resized((8, 16)).size == (8, 16)

# Recipes and the command

@pytest.mark.parametrize('name', ['attention_staged', 'baseline_staged'])
def test_recipes(name, tmp_path):
    recipe = read_recipe(name)
    held_out, stages = [recipe.pop(key) for key in ('held_out', 'stages')]
    assert recipe['size'] == stages[-1]['size'] and held_out
    assert len(plan_stages(tmp_path/'run', stages, **recipe)) == len(stages)

def command(*args):
    code = 'import sys, flowerdiff.cli as cli; sys.argv[0] = "flowerdiff_train"; cli.train()'
    return subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True)

def test_command(tmp_path):
    recipe = tmp_path/'r.json'
    settings = LITTLE | dict(size=16, stages=STAGES)
    del settings['device']
    recipe.write_text(json.dumps(settings))
    call = '--recipe', recipe, '--data', 'drawn:24', '--out', tmp_path/'run', '--device', 'cpu'
    done = command(*call, '--epochs', 3)
    assert done.returncode == 2 and '--epochs: the recipe gives each stage its own' in done.stderr
    done = command(*call)
    assert done.returncode == 0, done.stderr
    (tmp_path/'run/state-00000009.safetensors').unlink()
    done = command('--data', 'drawn:24', '--out', tmp_path/'run', '--resume')
    assert done.returncode == 2 and 'holds stages: give their recipe, too' in done.stderr
