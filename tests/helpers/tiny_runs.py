"""Runs imagenet_main.py on tiny data, in separate processes, with injected faults.

A run takes about a second. One process imports TensorFlow and forks for each run, the network is
shallow, and TensorFlow does not optimize the graphs.
"""

import atexit
import collections
import contextlib
import csv
import functools
import importlib
import itertools
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
import zlib

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KILL = 'os.kill(os.getpid(), signal.SIGKILL)'
KILLED = -signal.SIGKILL
TERMINATE = 'os.kill(os.getpid(), signal.SIGTERM)'
TERMINATED = 128 + signal.SIGTERM
INTERRUPT = 'os.kill(os.getpid(), signal.SIGINT)'
AFTER_UPDATE = 'runtime.progress:Hook.after_run'  # of the classifier stage

# With one thread of a CPU, the same seed gives the same results bit for bit.
os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')
os.environ.pop('TF_CONFIG', None)  # a run on several machines would wait for the others
FLAGS = {
    'dataset': 'folder', 'num_classes': 4, 'num_increments': 2, 'memory_per_class': 4,
    'val_share': 0.25, 'image_size': 8, 'preprocessing': 'cifar', 'network': 'cifar',
    'resnet_size': 8, 'train_epochs': 2, 'batch_size': 8, 'learning_rate': 0.1, 'lr_boundaries': 1,
    'batch_norm_decay': 0.9, 'progress_every': 1, 'intra_op_threads': 1, 'inter_op_threads': 1,
    'num_parallel_calls': 1}

# status: exit status, or minus the number of the signal that killed the run. out, err: str.
Result = collections.namedtuple('Result', ['status', 'out', 'err'])


def png(array):
    """Encode a PNG file: uint8 or uint16 [height, width, 1 to 4 channels] -> bytes."""
    height, width, channels = array.shape
    rows = array.astype(array.dtype.newbyteorder('>')).reshape(height, -1)

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack(
            '>I', zlib.crc32(kind + data) & 0xffffffff)

    header = struct.pack('>IIBBBBB', width, height, 8 * array.itemsize,
                         {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    pixels = zlib.compress(b''.join(b'\0' + row.tobytes() for row in rows))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', pixels) + chunk(
        b'IEND', b'')


def make_folder(folder, num_classes=4, train=10, test=4, side=12):
    """Write a folder data set with noisy copies of one random image per class; return its path."""
    folder, stream = pathlib.Path(str(folder)), np.random.RandomState(0)
    prototypes = stream.randint(0, 256, (num_classes, side, side, 3))
    for name, count in (('train', train), ('val', test)):
        (folder / name).mkdir(parents=True)
        lines = []
        for label, i in itertools.product(range(num_classes), range(count)):
            noisy = np.clip(prototypes[label] + stream.randint(-60, 61, (side, side, 3)), 0, 255)
            lines.append(f'{name}/{label}_{i}.png {label}\n')
            (folder / name / f'{label}_{i}.png').write_bytes(png(noisy.astype(np.uint8)))
        (folder / (name + '.txt')).write_text(''.join(lines))
    return str(folder)


def final_state(model_dir):
    """Return the files at the top of model_dir, without checkpoints: {file name: bytes}."""
    return {path.name: path.read_bytes() for path in sorted(pathlib.Path(str(model_dir)).iterdir())
            if path.is_file()}


class Process:
    """A started run. Its `pid` can be killed at any moment."""

    _server = None

    def __init__(self, data_dir, model_dir, faults=(), tf_config=None, shallow=True, **flags):
        """Start a run: see `run`. `tf_config`: the variable TF_CONFIG as a dict, or None."""
        flags = dict(dict(FLAGS, data_dir=data_dir, model_dir=model_dir,
                          log_file=str(model_dir) + '.log'), **flags)
        self._output = tempfile.mkdtemp()
        self.pid = self._ask({
            'flags': [f'--{name}={value}' for name, value in flags.items() if value is not None],
            'faults': faults, 'output': self._output, 'tf_config': tf_config, 'shallow': shallow})

    @classmethod
    def _ask(cls, request):
        if cls._server is None:
            cls._server = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__)], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, universal_newlines=True, start_new_session=True)
            atexit.register(cls._server.stdin.close)
        cls._server.stdin.write(json.dumps(request) + '\n')
        cls._server.stdin.flush()
        return int(cls._server.stdout.readline())

    def wait(self):
        """Wait for the end of the process; return the Result."""
        status = self._ask({'wait': self.pid})
        texts = [pathlib.Path(self._output, name).read_text(errors='replace')
                 for name in ('out', 'err')]
        shutil.rmtree(self._output)
        return Result(status, *texts)


def run(data_dir, model_dir, *faults, status=None, **flags):
    """Run imagenet_main.py to its end; return the Result.

    Args:
        data_dir, model_dir: flags. The log goes to <model_dir>.log unless `log_file` is given.
        faults: (where, count, code): `code` runs just before call number `count` of the function
            `where`, written 'module:name' or 'module:class.name'.
        status: the exit status that the run must have; None for any.
        flags: in addition to FLAGS; None removes a flag. `shallow=False`: train the network that
            the flags describe, not one without residual blocks, which takes half of the time.
    """
    result = Process(str(data_dir), str(model_dir), faults, **flags).wait()
    assert status in (None, result.status), (result.status, result.err)
    return result


def assert_refused(result, *expected):
    """Assert that a run ended with status 1 and one line, which contains all of `expected`."""
    assert result.status == 1 and len(result.err.splitlines()) == 1, result.err
    assert result.err.startswith('error: '), result.err
    for text in expected:
        assert text in result.err, result.err


def rows(model_dir, name='results.csv'):
    """Return the rows of a table in model_dir as dicts."""
    with open(os.path.join(str(model_dir), name), newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def table(text):
    """Return the lines of the final table in a run's output, the head first."""
    lines = text.splitlines()
    head = max(i for i, line in enumerate(lines) if line.split()[:2] == ['step', 'classes'])
    return list(itertools.takewhile(lambda line: not line.startswith('average'), lines[head:]))


def free_ports(count):
    """Return `count` free ports of the loopback interface."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(('127.0.0.1', 0))
        return [one.getsockname()[1] for one in sockets]


def _install(where, count, code):
    """Replace the function `where` by one that runs `code` just before its call number `count`."""
    module, names = where.split(':')
    *path, name = names.split('.')
    holder = functools.reduce(getattr, path, importlib.import_module(module))
    function, calls = getattr(holder, name), []

    def faulty(*args, **kwargs):
        calls.append(None)
        if len(calls) == count:
            exec('import os, shutil, signal\n' + code, {})
        return function(*args, **kwargs)

    setattr(holder, name, faulty)


def without_optimizer(session_config):
    """Wrap machine.session_config: graphs stay unoptimized, which saves a third of a tiny run."""
    def config(*args):
        made = session_config(*args)
        made.graph_options.rewrite_options.disable_meta_optimizer = True
        return made
    return config


def shallow_network(network):
    """Wrap resnet_model.network: a network of CIFAR's family without its blocks."""
    return lambda images, settings, *args, **kwargs: network(
        images, settings._replace(network='cifar', resnet_size=2), *args, **kwargs)


def _child(request):
    """Run imagenet_main.py in this forked process as Process asked for it, then exit."""
    signal.alarm(600)  # kills it if it waits for another process forever
    for number, name in enumerate(('out', 'err'), 1):
        os.dup2(os.open(os.path.join(request['output'], name), os.O_WRONLY | os.O_CREAT), number)
    if request['tf_config'] is not None:
        os.environ['TF_CONFIG'] = json.dumps(request['tf_config'])
    import imagenet_main
    import resnet_model
    from runtime import cluster, machine, signals
    status = 1
    try:
        machine.session_config = without_optimizer(machine.session_config)
        if request['shallow']:
            resnet_model.network = shallow_network(resnet_model.network)
        for fault in request['faults']:
            _install(*fault)
        sys.argv = ['imagenet_main.py'] + request['flags']
        signals.run(imagenet_main.main, cluster.ENVIRONMENT in os.environ)
    except SystemExit as leaving:
        status = leaving.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve():
    """Read requests of Process._ask: fork a run and print its pid, or wait and print its status."""
    sys.path.insert(0, ROOT)
    os.environ.update(OMP_NUM_THREADS='1', KMP_BLOCKTIME='0', TF_CPP_MIN_LOG_LEVEL='3')
    # Shells make background processes ignore SIGINT, and nohup ignores SIGHUP.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    import imagenet_main  # noqa: F401 (imported once for all children)
    for line in sys.stdin:
        request = json.loads(line)
        if 'wait' in request:
            status = os.waitpid(request['wait'], 0)[1]
            answer = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        else:
            answer = os.fork()
            if answer == 0:
                _child(request)
        print(answer, flush=True)


if __name__ == '__main__':
    _serve()
