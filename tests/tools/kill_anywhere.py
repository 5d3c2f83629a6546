"""Kills a small run at random moments, resumes it each time, and compares the end results.

    python tests/tools/kill_anywhere.py [--kills 40] [--seed 0] [--kinds checkpoint ...]

A kill comes at a random time, before a random update of the classifier stage, in a random batch or
update after the classifier stage, in the middle of a write of the state, or while TensorFlow writes
a checkpoint. After each kill, all records on disk must be complete and equal to those of the
undisturbed run. In the end all results, exemplars, tables and matrices must be equal, bit for bit
(one thread, one seed). The exit status is 1 if anything differs.
"""

import argparse
import collections
import csv
import os
import random
import re
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'helpers'))
import tiny_runs  # noqa: E402

SETTINGS = {'num_classes': 6, 'num_increments': 3, 'train_epochs': 6, 'lr_boundaries': '3,5',
            'checkpoint_secs': 1, 'shallow': False}
KINDS = ('time', 'update', 'batch', 'write', 'checkpoint')
# Moments in a write of the state: before the flush, before and after the rename.
WRITES = ('os:fsync', 'os:replace', 'runtime.files:flush')
STAGES = (('progress.*classifier', 'classifier'),
          ('progress.*bias', 'bias correction to selection'),
          ('accuracy|test|validation|beta|gamma', 'saving the step'),
          ('first itera|incremental', 'before the first update'))


def stage(log):
    """Return the stage of a run, from the last line of its log that tells it."""
    for line in reversed(log.splitlines()):
        for pattern, name in STAGES:
            if re.match(pattern, line):
                return name
    return 'start'


def start(rng, kinds, data, model, seconds):
    """Start a run and kill it; return (kind of kill, Result)."""
    kind = rng.choice(kinds)
    if kind == 'write':
        faults = [(rng.choice(WRITES), rng.randint(1, 12), tiny_runs.KILL)]
    elif kind == 'update':
        faults = [('runtime.progress:Hook.after_run', rng.randint(1, 40), tiny_runs.KILL)]
    elif kind == 'batch':
        faults = [('runtime.signals:StopRequest.check', rng.randint(1, 40), tiny_runs.KILL)]
    elif kind == 'checkpoint':
        delay = rng.expovariate(1 / .03)
        faults = [('tensorflow.compat.v1:train.Saver.save', rng.randint(1, 3),
                   'import threading\n'
                   f'threading.Timer({delay}, lambda: {tiny_runs.KILL}).start()')]
    else:
        faults = []
    process = tiny_runs.Process(data, model, faults, **SETTINGS)
    timer = None
    if kind == 'time':
        timer = threading.Timer(rng.uniform(0, seconds / 2), os.kill, (process.pid, 9))
        timer.start()
    result = process.wait()
    if timer is not None:
        timer.cancel()
    return kind, result


def compare(state, expected, complete):
    """Return the names of files that differ from `expected`; `complete`: none may be missing."""
    different = [name for name, content in state.items()
                 if name.endswith(('.json', '.npy') if complete else '.json')
                 and content != expected.get(name)]
    if complete:
        different += [name for name in expected if state.get(name) != expected[name]]
    return sorted(set(different))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=40)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', nargs='+', default=KINDS, choices=KINDS)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    folder = tempfile.mkdtemp()
    data = tiny_runs.make_folder(os.path.join(folder, 'data'), 6)
    started = time.time()
    result = tiny_runs.run(data, os.path.join(folder, 'whole'), **SETTINGS)
    seconds = time.time() - started
    assert result.status == 0, result.err
    expected = tiny_runs.final_state(os.path.join(folder, 'whole'))
    print(f'undisturbed: {seconds:.0f} s, {len(expected)} files compared')
    kinds, stages, problems, rounds, starts = (
        collections.Counter(), collections.Counter(), [], 0, 0)
    while sum(kinds.values()) < arguments.kills:
        rounds += 1
        model = os.path.join(folder, f'killed{rounds}')
        log, status = '', -9
        while status != 0:
            starts += 1
            if sum(kinds.values()) < arguments.kills:
                kind, result = start(rng, arguments.kinds, data, model, seconds)
            else:
                kind, result = None, tiny_runs.run(data, model, **SETTINGS)
            status, log = result.status, log + result.out
            if status == -9:
                kinds[kind] += 1
                stages[stage(result.out)] += 1
            elif status:
                problems.append(f'ended with {status}: {result.err[-500:]}')
                break
            if os.path.isdir(model):
                problems += [f'{name} differs after a kill ({kind})' for name in compare(
                    tiny_runs.final_state(model), expected, complete=False)]
        problems += [f'{name} differs at the end' for name in compare(
            tiny_runs.final_state(model), expected, complete=True)]
        with open(os.path.join(model, 'results.csv')) as file:
            if [row['step'] for row in csv.DictReader(file)] != ['1', '2', '3']:
                problems.append('results.csv does not have steps 1, 2, 3')
        problems += [f'the log has no result of step {step}' for step in (1, 2, 3)
                     if f'test: step {step} of 3' not in log]
        problems += ['left behind: ' + name for _, folders, files in os.walk(model)
                     for name in folders + files if re.search(r'\.tmp|_temp', name)]
    counts = ', '.join(f'{count} at a random {kind}' for kind, count in sorted(kinds.items()))
    print(f'{sum(kinds.values())} kills in {rounds} runs, {starts} starts: {counts}')
    print('stages:', ', '.join(f'{name} {count}' for name, count in stages.most_common()))
    print('\n'.join(problems) or 'every run ended with the same bytes as the undisturbed one')
    shutil.rmtree(folder)
    sys.exit(bool(problems))


if __name__ == '__main__':
    main()
