"""The scripts that make the experiments in logs/ again."""
import glob
import os
import shutil
import subprocess

import pytest
from absl.testing import flagsaver

import exemplar
import imagenet_main
from logs import log_reader
from runtime import settings as settings_lib

LOGS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'logs')
EXPERIMENTS = [name for name in sorted(os.listdir(LOGS))
               if os.path.exists(os.path.join(LOGS, name, 'run.sh'))]
# In Python's place: notes the flags of each run, and lays a log where it is to be.
PYTHON = """#!/bin/sh
case $1 in imagenet_main.py) ;; *) exit ;; esac
echo "$@" >>"$RUNS"
for flag; do
    case $flag in --log_file=*) echo a log >"${flag#*=}" ;; esac
done
"""


def runs_of(name, folder):
    """{name of a run: its flags}, in order, as logs/<name>/run.sh asks for them."""
    shutil.copytree(os.path.join(LOGS, name), str(folder / 'logs' / name),
                    ignore=shutil.ignore_patterns('*.log', '*.md', '*.png'))
    shutil.copy(os.path.join(LOGS, 'experiment.sh'), str(folder / 'logs'))
    (folder / 'logs' / 'runs' / name).mkdir(parents=True)
    (folder / 'python').write_text(PYTHON)
    (folder / 'python').chmod(0o755)
    subprocess.check_call(
        ['sh', str(folder / 'logs' / name / 'run.sh')],
        env=dict(os.environ, PYTHON=str(folder / 'python'), RUNS=str(folder / 'all'),
                 DATA=str(folder)))
    lines = [line.split() for line in (folder / 'all').read_text().splitlines()]
    return {os.path.basename(next(flag for flag in line if flag.startswith('--model_dir='))): line
            for line in lines}


def settings_of(line):
    with flagsaver.flagsaver():
        imagenet_main.FLAGS(line)
        return settings_lib.settings_from_flags(imagenet_main.FLAGS)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_each_run_is_one_that_can_be_made_and_the_logs_beside_it_are_of_it(name, tmp_path):
    runs = runs_of(name, tmp_path)
    assert runs
    for line in runs.values():
        exemplar.check_memory(settings_of(line))
    laid = {path.name for path in (tmp_path / 'logs' / name).glob('*.log')}
    assert laid == {run + '.log' for run in runs}
    for path in glob.glob(os.path.join(glob.escape(os.path.join(LOGS, name)), '*.log')):
        run, = log_reader.read(path)
        asked = settings_of(runs[os.path.basename(path)[:-len('.log')]])
        assert run.settings == asked, path
