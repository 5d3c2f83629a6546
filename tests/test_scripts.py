"""Code of all prepare scripts: lists and their record, the target folder, messages, errors."""
import errno
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from miniatures import refused

from data import scripts
from runtime import files

TRAIN, TEST = [('a b.png', 0), ('/abs/c.png', 1)], [('d.png', 0)]


def contents(folder):
    return [(folder / name).read_text() for name in scripts.LISTS if (folder / name).exists()]


def test_own_lists_are_replaced(tmp_path):
    scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    assert contents(tmp_path) == ['a b.png 0\n/abs/c.png 1\n', 'd.png 0\n', 'cat\ndog\n']
    scripts.write_lists(str(tmp_path), TEST, TRAIN, classes=['x'])
    assert contents(tmp_path) == ['d.png 0\n', 'a b.png 0\n/abs/c.png 1\n', 'x\n']
    (tmp_path / 'val.txt').unlink()
    scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert contents(tmp_path) == ['a b.png 0\n/abs/c.png 1\n', 'd.png 0\n', 'x\n']


@pytest.mark.parametrize('name', scripts.LISTS)
def test_lists_without_a_record_are_kept(tmp_path, name):
    scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    for other in set(os.listdir(str(tmp_path))) - {name}:
        (tmp_path / other).unlink()
    before = contents(tmp_path)
    with refused(name):
        scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    with refused(name), scripts.target_folder(str(tmp_path)):
        pytest.fail('images would be written first')
    assert contents(tmp_path) == before


def test_a_link_to_nothing_is_kept(tmp_path):
    (tmp_path / 'train.txt').symlink_to('elsewhere')
    with refused('train.txt'):
        scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert (tmp_path / 'train.txt').is_symlink()


@pytest.mark.parametrize('fails_at', range(1, 5))
def test_after_a_stop_in_between_the_next_call_succeeds(tmp_path, monkeypatch, fails_at):
    scripts.write_lists(str(tmp_path), TEST, TEST, classes=['cat'])
    written, write_file = [], scripts.write_file

    def stop(path, data, sync=True):
        written.append(path)
        if len(written) == fails_at:
            raise KeyboardInterrupt
        write_file(path, data, sync)
    monkeypatch.setattr(scripts, 'write_file', stop)
    with pytest.raises(KeyboardInterrupt):
        scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    monkeypatch.setattr(scripts, 'write_file', write_file)
    scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    assert contents(tmp_path)[2] == 'cat\ndog\n'


def test_damaged_record_is_named(tmp_path):
    (tmp_path / scripts.RECORD).write_text('{')
    with refused(scripts.RECORD):
        scripts.write_lists(str(tmp_path), TRAIN, TEST)


@pytest.mark.parametrize('train, classes', [
    (TRAIN, ['cat', 'fire\nengine']), ([('a\n.JPEG', 1)], None), ([('a\udcff.JPEG', 1)], None)])
def test_name_that_a_list_cannot_hold(tmp_path, train, classes):
    with refused('Rename it'):
        scripts.write_lists(str(tmp_path), train, TEST, classes)
    assert os.listdir(str(tmp_path)) == []


def test_images_are_on_disk_before_the_lists_are_written(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(os, 'sync', lambda: listed.append(contents(tmp_path)))
    scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert listed == [[]] and len(contents(tmp_path)) == 2


def test_file_system_without_locks_that_cannot_sync_a_folder(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOSYS, 'not here')
    monkeypatch.setattr(fcntl, 'flock', refuse)
    with scripts.target_folder(str(tmp_path)):
        monkeypatch.setattr(files, 'flush', refuse)
        scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert len(contents(tmp_path)) == 2
    assert f'warning: {tmp_path}' in capsys.readouterr().out


@pytest.mark.parametrize('folder', ['file', 'file/below', '/proc/none'])
def test_target_that_cannot_be_written(tmp_path, folder):
    (tmp_path / 'file').write_text('')
    with refused(folder + '.*--target'), scripts.target_folder(str(tmp_path / folder)):
        pytest.fail('it was made')


def test_printed_command_names_the_script_and_this_python(tmp_path, monkeypatch, capsys):
    for folder in (scripts.ROOT, str(tmp_path)):
        monkeypatch.chdir(folder)
        scripts.print_commands([TRAIN, TEST], '/my images', {'folder --num_classes=2': ''})
        python, script, *flags = shlex.split(capsys.readouterr().out.split('next: ')[1])
        assert os.path.realpath(shutil.which(python)) == os.path.realpath(sys.executable)
        assert os.path.samefile(script, os.path.join(scripts.ROOT, 'imagenet_main.py'))
        assert flags == ['--dataset=folder', '--num_classes=2', '--data_dir=/my images']


def test_progress_says_rate_and_time_left(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    progress = scripts.Progress('images', 1281167)
    for _ in range(10):
        now[0] += 1
        for _ in range(1000):
            progress.add()
    progress.add()
    assert capsys.readouterr().out == 'images: 9001 of 1281167, 900/s, 0:23:33 left\n'
    progress.print_line()
    assert capsys.readouterr().out == 'images: 10001 of 1281167, 1000/s, 0:21:11 left\n'


def test_two_runs_do_not_mix(tmp_path):
    code = (f'from data import scripts\nwith scripts.target_folder({str(tmp_path)!r}):\n'
            '    print("in", flush=True)\n    input()')

    def start():
        return subprocess.Popen(
            [sys.executable, '-c', code], cwd=scripts.ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, universal_newlines=True)

    with start() as first:
        assert first.stdout.readline() == 'in\n'
        with start() as second:
            assert second.stdout.readline() == f'{tmp_path}: waiting for the end of another run\n'
            first.communicate('\n')
            assert second.stdout.readline() == 'in\n'
            second.communicate('\n')
    assert (first.returncode, second.returncode) == (0, 0)


def test_link_to_the_same_place_stays(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    for _ in range(2):
        scripts.link('../one', str(tmp_path), 'out/link')
    with refused('is not .*two.*--target'):
        scripts.link(str(tmp_path / 'two'), str(tmp_path), 'out/link')
    assert os.path.realpath(str(tmp_path / 'out' / 'link')) == str(tmp_path / 'one')
    with refused('is a link to .*one.*--target'):
        scripts.link(str(tmp_path / 'two'), str(tmp_path), 'out/link/inside')


def test_an_error_or_sigterm_ends_a_script_in_one_line(capsys):
    def fail():
        raise PermissionError(errno.EACCES, 'Permission denied', 'a.tar')

    def be_terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit, match='^error: a.tar: Permission denied$'):
            scripts.run(fail)
        with pytest.raises(SystemExit, match='^130$'):
            scripts.run(be_terminated)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert 'rerun the same command' in capsys.readouterr().err
