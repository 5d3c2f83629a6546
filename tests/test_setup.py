"""The set-up: how .ci/setup finds Python and installs, the pins, the code's language level."""
import os
import re
import shutil
import stat
import subprocess
import sys

import pytest
from packaging.markers import Marker

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RUNTIMES = {  # requirements files and the Pythons that they are for
    'requirements.txt': ['3.7'],
    'requirements-cpu.txt': ['3.7'],
    'requirements-tf2.txt': ['3.9', '3.10', '3.11'],
}
REQUIREMENTS = sorted(name for name in os.listdir(ROOT) if name.startswith('requirements'))

# Stands in for an interpreter of one version: knows the calls of .ci/setup, and logs `-m` ones.
FAKE_PYTHON = '''#!/bin/sh
case "$1 $2" in
    "-c import ensurepip"*) [ "$3" = {version} ] ;;
    "-c import sys, venv"*) true ;;
    "-c import platform"*) echo "{version}.1 at $0" ;;
    "-c import sys"*) echo {version} ;;
    "-c import pip"*) true ;;
    "-c import numpy"*) echo 0 ;;
    "-c import scipy") [ -z "$NO_SCIPY" ] ;;
    ".ci/system.py found") echo "${{FOUND:-TensorFlow 1.15.5, NumPy 1.21.1}}"; [ -z "$FOUND" ] ;;
    ".ci/system.py paths") echo "packages of ${{SYSTEM:-the system}}" ;;
    ".ci/system.py theirs") echo numpy==1.21.1 ;;
    ".ci/system.py missing") echo $MISSING ;;
    "-m venv")
        echo "venv {version}" >>"$LOG"
        for folder; do :; done
        mkdir -p "$folder/bin" "$folder/lib/python{version}/site-packages" &&
            cp "$0" "$folder/bin/python" ;;
    "-m pip")
        echo "$*" | sed 's/.* -r/install/; s/.* -c [^ ]*/add/' >>"$LOG"
        [ -z "$PIP_FAILS" ] ;;
    *) exit 9 ;;
esac
'''
SHIM = '#!/bin/sh\necho "pyenv: $0: command not found" >&2\nexit 127\n'
TOOLS = ['cat', 'cmp', 'cp', 'dirname', 'find', 'flock', 'grep', 'mkdir', 'mv', 'rm', 'sed']


class Machine:
    """A copy of what the set-up needs, on a machine that has only the given programs."""

    def __init__(self, folder):
        self.root = folder / 'clone'
        (self.root / '.ci').mkdir(parents=True)
        shutil.copy(os.path.join(ROOT, '.ci', 'setup'), str(self.root / '.ci'))
        for name in REQUIREMENTS:
            shutil.copy(os.path.join(ROOT, name), str(self.root))
        self.home = folder / 'home'
        self.bin = folder / 'bin'
        self.log = folder / 'log'
        tools = folder / 'tools'
        tools.mkdir()
        for tool in TOOLS:
            if shutil.which(tool):
                (tools / tool).symlink_to(shutil.which(tool))
        self.program(tools / 'uname', '#!/bin/sh\necho x86_64\n')
        self.path = [str(self.bin), str(tools)]

    def program(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def python(self, version, path=None):
        self.program(path or self.bin / ('python' + version), FAKE_PYTHON.format(version=version))

    def setup(self, *files, **variables):
        """Runs .ci/setup; returns its exit code, output, and what was made and installed."""
        self.log.write_text('')
        env = dict(variables, PATH=':'.join(self.path), HOME=str(self.home), LOG=str(self.log))
        run = subprocess.run(
            ['.ci/setup'] + list(files), cwd=str(self.root), env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        return run.returncode, run.stdout, self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


CPU = ['venv 3.7', 'install requirements-cpu.txt']


def test_refusing_shim_does_not_hide_a_later_python(machine, tmp_path):
    machine.program(machine.bin / 'python3.7', SHIM)
    machine.path.append(str(tmp_path / 'later'))
    machine.python('3.7', tmp_path / 'later' / 'python3.7')
    code, output, log = machine.setup()
    assert (code, log) == (0, CPU)
    assert 'Python 3.7.1 at ' + str(tmp_path / 'later' / 'python3.7') in output.splitlines()[0]
    assert 'no NVIDIA GPU: TensorFlow 1.15 for CPUs' in output.splitlines()[0]


def test_refusing_shim_then_pyenv_folder(machine):
    machine.program(machine.bin / 'python3.7', SHIM)
    machine.python('3.11')
    machine.python('3.7', machine.home / '.pyenv' / 'versions' / '3.7.16' / 'bin' / 'python')
    code, output, log = machine.setup()
    assert (code, log) == (0, CPU)
    assert '/.pyenv/versions/3.7.16/bin/python' in output


def test_python_3_7_from_uv(machine, tmp_path):
    machine.python('3.7', tmp_path / 'uv' / 'python')
    machine.program(machine.bin / 'uv', '#!/bin/sh\n[ "$1 $2 $3" = "python find 3.7" ] && echo %s\n'
                    % (tmp_path / 'uv' / 'python'))
    code, _, log = machine.setup()
    assert (code, log) == (0, CPU)


def test_plain_python_of_the_right_version_will_do(machine):
    machine.python('3.7', machine.bin / 'python')
    assert machine.setup()[2] == CPU


def test_base_of_an_active_environment_is_used_and_not_the_environment(machine, tmp_path):
    base = tmp_path / 'base' / 'bin' / 'python3.7'
    machine.python('3.7', base)
    active = FAKE_PYTHON.format(version='3.7').replace('at $0', 'at %s' % base)
    machine.program(machine.bin / 'python3.7', active.replace('-m venv', 'no venv'))
    code, output, log = machine.setup()
    assert (code, log) == (0, CPU)
    assert 'Python 3.7.1 at %s,' % base in output


def test_falls_back_to_tensorflow_2_and_says_so(machine):
    machine.program(machine.bin / 'python3.7', SHIM)
    machine.python('3.10')
    code, output, log = machine.setup()
    assert (code, log) == (0, ['venv 3.10', 'install requirements-tf2.txt'])
    assert 'no Python 3.7, falling back to Python 3.10.1' in output.splitlines()[0]
    assert 'TensorFlow 2.15.1' in output.splitlines()[0]


def test_processors_that_tensorflow_1_is_not_made_for_get_tensorflow_2(machine):
    machine.program(machine.bin / 'uname', '#!/bin/sh\necho aarch64\n')
    for version in ('3.7', '3.11'):
        machine.python(version)
    code, output, log = machine.setup()
    assert (code, log) == (0, ['venv 3.11', 'install requirements-tf2.txt'])
    assert 'TensorFlow 1.15 is not made for this processor: Python 3.11.1' in output.splitlines()[0]


@pytest.mark.parametrize('others', [[], ['3.6', '3.8', '3.12', '3.13']])
def test_no_usable_python_is_one_line(machine, others):
    for version in others:
        machine.python(version)
    code, output, log = machine.setup()
    assert (code, log) == (1, [])
    assert output.startswith('error: no usable Python: install') and output.count('\n') == 1
    assert not (machine.root / '.venv').exists()


@pytest.mark.parametrize('variables, message', [
    ({'RUNTIME': 'cuda'}, 'RUNTIME=cuda: choose gpu, cpu, tf2 or system'),
    ({'RUNTIME': 'gpu'}, 'RUNTIME=gpu needs Python 3.7'),
    ({'PYTHON': 'python3.99'}, 'no usable Python: python3.99'),
])
def test_wrong_choice_is_one_line(machine, variables, message):
    machine.python('3.10')
    code, output, log = machine.setup(**variables)
    assert (code, log) == (1, [])
    assert output.startswith('error: ' + message) and output.count('\n') == 1


def test_gpu_gets_the_gpu_build_and_a_word_where_it_is_not_usable(machine):
    machine.python('3.7')
    machine.program(machine.bin / 'nvidia-smi', '#!/bin/sh\necho "GPU 0: Tesla V100 (UUID: 1)"\n')
    code, output, log = machine.setup()
    assert (code, log) == (0, ['venv 3.7', 'install requirements.txt'])
    assert 'NVIDIA GPUs: 1: TensorFlow 1.15 for GPUs' in output.splitlines()[0]
    assert 'will run on the CPU' in output  # the stand-in sees no GPU


def test_gpu_without_python_3_7_gets_cuda_too(machine):
    machine.python('3.9')
    machine.program(machine.bin / 'nvidia-smi', '#!/bin/sh\necho "GPU 0: A100 (UUID: 1)"\n')
    assert machine.setup()[2] == [
        'venv 3.9', 'install requirements-tf2.txt', 'install requirements-tf2-gpu.txt']


@pytest.mark.parametrize('capabilities, installed', [
    ('8.0', 'requirements-tf2.txt'), ('7.0 12.0', 'requirements-tf2.txt'),
    ('7.5', 'requirements.txt'), ('3.5', 'requirements.txt'), ('[N/A]', 'requirements.txt')])
def test_a_gpu_too_new_for_tensorflow_1_15_gets_tensorflow_2(machine, capabilities, installed):
    machine.python('3.7')
    machine.python('3.11')
    machine.program(machine.bin / 'nvidia-smi', (
        '#!/bin/sh\ncase "$1" in\n-L) echo "GPU 0: any (UUID: 1)" ;;\n'
        '--query-gpu=compute_cap) printf "%s\\n" {} ;;\nesac\n'.format(capabilities)))
    code, output, log = machine.setup()
    assert code == 0 and log[1] == 'install ' + installed
    assert ('too new for TensorFlow 1.15' in output) == (installed == 'requirements-tf2.txt')
    shutil.rmtree(str(machine.root / '.venv'))
    assert machine.setup(RUNTIME='gpu')[2][1] == 'install requirements.txt'  # as it was asked for


@pytest.mark.skipif(not shutil.which('make'), reason='there is no make')
def test_make_takes_python_from_the_environment_or_its_own_line(machine):
    machine.python('3.7', machine.root / 'a')
    machine.python('3.10', machine.root / 'b')
    shutil.copy(os.path.join(ROOT, 'Makefile'), str(machine.root))
    env = dict(PATH=':'.join(machine.path), HOME=str(machine.home), LOG=str(machine.log),
               PYTHON=str(machine.root / 'a'))
    for arguments, expected in (([], 'venv 3.7'), (['PYTHON=' + str(machine.root / 'b')],
                                                   'venv 3.10')):
        machine.log.write_text('')
        subprocess.run([shutil.which('make'), 'setup'] + arguments, cwd=str(machine.root), env=env,
                       check=True, stdout=subprocess.DEVNULL)
        assert machine.log.read_text().splitlines()[0] == expected


def test_second_run_does_nothing(machine):
    machine.python('3.7')
    machine.setup('requirements-test.txt')
    assert machine.setup('requirements-test.txt') == (0, '', [])
    assert machine.setup() == (0, '', [])


def test_interrupted_install_is_not_taken_for_a_finished_one(machine):
    machine.python('3.7')
    code, output, _ = machine.setup(PIP_FAILS='1')
    assert code == 1 and 'error: installing requirements-cpu.txt failed' in output
    assert machine.setup()[2] == CPU
    assert machine.setup('requirements-test.txt', PIP_FAILS='1')[0] == 1
    assert machine.setup('requirements-test.txt')[2] == ['install requirements-test.txt']


def test_changed_requirements_are_installed(machine):
    machine.python('3.7')
    machine.setup('requirements-test.txt')
    with open(str(machine.root / 'requirements-test.txt'), 'a') as test_file:
        test_file.write('# changed\n')
    assert machine.setup('requirements-test.txt')[2] == ['install requirements-test.txt']
    with open(str(machine.root / 'requirements-cpu.txt'), 'a') as runtime_file:
        runtime_file.write('# changed\n')
    assert machine.setup('requirements-test.txt')[2] == CPU + ['install requirements-test.txt']


def test_runtime_is_changed_on_request_and_kept_otherwise(machine):
    machine.python('3.7')
    machine.python('3.9')
    machine.setup()
    left_over = machine.root / '.venv' / 'left-over'
    left_over.write_text('')
    assert machine.setup(RUNTIME='cpu')[2] == []
    assert machine.setup(RUNTIME='tf2')[2] == ['venv 3.9', 'install requirements-tf2.txt']
    assert not left_over.exists()
    assert machine.setup()[2] == []
    assert machine.setup(PYTHON='python3.7')[2] == CPU


def test_environment_whose_python_has_gone_is_made_anew(machine):
    machine.python('3.7')
    machine.setup()
    machine.program(machine.root / '.venv' / 'bin' / 'python', SHIM)
    assert machine.setup()[2] == CPU


def test_folder_of_other_origin_is_left_alone(machine):
    machine.python('3.7')
    (machine.root / 'mine').mkdir()
    (machine.root / 'mine' / 'file').write_text('kept')
    code, output, log = machine.setup(VENV='mine')
    assert (code, log) == (1, [])
    assert output.startswith('error: mine is there') and output.count('\n') == 1
    assert os.listdir(str(machine.root / 'mine')) == ['file']


def test_system_adds_what_is_missing_and_says_what_there_is(machine):
    machine.python('3.8', machine.bin / 'python3')
    code, output, log = machine.setup('requirements-test.txt', RUNTIME='system',
                                      MISSING='pytest==7.4.4 attrs==24.2.0')
    assert (code, log) == (0, ['venv 3.8', 'add pytest==7.4.4 attrs==24.2.0'])
    assert 'Python 3.8.1' in output and 'TensorFlow 1.15.5, NumPy 1.21.1' in output.splitlines()[0]
    site = machine.root / '.venv' / 'lib' / 'python3.8' / 'site-packages'
    assert (site / 'system.pth').read_text() == 'packages of the system\n'
    assert (machine.root / '.venv' / 'installed' / 'theirs').read_text() == 'numpy==1.21.1\n'
    assert machine.setup('requirements-test.txt', RUNTIME='system') == (0, '', [])
    assert machine.setup() == (0, '', [])


def test_system_brings_scipy_where_there_is_none(machine):
    machine.python('3.8', machine.bin / 'python3')
    assert machine.setup(RUNTIME='system', NO_SCIPY='1')[2] == ['venv 3.8', 'add scipy']


def test_system_is_made_anew_for_other_packages(machine):
    machine.python('3.8')
    given = {'RUNTIME': 'system', 'PYTHON': 'python3.8'}
    machine.setup(**given)
    assert machine.setup(**given)[2] == []
    assert machine.setup(SYSTEM='another', **given)[2] == ['venv 3.8']


def test_system_that_will_not_do_is_an_error_in_one_line(machine):
    machine.python('3.8', machine.bin / 'python3')
    assert machine.setup(RUNTIME='system', FOUND='x has TensorFlow 2.16.1') == (
        1, 'error: x has TensorFlow 2.16.1\n', [])
    code, output, log = machine.setup(RUNTIME='system', PYTHON='python9')
    assert (code, log, output) == (1, [], 'error: there is no python9\n')


def ask_system(*arguments, **variables):
    """(exit status, stdout) of .ci/system.py, asked by this interpreter."""
    run = subprocess.run(
        [sys.executable, os.path.join(ROOT, '.ci', 'system.py')] + list(arguments),
        env=dict(os.environ, **variables), stdout=subprocess.PIPE, universal_newlines=True)
    return run.returncode, run.stdout


@pytest.mark.parametrize('version, status', [
    ('1.15.5+nv23.03', 0), ('2.15.1', 0), ('1.14.0', 1), ('2.16.1', 1), (None, 1)])
def test_system_needs_a_tensorflow_with_estimators(tmp_path, version, status):
    (tmp_path / 'tensorflow.py').write_text(
        '__version__ = %r' % version if version else 'raise ImportError("libx.so\\nis gone")')
    code, said = ask_system('found', 'elsewhere', PYTHONPATH=str(tmp_path))
    assert code == status and said.count('\n') == 1
    assert (version or 'libx.so is gone') in said


def test_system_refuses_to_delete_the_packages_it_would_see():
    code, said = ask_system('found', sys.prefix)
    assert code == 1 and 'name another, VENV=' in said


def test_system_keeps_what_is_there_at_any_version(tmp_path):
    for name, version in (('numpy', '9.9'), ('Odd.Name', '1.0')):
        folder = tmp_path / '{}-{}.dist-info'.format(name, version)
        folder.mkdir()
        (folder / 'METADATA').write_text('Metadata-Version: 2.1\nName: {}\nVersion: {}\n'.format(
            name, version))
    there = {'PYTHONPATH': str(tmp_path)}
    assert 'numpy==9.9' in ask_system('theirs', **there)[1].splitlines()
    wanted = tmp_path / 'requirements.txt'
    wanted.write_text('numpy==1.18.5  # a comment\nodd-name==2.0\nnot-there==1.0\n'
                      "of-old==1.0; python_version < '3'\npytest==1.0\n")
    # What this environment has itself was added, and follows the file.
    own = ['pytest==1.0'] if sys.prefix != sys.base_prefix else []
    assert ask_system('missing', str(wanted), **there)[1].split() == ['not-there==1.0'] + own


def test_an_environment_over_this_one_sees_its_tensorflow(machine):
    shutil.copy(os.path.join(ROOT, '.ci', 'system.py'), str(machine.root / '.ci'))
    machine.path += os.environ['PATH'].split(':')
    code, output, _ = machine.setup(RUNTIME='system', PYTHON=sys.executable, PIP_NO_INDEX='1')
    assert code == 0 and output.count('\n') == 1
    found = subprocess.run(
        [str(machine.root / '.venv' / 'bin' / 'python'), '-c',
         'import numpy, sys; print(numpy.__file__); print(sys.prefix)'],
        stdout=subprocess.PIPE, universal_newlines=True, check=True).stdout.splitlines()
    import numpy
    assert found == [numpy.__file__, str(machine.root / '.venv')]


def pins(name, python):
    """The (project, version) pairs that a requirements file gives for a Python version."""
    found = []
    with open(os.path.join(ROOT, name)) as lines:
        for line in lines:
            line = line.split('#')[0].strip()
            if line:
                match = re.match(r'([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)(?:; (.+))?$', line)
                assert match, '%s: not pinned: %s' % (name, line)
                project, version, marker = match.groups()
                if not marker or Marker(marker).evaluate({'python_version': python}):
                    found.append((re.sub('[-_.]+', '-', project).lower(), version))
    return found


@pytest.mark.parametrize('name', REQUIREMENTS)
def test_every_requirement_is_pinned(name):
    for python in RUNTIMES.get(name, ['3.7', '3.8', '3.9', '3.10', '3.11']):
        assert pins(name, python)


@pytest.mark.parametrize('runtime, python', [(r, p) for r in sorted(RUNTIMES) for p in RUNTIMES[r]])
def test_requirements_files_agree(runtime, python):
    versions = {}
    for name in [runtime, 'requirements-test.txt', 'requirements-plot.txt']:
        for project, version in pins(name, python):
            assert versions.setdefault(project, version) == version, (name, project)


def test_cpu_and_gpu_runtimes_differ_in_tensorflow_alone():
    gpu, cpu = pins('requirements.txt', '3.7'), pins('requirements-cpu.txt', '3.7')
    assert gpu[0] == ('tensorflow-gpu', '1.15') and cpu[0] == ('intel-tensorflow', '1.15.2')
    assert gpu[1:] == cpu[1:]


def made_by_setup():
    """Whether this environment is .ci/setup's, of pinned packages alone."""
    try:
        with open(os.path.join(sys.prefix, 'installed', 'runtime')) as file:
            return not file.read().startswith('system')
    except OSError:
        return False


@pytest.mark.skipif(not made_by_setup(), reason='this environment was not made by .ci/setup, or '
                    'sees the packages of a system')
def test_nothing_unpinned_is_installed():
    import pkg_resources
    folder = os.path.join(sys.prefix, 'installed')
    python = '%d.%d' % sys.version_info[:2]
    expected = {project for name in os.listdir(folder) if name.startswith('requirements')
                for project, _ in pins(name, python)}
    installed = {re.sub('[-_.]+', '-', project.key) for project in pkg_resources.working_set}
    assert installed - {'pip'} == expected


def test_syntax_and_standard_library_are_of_python_3_6():
    sources = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name == '.ci' or name[0] != '.'
                      and name not in ('images', 'runs')]
        sources += [os.path.join(folder, name) for name in names if name.endswith('.py')]
    vermin = [sys.executable, '-c', 'import vermin; vermin.main()', '--no-tips', '--violations']
    run = subprocess.run(vermin + ['-t=3.6-'] + sources, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, universal_newlines=True)
    assert run.returncode == 0, run.stdout
