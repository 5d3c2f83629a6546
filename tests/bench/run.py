"""Prints a Markdown table that compares plain implementations with this project's.

    python tests/bench/run.py [ROW ...] [--images DIR] [--folder FOLDER] [--list]

A ratio above 1 means that this project is faster. `README.md` in this folder describes each row.
Each row runs in a separate process, so that rows do not share threads or memory.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

import runtime.environment  # noqa: E402, F401 (before NumPy and TensorFlow)

os.environ['CUDA_VISIBLE_DEVICES'] = ''  # all rows compare times on the CPU
MODULES = ('herding', 'stage2', 'images', 'against_torch')  # in the order of the table


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('rows', nargs='*', metavar='ROW', help='all if none is named')
    parser.add_argument('--images', help='folder of full-size JPEGs (default: made ones)')
    parser.add_argument('--folder', help='where to work (default: a temporary folder)')
    parser.add_argument('--list', action='store_true', help='print the names of the rows')
    parser.add_argument('--bare', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    functions = {}
    for name in MODULES:
        functions.update(importlib.import_module(name).ROWS)
    unknown = set(options.rows).difference(functions)
    if unknown:
        sys.exit(f'error: no row {", ".join(sorted(unknown))}. Use one of {" ".join(functions)}.')
    if options.list:
        print('\n'.join(functions))
        return
    if options.bare:
        for name in options.rows:
            for row in functions[name](options):
                ratio = f'{row.ratio:.3g}' if row.ratio else '-'
                print(f'| {row.item} | {row.plain} | {row.ours} | {ratio} | {row.target} |')
        return
    print('| item | plain | ours | ratio | target |\n| --- | --- | --- | --- | --- |', flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        command = [sys.executable, os.path.abspath(__file__), '--bare', '--folder', folder]
        if options.images:
            command += ['--images', options.images]
        failed = [name for name in options.rows or functions if subprocess.call(command + [name])]
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
