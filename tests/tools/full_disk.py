"""Fills the disk of a small run at many moments, resumes it, and compares the end results.

    sudo python tests/tools/full_disk.py [--rounds 2] [--seed 0]

The run writes all of its files, including its log, to a tmpfs, so the script needs the right to
mount one. At each of MOMENTS that comes before the run has finished, the disk is filled, completely
or except for at most 640 KiB. The run must end with a one-line message about it, unless the
remaining space was sufficient, and with complete records on disk. Then space is freed and the run
is resumed. In the end everything must equal an undisturbed run, bit for bit. The exit status is 1
if anything differs.
"""

import argparse
import functools
import os
import random
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'helpers'))
import tiny_runs  # noqa: E402
from kill_anywhere import differences  # noqa: E402

run = functools.partial(tiny_runs.run, shallow=False)
SIZE = '48m'
MOMENTS = (
    ('runtime.experiment:_claim', 1), ('runtime.run_log:log_settings', 1),
    ('imagenet_main:train_classifier', 1), ('runtime.progress:Hook.after_run', 2),
    ('runtime.evaluation:evaluate_step', 1), ('exemplar:select', 1),
    ('runtime.results:write_curves', 1), ('runtime.state:save_step', 1),
    ('runtime.results:write_results', 1), ('imagenet_main:train_classifier', 1),
    ('runtime.progress:Hook.after_run', 2), ('bic_layer:fit', 1),
    ('tensorflow.compat.v1:train.Saver.save', 1), ('runtime.evaluation:evaluate_step', 1),
    ('runtime.state:write_array', 1), ('runtime.state:save_step', 1))
FILL = '''
with open({path!r}, 'wb', 0) as file:
    try:
        while True:
            file.write(bytes(1024))
    except OSError:
        file.truncate(max(0, os.path.getsize({path!r}) - {free}))
'''


def try_moments(folder, data, expected, rng):
    """Run once, with the disk filled at each moment; return (errors seen, problems)."""
    model, ballast = os.path.join(folder, 'model'), os.path.join(folder, 'ballast')
    errors, problems = [], []
    for where, count in MOMENTS:
        free = 1024 * rng.choice((0, 0, rng.randint(1, 8), rng.randint(8, 640)))
        result = run(data, model, (where, count, FILL.format(path=ballast, free=free)))
        lines = result.err.splitlines()
        moment = f'{where} with {free // 1024} KiB free: '
        if result.status == 1 and len(lines) == 1 and 'space' in lines[0]:
            # Without the names of the disk and of temporary files.
            errors.append(re.sub(r'/\S*/disk\d+/|[0-9a-f]{16,}|(?<=tempstate)\d+', '', lines[0]))
        elif result.status == 0:
            errors.append('the remaining space was sufficient' if os.path.exists(ballast) else
                          'the run ended before this moment, so the disk was not filled')
        else:
            problems.append(f'{moment}status {result.status}, {result.err[-1500:]}')
        if os.path.exists(ballast):
            os.remove(ballast)
        problems += [f'{moment}{name} differs'
                     for name in differences(model, expected, complete=False)]
    result = run(data, model)
    if result.status:
        problems.append(f'after freeing space: {result.err[-500:]}')
    problems += [f'{name} differs at the end'
                 for name in differences(model, expected, complete=True)]
    return errors, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    errors, problems = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = tiny_runs.make_folder(os.path.join(folder, 'data'))
        run(data, os.path.join(folder, 'whole'), status=0)
        expected = tiny_runs.final_state(os.path.join(folder, 'whole'))
        for number in range(arguments.rounds):
            disk = os.path.join(folder, f'disk{number}')
            os.mkdir(disk)
            subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=' + SIZE, 'tmpfs', disk],
                           check=True)
            try:
                new_errors, new_problems = try_moments(disk, data, expected, rng)
            finally:
                # Lazily: after Ctrl-C the run still has open files there for a moment.
                subprocess.run(['umount', '-l', disk], check=True)
            errors += new_errors
            problems += new_problems
    for line in sorted(set(errors)):
        print(f'{errors.count(line):3} x {line}')
    print(f'{arguments.rounds * len(MOMENTS)} starts')
    print('\n'.join(problems) or 'every run ended with the same bytes as the undisturbed one')
    sys.exit(bool(problems))


if __name__ == '__main__':
    main()
