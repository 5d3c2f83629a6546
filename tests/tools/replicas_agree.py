"""Compares small glyphs100 experiments on one replica, two replicas and two processes.

    python tests/tools/replicas_agree.py [--folder FOLDER] [FLAGS of imagenet_main.py ...]

It runs three seeds on one replica, one on two parts of the CPU (--num_gpus=2 --cpu_replicas), and
one in two processes over the loopback interface (TF_CONFIG). The last two normalize the same shares
of each batch. The exit status is 1 if a run fails, or if an accuracy of these two differs by more
than the range of the three seeds. One replica normalizes whole batches and is only printed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'helpers'))
import tiny_runs  # noqa: E402

COLUMNS = ('top5', 'top1', 'top5_before', 'top1_before')


def start(folder, name, flags, task=None):
    """Start one process of a run, with its output in a separate file; return it."""
    command = [sys.executable, os.path.join(tiny_runs.ROOT, 'imagenet_main.py'),
               '--dataset=glyphs100', '--model_dir=' + os.path.join(folder, name),
               '--log_file=' + os.path.join(folder, name + '.log')] + flags
    environment = dict(os.environ)
    if task is not None:
        environment['TF_CONFIG'] = json.dumps(task)
        name += f'_{task["task"]["index"]}'
    with open(os.path.join(folder, name + '.out'), 'w') as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)


def results(folder, name, processes):
    """Return accuracies in percent, the mean over steps and the last step's: {name: value}."""
    statuses = [process.wait() for process in processes]
    if any(statuses):
        sys.exit(f'{name}: ended with {statuses}. For its output see {folder}.')
    rows = tiny_runs.rows(os.path.join(folder, name))
    values = {}
    for column in COLUMNS:
        numbers = [100 * float(row[column]) for row in rows]
        values[column + ', all steps'] = np.mean(numbers)
        values[column + ', last step'] = numbers[-1]
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--folder', help='where to work (default: a temporary folder, '
                        'kept only if a run fails)')
    options, flags = parser.parse_known_args()
    folder = options.folder or tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    accuracies = {}
    for name, extra in (('seed 1993', ['--seed=1993']), ('seed 1', ['--seed=1']),
                        ('seed 2', ['--seed=2']),
                        ('2 devices', ['--num_gpus=2', '--cpu_replicas'])):
        accuracies[name] = results(folder, name, [start(folder, name, flags + extra)])
    machines = [f'127.0.0.1:{port}' for port in tiny_runs.free_ports(2)]
    accuracies['2 processes'] = results(folder, '2 processes', [
        start(folder, '2 processes', flags, {'cluster': {'worker': machines},
                                             'task': {'type': 'worker', 'index': index}})
        for index in range(2)])
    names = list(accuracies)
    print('| |', ' | '.join(names), '|\n|' + ' --- |' * (len(names) + 1))
    differ = []
    for column in accuracies['seed 1']:
        values = [accuracies[name][column] for name in names]
        print(f'| {column} (%) |', ' | '.join(map('{:.2f}'.format, values)), '|')
        *seeds, devices, processes = values
        if abs(devices - processes) > np.ptp(seeds):
            differ.append(column)
    print(f'two devices and two processes differ in {", ".join(differ)}' if differ else
          'two devices and two processes agree within the range of the three seeds')
    if not options.folder:
        shutil.rmtree(folder)
    sys.exit(bool(differ))


if __name__ == '__main__':
    main()
