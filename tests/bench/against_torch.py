"""Compares a training update with PyTorch on the same CPU, taking turns, per environment.

The environments are the Python that runs this, and each .venv* next to it that has TensorFlow.
PyTorch is in .venv-torch: tests/bench/README.md.
"""

import glob
import os
import statistics
import subprocess
import sys

import measure

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TORCH = os.path.join(ROOT, '.venv-torch', 'bin', 'python')
# Name of update_worker.case, title, batch, updates per turn.
CASES = {
    'torch-64': ('resnet18-64', 'ResNet-18 with distillation, 64x64', 64, 6),
    'torch-224': ('resnet18-224', 'ResNet-18 with distillation, 224x224', 16, 3),
    'torch-cifar': ('resnet32-32', 'ResNet-32 with distillation, 32x32', 128, 8),
    'torch-cifar-alone': ('resnet32-32-alone', 'ResNet-32 without a teacher, 32x32', 128, 10)}
TURNS = 5
WARM_UP = 3


class Worker:
    """A process of update_worker.py, which sleeps between its turns."""

    def __init__(self, python, case, package):
        self.version = subprocess.check_output([
            python, '-c', f'import {package}; print({package}.__version__)'],
            stderr=subprocess.DEVNULL, universal_newlines=True).strip()
        self._process = subprocess.Popen(
            [python, os.path.join(HERE, 'update_worker.py'), case, package],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            universal_newlines=True, bufsize=1)

    def turn(self, num_updates):
        """Run updates; return (wall, CPU) seconds per update."""
        self._process.stdin.write(f'{num_updates}\n')
        self._process.stdin.flush()
        return tuple(float(value) for value in self._process.stdout.readline().split())

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def environments():
    """Return the interpreters that have TensorFlow, this one first."""
    folders = [folder for folder in sorted(glob.glob(os.path.join(ROOT, '.venv*')))
               if glob.glob(os.path.join(folder, 'lib', '*', 'site-packages', 'tensorflow'))
               and os.path.realpath(folder) != os.path.realpath(sys.prefix)]
    return [sys.executable] + [os.path.join(folder, 'bin', 'python') for folder in folders]


def _rows(name):
    case, title, batch, count = CASES[name]
    if not os.path.exists(TORCH):
        missing = os.path.relpath(TORCH, ROOT)
        return [measure.Row(f'training update, {title}: not measured, no {missing}',
                            '-', '-', None, '>= 1')]
    workers = [Worker(TORCH, case, 'torch')]
    workers += [Worker(python, case, 'tensorflow') for python in environments()]
    for worker in workers:
        worker.turn(WARM_UP)
    turns = [[worker.turn(count) for worker in workers] for _ in range(TURNS)]
    for worker in workers:
        worker.close()
    # (wall, CPU) of each worker: medians over the turns.
    medians = [[statistics.median(values) for values in zip(*of_worker)]
               for of_worker in zip(*turns)]
    texts = [f'{batch / wall:.1f} images/s, {1000 * cpu / batch:.1f} s CPU per 1,000'
             for wall, cpu in medians]
    return [measure.Row(
        f'training update, {title}, batch {batch}: PyTorch {workers[0].version} against '
        f'TensorFlow {worker.version}', texts[0], text, medians[0][0] / wall, '>= 1')
        for worker, text, (wall, _) in list(zip(workers, texts, medians))[1:]]


ROWS = {name: (lambda options, name=name: _rows(name)) for name in CASES}
