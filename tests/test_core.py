"Guards for flowerdiff.core: what it refuses, and what must not change."
import math, os
from types import SimpleNamespace

import numpy as np, pytest, torch
from flowerdiff.core import *
from refused import check_refused

# (call, what the message must say)
REFUSED = [
    *((lambda bad=bad: check_int('n', bad), f'n is {bad!r}') for bad in (0, 2.5, '8', True, None)),
    *((lambda bad=bad: check_number('p', bad, 0, 1), f'p is {bad!r}') for bad in (math.nan, '1', True, 2.)),
    (lambda: check_int('seed', -1, 0, 99), 'seed is -1: give a whole number from 0 to 99'),
    (lambda: check_choice('sampler', 'magic', ['ddim', 'ddpm']), "unknown sampler 'magic': use ddim, ddpm"),
    (lambda: check_choice('sampler', 3, ['ddim']), "unknown sampler '3'"),
    (lambda: check_known('ddim', ['eta', 'beta'], ['eta']), "ddim has no 'beta': it has eta"),
    (lambda: check_known('ddim', ['eta'], []), 'it has none'),
    (lambda: user_path('~nobody-of-this-name/x'), 'cannot be a path'),
    (lambda: user_path('x'*5000), 'cannot be a path'),
    (lambda: pick_device('gpu'), "unknown device 'gpu'"),
    (lambda: pick_device('cuda:x'), "unknown device 'cuda:x'"),
    (lambda: pick_device('cpu:'), "unknown device 'cpu:'"),
    (lambda: pick_device('cpu:1'), "unknown device 'cpu:1'"),
    (lambda: pick_device('cuda:99'), "there is no device 'cuda:99' here"),
]

@pytest.mark.parametrize('call, message', REFUSED)
def test_refused(call, message): check_refused(call, message)

def test_numbers_of_numpy_are_numbers():
    check_int('n', np.int64(3))
    check_number('p', np.float32(.5), 0, 1)

def fail_midway(path):
    path.write_text('half')
    raise OSError(28, 'No space left on device')

def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path/'new/note.txt'
    atomic_write(file, lambda p: p.write_text('whole'))
    with pytest.raises(FlowerDiffError, match='make room there'):
        atomic_write(file, fail_midway)
    assert file.read_text() == 'whole'
    assert list(file.parent.iterdir()) == [file]

@pytest.mark.skipif(os.name == 'nt', reason='no permissions of this kind')
def test_others_may_read_what_is_written(tmp_path):
    def private(path):
        path.write_text('whole')
        path.chmod(0o600)
    plain = tmp_path/'plain'
    plain.touch()
    atomic_write(tmp_path/'note', private)
    assert (tmp_path/'note').stat().st_mode == plain.stat().st_mode

def test_a_file_is_no_folder(tmp_path):
    file = tmp_path/'note'
    file.touch()
    with pytest.raises(FlowerDiffError, match='cannot write to the folder'):
        make_folder(file/'x')

def test_the_hub_out_of_reach(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('FLOWERDIFF_CACHE', str(tmp_path))
    answers = [SimpleNamespace(sha='abc123'), OSError('no network'), OSError('no network')]
    def repo_info(*args, **kwargs):
        answer = answers.pop(0)
        if isinstance(answer, Exception): raise answer
        return answer
    monkeypatch.setattr('huggingface_hub.HfApi.repo_info', repo_info)
    for _ in range(2):
        assert hub_commit('me/flowers', 'dataset', 'a folder') == 'abc123'
    assert 'cannot be reached' in capsys.readouterr().err
    with pytest.raises(FlowerDiffError, match='or use a folder'):
        hub_commit('me/other', 'dataset', 'a folder')

def test_devices(monkeypatch):
    device, dtype = pick_device('cpu')
    assert device == torch.device('cpu')
    assert dtype in (torch.bfloat16, torch.float32)
    monkeypatch.setenv('FLOWERDIFF_DEVICE', 'gpu')
    with pytest.raises(FlowerDiffError, match="unknown device 'gpu'"):
        pick_device()
    assert pick_device('cpu').device.type == 'cpu'
