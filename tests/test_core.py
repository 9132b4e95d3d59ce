"Guards for flowerdiff.core: what it refuses, and what must not change."
import io, math, os, sys

import numpy as np, pytest, torch
from flowerdiff.core import *
from flowerdiff.baseline_unet import Compiled
from refused import check_refused

# (call, what the message must say)
REFUSED = [
    *((lambda bad=bad: check_int('n', bad), f'n is {bad!r}') for bad in (0, 2.5, '8', True, None, 10**400)),
    *((lambda bad=bad: check_number('p', bad, 0, 1), f'p is {bad!r}') for bad in (math.nan, '1', True, 2., 10**400)),
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

@pytest.mark.skipif(os.name == 'nt', reason='no fcntl')
def test_flushes_a_handle_that_can_be_written(tmp_path, monkeypatch):
    "Windows refuses others."
    import fcntl
    flushed = []
    def fsync(fd): flushed.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
    monkeypatch.setattr(os, 'fsync', fsync)
    atomic_write(tmp_path/'note', lambda p: p.write_text('whole'))
    assert flushed in ([os.O_RDWR], [os.O_WRONLY])
    assert (tmp_path/'note').read_text() == 'whole'

@pytest.mark.parametrize('times', [0, 1, 4, 99])
def test_a_file_that_another_program_holds(tmp_path, monkeypatch, times):
    "It is tried again for a second or two, and then told."
    waited, real, left = [], os.replace, [PermissionError(13, 'Access is denied')]*times
    def replace(*files):
        if left: raise left.pop()
        real(*files)
    monkeypatch.setattr(os, 'replace', replace)
    monkeypatch.setattr('flowerdiff.core.time.sleep', waited.append)
    def write(): write_text(tmp_path/'note', 'whole')
    if times < 9: write()
    else: check_refused(write, 'note (Access is denied)')
    assert 1 < sum(waited) < 2 if times == 99 else len(waited) == times
    assert [p.name for p in tmp_path.iterdir()] == ['note']*(times < 9)

LETTERS = 'Gänse, 花, \U0001f33c'

@pytest.mark.parametrize('code', ['ascii', 'cp1252', 'utf-8'])
@pytest.mark.parametrize('name', ['stdout', 'stderr'])
def test_any_letter_is_printed(monkeypatch, code, name):
    pipe = io.TextIOWrapper(io.BytesIO(), code)
    monkeypatch.setattr(sys, name, pipe)
    warn(LETTERS, getattr(sys, name))
    # a file name of another system
    warn('\udcff', pipe)
    pipe.flush()
    assert pipe.buffer.getvalue().decode('utf-8').split('\n') == [LETTERS, '\\udcff', '']

def test_a_terminal_keeps_its_letters():
    class Terminal(io.TextIOWrapper):
        def isatty(self): return True
    screen = Terminal(io.BytesIO(), 'cp1252')
    warn(LETTERS, screen)
    screen.flush()
    assert screen.buffer.getvalue().startswith('Gänse, '.encode('cp1252') + b'\\u')

def test_text_is_the_same_everywhere(tmp_path):
    write_text(tmp_path/'note', f'{LETTERS}\n')
    assert (tmp_path/'note').read_bytes() == f'{LETTERS}\n'.encode()

@pytest.mark.skipif(os.name == 'nt', reason='no pwd')
def test_nobody_at_home(monkeypatch):
    "The user of a container has neither $HOME nor an entry in /etc/passwd."
    def nobody(uid): raise KeyError(uid)
    monkeypatch.delenv('FLOWERDIFF_CACHE', raising=False)
    monkeypatch.delenv('HOME')
    monkeypatch.setattr('pwd.getpwuid', nobody)
    assert cache_folder().name == 'flowerdiff'
    check_writable(cache_folder())
    monkeypatch.setenv('HOME', '/nowhere')
    assert str(cache_folder()) == '/nowhere/.cache/flowerdiff'

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

ENDED = [
    torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB'), MemoryError(),
    RuntimeError('MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 1 GB, max allowed: 18 GB).'),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
    RuntimeError('[enforce fail] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.'),
    RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)')]

def test_memory_that_ends_on_every_device():
    assert all(map(out_of_memory, ENDED))
    others = RuntimeError('mat1 and mat2 shapes cannot be multiplied'), ValueError('out of memory'), KeyError('memory')
    assert not any(map(out_of_memory, others))

class Doubled(torch.nn.Linear):
    def forward(self, x, scale=1): return 2*scale*x

def compile_to(*errors):
    "What torch.compile would return where compiling fails."
    left = [*errors]
    def compile(net):
        def call(*args, **kwargs):
            if left: raise left.pop(0)
            return net(*args, **kwargs)
        return call
    return compile

@pytest.mark.parametrize('error', [RuntimeError('Cannot find a working triton installation'), OSError('no g++'), KeyError(1000)])
def test_no_compiler(error, monkeypatch, capsys):
    "One line, and the same numbers."
    monkeypatch.setattr(torch, 'compile', compile_to(error, error, error))
    net = Compiled(Doubled(1, 1))
    for _ in range(3): assert net(torch.ones(1), scale=2) == 4
    assert capsys.readouterr().err.count('torch.compile does not work here') == 1
    assert next(net.parameters()).dtype == torch.float32

def test_a_compiler_hides_no_error(monkeypatch):
    "Memory that has ended is told, and so is what the network itself cannot do."
    monkeypatch.setattr(torch, 'compile', compile_to(*ENDED[2:3]))
    with pytest.raises(RuntimeError, match='MPS backend'): Compiled(Doubled(1, 1))(torch.ones(1))
    monkeypatch.setattr(torch, 'compile', compile_to())
    with pytest.raises(TypeError, match='shift'): Compiled(Doubled(1, 1))(torch.ones(1), shift=2)

def test_devices(monkeypatch):
    device, dtype = pick_device('cpu')
    assert device == torch.device('cpu')
    assert dtype in (torch.bfloat16, torch.float32)
    monkeypatch.setenv('FLOWERDIFF_DEVICE', 'gpu')
    with pytest.raises(FlowerDiffError, match="unknown device 'gpu'"):
        pick_device()
    assert pick_device('cpu').device.type == 'cpu'

def test_numbers_that_no_tensor_holds(tmp_path):
    file = tmp_path/'config.json'
    file.write_text('{"size": 1' + 400*'0' + '}')
    with pytest.raises(FlowerDiffError, match='a number has 401 digits'):
        read_json(file)
    file.write_text(f'{{"size": {2**63 - 1}}}')
    assert read_json(file) == dict(size=2**63 - 1)
