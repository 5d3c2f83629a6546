"""The scripts that repeat the experiments in logs/."""
import os
import pathlib
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
# In place of Python: records the flags of each run, and writes a log.
PYTHON = """#!/bin/sh
case $1 in imagenet_main.py) ;; *) exit ;; esac
echo "$@" >>"$RUNS"
for flag; do
    case $flag in --log_file=*) echo "data: $PWD/images" >"${flag#*=}" ;; esac
done
"""


def run_script(name, folder, *arguments, **environment):
    """Run logs/<name>/run.sh in a copy; return {name of a run: its flags}, in order."""
    shutil.copytree(os.path.join(LOGS, name), str(folder / 'logs' / name),
                    ignore=shutil.ignore_patterns('*.log', '*.md', '*.png'))
    shutil.copy(os.path.join(LOGS, 'experiment.sh'), str(folder / 'logs'))
    (folder / 'logs' / 'runs' / name).mkdir(parents=True)
    (folder / 'python').write_text(PYTHON)
    (folder / 'python').chmod(0o755)
    (folder / 'all').touch()
    subprocess.check_call(
        ['sh', str(folder / 'logs' / name / 'run.sh')] + list(arguments), env=dict(
            os.environ, PYTHON=str(folder / 'python'), RUNS=str(folder / 'all'), **environment))
    lines = [line.split() for line in (folder / 'all').read_text().splitlines()]
    return {os.path.basename(next(flag for flag in line if flag.startswith('--model_dir='))): line
            for line in lines}


def settings_of(line):
    with flagsaver.flagsaver():
        imagenet_main.FLAGS(line)
        return settings_lib.settings_from_flags(imagenet_main.FLAGS)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_each_run_is_valid_and_the_committed_logs_belong_to_it(name, tmp_path):
    folder = tmp_path / 'a|b & c'
    runs = run_script(name, folder, DATA=str(tmp_path))
    assert runs
    for line in runs.values():
        exemplar.check_memory(settings_of(line))
    written = {path.name: path.read_text() for path in (folder / 'logs' / name).glob('*.log')}
    assert written == {run + '.log': 'data: images\n' for run in runs}
    for path in pathlib.Path(LOGS, name).glob('*.log'):
        run, = log_reader.read(str(path))
        assert run.settings == settings_of(runs[path.stem]), path


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_results_md_is_written_again_without_training(name, tmp_path):
    assert not run_script(name, tmp_path, 'report')
    assert (tmp_path / 'logs' / name / 'results.md').exists()
