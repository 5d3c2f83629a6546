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
import os
import random
import re
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'helpers'))
import tiny_runs  # noqa: E402

SETTINGS = {'num_classes': 6, 'num_increments': 3, 'train_epochs': 6, 'lr_boundaries': '3,5',
            'checkpoint_secs': 1, 'shallow': False}
# A kill comes before a call of one of these functions, among the first calls. 'write' stands for a
# write of the state: before the flush, before and after the rename.
MOMENTS = {
    'time': None, 'update': (('runtime.progress:Hook.after_run',), 40),
    'batch': (('runtime.signals:StopRequest.check',), 40),
    'write': (('os:fsync', 'os:replace', 'runtime.files:flush'), 12),
    'checkpoint': (('tensorflow.compat.v1:train.Saver.save',), 3)}


def run_and_kill(rng, kind, data, model, seconds):
    """Start a run, kill it at a random moment of this kind, and return the Result."""
    if kind == 'time':
        process = tiny_runs.Process(data, model, **SETTINGS)
        timer = threading.Timer(rng.uniform(0, seconds / 2), os.kill, (process.pid, 9))
        timer.start()
        result = process.wait()
        timer.cancel()
        return result
    functions, last_call = MOMENTS[kind]
    code = tiny_runs.KILL
    if kind == 'checkpoint':
        delay = rng.expovariate(1 / .03)
        code = f'import threading\nthreading.Timer({delay}, lambda: {code}).start()'
    fault = rng.choice(functions), rng.randint(1, last_call), code
    return tiny_runs.run(data, model, fault, **SETTINGS)


def differences(model, expected, complete):
    """Return the names of files in model_dir that differ from `expected`, {name: bytes}.

    Files that do not exist yet differ only if the run is `complete`.
    """
    state = tiny_runs.final_state(model) if os.path.isdir(model) else {}
    different = {name for name, content in state.items()
                 if name.endswith(('.json', '.npy') if complete else '.json')
                 and content != expected.get(name)}
    if complete:
        different.update(name for name in expected if state.get(name) != expected[name])
    return sorted(different)


def problems_at_the_end(model, log, expected):
    """Return what is wrong with a finished run."""
    problems = [f'{name} differs at the end' for name in differences(model, expected, True)]
    if [row['step'] for row in tiny_runs.rows(model)] != ['1', '2', '3']:
        problems.append('results.csv does not have steps 1, 2, 3')
    problems += [f'the log has no result of step {step}' for step in (1, 2, 3)
                 if f'test: step {step} of 3' not in log]
    return problems + ['left behind: ' + name for _, folders, files in os.walk(model)
                       for name in folders + files if re.search(r'\.tmp|[._]temp', name)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=40)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', nargs='+', default=list(MOMENTS), choices=list(MOMENTS))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    kills, problems, runs, starts = collections.Counter(), [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        data = tiny_runs.make_folder(os.path.join(folder, 'data'), 6)
        started = time.time()
        tiny_runs.run(data, os.path.join(folder, 'whole'), status=0, **SETTINGS)
        seconds = time.time() - started
        expected = tiny_runs.final_state(os.path.join(folder, 'whole'))
        print(f'undisturbed: {seconds:.0f} s, {len(expected)} files compared')
        while sum(kills.values()) < arguments.kills:
            runs += 1
            model = os.path.join(folder, f'killed{runs}')
            log, status = '', tiny_runs.KILLED
            while status == tiny_runs.KILLED:
                starts += 1
                if sum(kills.values()) < arguments.kills:
                    kind = rng.choice(arguments.kinds)
                    result = run_and_kill(rng, kind, data, model, seconds)
                else:
                    result = tiny_runs.run(data, model, **SETTINGS)
                status, log = result.status, log + result.out
                if status == tiny_runs.KILLED:
                    kills[kind] += 1
                problems += [f'{name} differs after a start ({kind})'
                             for name in differences(model, expected, complete=False)]
            problems += [f'ended with {status}: {result.err[-500:]}'] if status else (
                problems_at_the_end(model, log, expected))
    counts = ', '.join(f'{count} at a random {kind}' for kind, count in sorted(kills.items()))
    print(f'{sum(kills.values())} kills in {runs} runs, {starts} starts: {counts}')
    print('\n'.join(problems) or 'every run ended with the same bytes as the undisturbed one')
    sys.exit(bool(problems))


if __name__ == '__main__':
    main()
