"""The set-up: which Python requirements/setup.sh takes and what it installs; the pins."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from packaging.markers import Marker
from tiny_runs import ROOT

FOLDER = os.path.join(ROOT, 'requirements')
RUNTIMES = {  # requirements files and the Pythons that they are for
    'requirements.txt': ['3.7'], 'requirements/tf2-newest.txt': ['3.12', '3.13'],
    'requirements/cpu.txt': ['3.7'], 'requirements/tf2.txt': ['3.9', '3.10', '3.11']}
EXTRAS = 'requirements/test.txt', 'requirements/plot.txt'
PINNED = ['requirements.txt'] + sorted(f'requirements/{name}' for name in os.listdir(FOLDER)
                                       if name.endswith('.txt') and name != 'system.txt')

# Stands in for an interpreter of one version. Logs what it creates and installs.
FAKE_PYTHON = '''#!/bin/sh
case "$*" in
    "-c "*base_prefix*) echo "{prefix}" ;;
    "-c import sys; print"*) echo {version} ;;
    "-c import ensurepip, venv") [ -z "{broken}" ] ;;
    "-c import runtime"*) true ;;
    "-m venv"*)
        echo "venv {version}" | sed "s/$/$(echo "$*" | grep -o ' --system[a-z-]*')/" >>"$LOG"
        for folder; do :; done
        mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" ;;
    "-m pip"*"list --format"*) printf '%s\\n' numpy==1.21.1 $LISTED ;;
    "-m pip"*" -r "* | "-m pip"*" --no-deps "*)
        for list; do :; done
        {{ head -n 1 "$list" 2>/dev/null || echo "$list"; }} >>"$LOG"
        [ -z "$PIP_FAILS" ] ;;
    "-m pip"*) [ -z "$OFFLINE" ] ;;
    *) exit 9 ;;
esac
'''
TOOLS = ['cat', 'cmp', 'cp', 'dirname', 'find', 'grep', 'head', 'mkdir', 'mktemp', 'mv', 'rm',
         'sed', 'sort', 'tail']


class Machine:
    """A copy of the set-up on a machine with only the programs that a test adds."""

    def __init__(self, folder):
        self.root, self.bin, self.log = folder / 'clone', folder / 'bin', folder / 'log'
        (self.root / 'requirements').mkdir(parents=True)
        shutil.copy(os.path.join(FOLDER, 'setup.sh'), str(self.root / 'requirements'))
        for name in PINNED + ['requirements/system.txt']:  # a first line that the log shows
            (self.root / name).write_text(os.path.basename(name) + '==1\n')
        self.program(folder / 'tools' / 'uname', 'echo ${ARCH:-x86_64}')
        self.program(folder / 'tools' / 'flock', 'grep -q "flags:.*2$" /proc/self/fdinfo/$1 || '
                     'echo "locks what is not open for writing" >>"$LOG"')
        for tool in filter(shutil.which, TOOLS):
            (folder / 'tools' / tool).symlink_to(shutil.which(tool))
        self.path = f'{self.bin}:{folder}/tools'

    def program(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#!/bin/sh\n' + text + '\n')
        path.chmod(0o755)

    def python(self, version, folder=None, broken=''):
        folder = folder or self.bin
        text = FAKE_PYTHON.format(version=version, prefix=folder.parent, broken=broken)
        self.program(folder / f'python{version}', text)
        self.program(folder / 'python3', text)

    def gpu(self, capability):
        self.program(self.bin / 'nvidia-smi', 'case "$1" in -L) echo "GPU 0: any" ;; '
                     f'*) echo "{capability}" ;; esac')

    def setup(self, *files, **variables):
        """Run setup.sh; return its exit code, output, and what was created and installed."""
        self.log.write_text('')
        run = subprocess.run(
            ['/bin/sh', 'requirements/setup.sh', *files], cwd=self.root, stdin=subprocess.DEVNULL,
            env=dict(variables, PATH=self.path, HOME=f'{self.root.parent}/home', LOG=str(self.log)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        return run.returncode, run.stdout, self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


CPU = ['venv 3.7', 'cpu.txt==1']


@pytest.mark.parametrize('versions, gpu, variables, expected', [
    (['3.13', '3.11', '3.7'], None, {}, CPU),
    (['3.7'], '7.5', {}, ['venv 3.7', 'requirements.txt==1']),
    (['3.7'], '[N/A]', {}, ['venv 3.7', 'requirements.txt==1']),
    (['3.7', '3.11'], '8.0', {}, ['venv 3.11', 'tf2.txt==1', 'tf2-gpu.txt==1']),
    (['3.7', '3.11'], '8.0', {'RUNTIME': 'gpu'}, ['venv 3.7', 'requirements.txt==1']),
    (['3.9', '3.10', '3.13'], None, {}, ['venv 3.10', 'tf2.txt==1']),
    (['3.8', '3.12', '3.14'], None, {}, ['venv 3.12', 'tf2-newest.txt==1']),
    (['3.7', '3.11', '3.13'], '12.0', {}, [
        'venv 3.13', 'tf2-newest.txt==1', 'tf2-newest-gpu.txt==1']),
    (['3.7', '3.9'], None, {'RUNTIME': 'tf2'}, ['venv 3.9', 'tf2.txt==1']),
    (['3.7', '3.13'], None, {'PYTHON': 'python3.13'}, ['venv 3.13', 'tf2-newest.txt==1']),
    (['3.7', '3.11'], '7.2', {'ARCH': 'aarch64'}, ['venv 3.11', 'tf2.txt==1'])])
def test_python_and_runtime_that_suit_the_machine(machine, versions, gpu, variables, expected):
    for version in versions:
        machine.python(version)
    if gpu:
        machine.gpu(gpu)
    code, output, log = machine.setup(**variables)
    assert (code, log) == (0, expected)
    version, runtime = log[0].split()[1], log[1].replace('requirements.txt', 'gpu.')
    for part in (f'Python {version} at ', f'runtime {runtime.split(".")[0]} ('):
        assert part in output.split('\n')[0]


def test_a_python_that_does_not_run_is_passed_over(machine, tmp_path):
    machine.program(machine.bin / 'python3.7', 'exit 127')
    machine.python('3.7', tmp_path / 'home' / '.pyenv' / 'versions' / '3.7.16' / 'bin')
    code, output, log = machine.setup()
    assert (code, log) == (0, CPU) and '/versions/3.7.16/bin/python3.7' in output


@pytest.mark.parametrize('present', [True, False])
def test_uv_installs_python_3_11_if_none_fits(machine, tmp_path, present):
    machine.python('3.8')
    machine.python('3.13', broken='no venv module')
    uv = tmp_path / 'uv'
    machine.program(uv / 'python3.11', FAKE_PYTHON.format(version='3.11', prefix=uv, broken=''))
    if present:
        machine.program(machine.bin / 'python', '[ "$1" != -m ] || echo "python $*" >>"$LOG"')
        machine.program(machine.bin / 'uv', f'cd "{uv}"; mkdir -p bin; mv python* bin; '
                        f'[ "$2" = install ] || echo {uv}/bin/python3.11')
    code, output, log = machine.setup(OFFLINE='' if present else '1')
    assert '3.11 with uv' in output.split('\n')[0]
    if present:
        assert (code, log) == (0, ['venv 3.11', 'tf2.txt==1'])
    else:
        assert code == 1 and output.count('error: ') == 1 and 'PYTHON=' in output
        assert '/uv: ' not in output and not (machine.root / '.venv').exists()


@pytest.mark.parametrize('variables, named', [
    ({'RUNTIME': 'cuda'}, 'RUNTIME=cuda'), ({'PYTHON': 'python3.99'}, 'python3.99'),
    ({'RUNTIME': 'gpu', 'PYTHON': 'python3.10'}, '3.7'), ({'VENV': 'mine'}, 'mine')])
def test_a_wrong_variable_is_refused_in_one_line_and_changes_nothing(machine, variables, named):
    machine.python('3.10')
    (machine.root / 'mine').mkdir()
    code, output, log = machine.setup(**variables)
    assert (code, log) == (1, []) and output.startswith('error: ') and output.count('\n') == 1
    assert named in output and os.listdir(str(machine.root / 'mine')) == []


def test_nothing_is_installed_again_until_something_changes(machine):
    machine.python('3.7')
    machine.python('3.9')
    test = 'requirements/test.txt'
    code, output, _ = machine.setup(PIP_FAILS='1')
    assert code == 1 and 'error: requirements/cpu.txt' in output
    assert machine.setup(test)[2] == CPU + ['test.txt==1']
    assert machine.setup(test) == machine.setup(RUNTIME='cpu') == (0, '', [])
    (machine.root / test).write_text('changed\n')
    assert machine.setup(test)[2] == ['changed']
    (machine.root / 'requirements' / 'cpu.txt').write_text('new\n')
    assert machine.setup()[2] == ['venv 3.7', 'new']
    assert machine.setup(RUNTIME='tf2')[2] == ['venv 3.9', 'tf2.txt==1']
    assert machine.setup() == (0, '', [])
    assert machine.setup(PYTHON='python3.7')[2] == ['venv 3.7', 'new']
    machine.program(machine.root / '.venv' / 'bin' / 'python', 'exit 1')  # its Python is gone
    assert machine.setup()[2] == ['venv 3.7', 'new']


def test_runtime_system_keeps_installed_versions(machine):
    machine.python('3.8', broken='no ensurepip')
    listed = 'tensorflow==2.15.1 tensorflow_cpu==2.17.0+nv24.10 tensorflow-rocm==2.18.1'
    code, _, log = machine.setup('requirements/test.txt', RUNTIME='system', LISTED=listed)
    assert (code, log) == (0, ['venv 3.8 --system-site-packages', 'system.txt',
                               'tf-keras==2.17.*', 'tf-keras==2.18.*', 'test.txt'])
    assert 'numpy==1.21.1\n' in (machine.root / '.venv' / 'installed' / 'system').read_text()


def pins(name, python):
    """The (project, version) pairs that a requirements file gives for a Python version."""
    pairs = []
    with open(os.path.join(ROOT, name)) as file:
        for line in filter(None, (line.split('#')[0].strip() for line in file)):
            match = re.match(r'([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)(?:; (.+))?$', line)
            assert match, f'{name}: not pinned: {line}'
            project, version, marker = match.groups()
            if not marker or Marker(marker).evaluate({'python_version': python}):
                pairs.append((re.sub('[-_.]+', '-', project).lower(), version))
    return pairs


def test_requirements_are_pinned_and_agree():
    assert all(pins(name, RUNTIMES.get(name, ['3.11'])[0]) for name in PINNED)
    for runtime, pythons in RUNTIMES.items():
        for python in pythons:
            versions = {}
            for name in (runtime,) + EXTRAS:
                for project, version in pins(name, python):
                    assert versions.setdefault(project, version) == version, (name, project)


def test_nothing_unpinned_is_installed():
    folder = pathlib.Path(sys.prefix, 'installed')
    if not (folder / 'runtime').exists() or (folder / 'system.txt').exists():
        pytest.skip('requirements/setup.sh did not create this environment from pins alone')
    names = [name for name in PINNED if (folder / os.path.basename(name)).exists()]
    python = '%d.%d' % sys.version_info[:2]
    expected = {project for name in names for project, _ in pins(name, python)}
    listed = subprocess.run([sys.executable, '-m', 'pip', 'list', '--format=freeze'], check=True,
                            stdout=subprocess.PIPE, universal_newlines=True).stdout
    installed = {re.sub('[-_.]+', '-', line.split('==')[0]).lower() for line in listed.split()}
    assert installed - {'pip'} == expected
