"""Compares unpacking a tar of tars with data/imagenet/prepare.py and with plain tar -x."""

import os
import re
import subprocess
import sys

import measure

IMAGES = 1000


def _rows(options):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'extract_nested_tar.py')
    printed = subprocess.check_output([
        sys.executable, script, '--images={}'.format(IMAGES), '--repeats=3',
        '--folder=' + options.folder]).decode()
    seconds = {name: float(re.search(name + r' +median ([\d.]+) s', printed).group(1))
               for name in ('tar', 'prepare')}
    return [measure.Row(
        f'unpacking a tar of tars of {IMAGES:,} images, checked; time against tar -x',
        measure.seconds_text(seconds['tar']), measure.seconds_text(seconds['prepare']),
        'x {:.2f} time'.format(seconds['prepare'] / seconds['tar']), '<= x 1.5 time')]


ROWS = {'archives': _rows}
