"""The environment before TensorFlow is imported; Pythons and packages that are refused."""
import os
import subprocess
import sys

import pytest
from tiny_runs import ROOT, Result, assert_refused

from runtime import environment

MAIN = 'imagenet_main.py'
SCRIPTS = [MAIN, 'logs/report.py', 'logs/classify.py'] + [f'data/{name}/prepare.py' for name in (
    'celeb10000', 'cifar100', 'folder', 'glyphs100', 'imagenet')]


def run(*arguments, **variables):
    """Run this Python in the project's folder; return its Result."""
    env = {key: value for key, value in os.environ.items()
           if key != 'PYTHONPATH' and not key.startswith('TF_')}
    done = subprocess.run([sys.executable] + list(arguments), cwd=ROOT, env=dict(env, **variables),
                          capture_output=True, text=True)
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize('source, named', [
    ('__version__ = "1.14.0"', ['1.14.0', '1.15']),
    ('__version__ = "2.21.0"', ['2.21.0', 'tf-keras']),
    ('raise ImportError("libx.so\\nis gone")', ['libx.so is gone', sys.executable]),
    ('import numpy; numpy.no_such_name', ['no_such_name'])])
def test_an_unusable_tensorflow_is_refused_before_anything_is_written(tmp_path, source, named):
    if 'tf-keras' in named and environment.package_folder('tf_keras'):
        pytest.skip('tf-keras is installed')
    (tmp_path / 'tensorflow').mkdir()
    (tmp_path / 'tensorflow' / '__init__.py').write_text(source)
    model_dir = tmp_path / 'model'
    assert_refused(run(MAIN, '--dataset=glyphs100', f'--model_dir={model_dir}',
                       PYTHONPATH=str(tmp_path)), *named)
    assert not model_dir.exists()


@pytest.mark.parametrize('script', SCRIPTS)
def test_a_python_without_numpy_or_with_a_foreign_one_is_refused(tmp_path, script):
    assert_refused(run('-S', script), 'numpy', sys.executable, 'make setup', '.venv/bin/python')
    (tmp_path / 'numpy').mkdir()
    (tmp_path / 'numpy' / '__init__.py').write_text('')
    assert_refused(run(script, '--help', PYTHONPATH=str(tmp_path)), str(tmp_path),
                   'Unset PYTHONPATH, or take this folder out of it.')


@pytest.mark.parametrize('change, named', [
    ('sys.version_info = (3, 6)', '3.6'), ('sys.modules["absl"] = None', 'absl'),
    ('sys.modules["tensorflow"] = None', 'tensorflow')])
def test_an_old_python_or_missing_package_is_refused(change, named):
    assert_refused(run('-c', f'import os, sys; os.path.exists = bool; {change}; '  # as if ready
                       'import runtime.quiet_import'), named, f'Delete {sys.prefix}, run `make')


def test_an_interrupt_during_the_imports_is_one_line(tmp_path):
    (tmp_path / 'numpy.py').write_text('raise KeyboardInterrupt')
    assert run(MAIN, PYTHONPATH=str(tmp_path)) == (130, '', 'Stopped by SIGINT.\n')


@pytest.mark.parametrize('variables, expected', [({}, '1'), ({'TF_ENABLE_ONEDNN_OPTS': '0'}, '0')])
def test_onednn_is_on_unless_the_user_has_set_it_and_imports_print_nothing(variables, expected):
    assert run('-c', 'import os, imagenet_main; print(os.environ["TF_ENABLE_ONEDNN_OPTS"])',
               **variables) == (0, expected + '\n', '')
