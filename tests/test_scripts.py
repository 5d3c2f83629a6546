"""Code of all prepare scripts: lists and their record, the target folder, messages, errors."""
import errno
import fcntl
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import pytest
from miniatures import interrupted_after, refused

from data import scripts

TRAIN, TEST = [('a b.png', 0), ('/abs/c.png', 1)], [('d.png', 0)]
CLASSES = ['cat', 'dog']


def contents(folder):
    return [(folder / name).read_text() for name in scripts.LISTS if (folder / name).exists()]


def write_lists(folder, train=TRAIN, test=TEST, classes=CLASSES):
    scripts.write_lists(str(folder), train, test, classes)


def test_lists_written_by_a_script_are_replaced(tmp_path):
    write_lists(tmp_path)
    assert contents(tmp_path) == ['a b.png 0\n/abs/c.png 1\n', 'd.png 0\n', 'cat\ndog\n']
    write_lists(tmp_path, TEST, TRAIN, ['x'])
    assert contents(tmp_path) == ['d.png 0\n', 'a b.png 0\n/abs/c.png 1\n', 'x\n']
    (tmp_path / 'val.txt').unlink()
    write_lists(tmp_path)
    assert contents(tmp_path) == ['a b.png 0\n/abs/c.png 1\n', 'd.png 0\n', 'cat\ndog\n']


@pytest.mark.parametrize('name', [*scripts.LISTS, 'a link to nothing', 'a damaged record'])
def test_lists_without_a_record_are_kept(tmp_path, name):
    write_lists(tmp_path)
    for other in set(os.listdir(str(tmp_path))) - {name}:
        (tmp_path / other).unlink()
    if name == 'a link to nothing':
        name = 'train.txt'
        (tmp_path / name).symlink_to('elsewhere')
    elif name == 'a damaged record':
        name = scripts.RECORD
        (tmp_path / name).write_text('{')
    before = contents(tmp_path), os.listdir(str(tmp_path))
    with refused(name):
        write_lists(tmp_path)
    assert (contents(tmp_path), os.listdir(str(tmp_path))) == before
    with refused(name), scripts.target_folder(str(tmp_path)):
        pytest.fail('images would be written first')
    assert contents(tmp_path) == before[0]


@pytest.mark.parametrize('count', range(4))
def test_an_interrupted_write_of_the_lists_is_repeated(tmp_path, count):
    write_lists(tmp_path, TEST, TEST, ['cat'])
    with interrupted_after(count, scripts):
        write_lists(tmp_path)
    write_lists(tmp_path)
    assert contents(tmp_path)[2] == 'cat\ndog\n'


@pytest.mark.parametrize('train, classes', [
    (TRAIN, ['cat', 'fire\nengine']), ([('a\n.JPEG', 1)], CLASSES),
    ([('a\udcff.JPEG', 1)], CLASSES)])
def test_a_name_with_a_line_break_or_invalid_bytes_is_refused(tmp_path, train, classes):
    with refused('Rename it'):
        write_lists(tmp_path, train, classes=classes)
    assert os.listdir(str(tmp_path)) == []


def test_images_are_on_disk_before_the_lists_are_written(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(os, 'sync', lambda: listed.append(contents(tmp_path)))
    write_lists(tmp_path)
    assert listed == [[]] and len(contents(tmp_path)) == 3


def test_a_file_system_without_locks_or_fsync_causes_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOSYS, 'not here')
    monkeypatch.setattr(fcntl, 'flock', refuse)
    with scripts.target_folder(str(tmp_path)):
        monkeypatch.setattr(os, 'fsync', refuse)
        write_lists(tmp_path)
    assert len(contents(tmp_path)) == 3
    assert f'warning: {tmp_path}' in capsys.readouterr().out


@pytest.mark.parametrize('folder', ['file', 'file/below', '/proc/none'])
def test_a_target_that_cannot_be_written_is_refused(tmp_path, folder):
    (tmp_path / 'file').write_text('')
    with refused(folder + '.*--target'), scripts.target_folder(str(tmp_path / folder)):
        pytest.fail('it was made')


def test_printed_command_names_the_script_and_this_python(tmp_path, monkeypatch, capsys):
    for folder in (scripts.ROOT, str(tmp_path)):
        monkeypatch.chdir(folder)
        scripts.print_commands([TRAIN, TEST], '/my images', {'folder --num_classes=2': ''})
        counts, command = capsys.readouterr().out.split('next: ')
        assert counts.startswith('2 training and 1 test images')
        python, script, *flags = shlex.split(command)
        assert os.path.realpath(shutil.which(python)) == os.path.realpath(sys.executable)
        assert os.path.samefile(script, os.path.join(scripts.ROOT, 'imagenet_main.py'))
        assert flags == ['--dataset=folder', '--num_classes=2', '--data_dir=/my images']


def test_a_second_script_waits_for_the_first(tmp_path):
    code = (f'from data import scripts\nwith scripts.target_folder({str(tmp_path)!r}):\n'
            '    print("in", flush=True)\n    input()')
    start = functools.partial(
        subprocess.Popen, [sys.executable, '-c', code], cwd=scripts.ROOT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, universal_newlines=True)
    with start() as first:
        assert first.stdout.readline() == 'in\n'
        with start() as second:
            assert second.stdout.readline() == f'{tmp_path}: waiting for the end of another run\n'
            first.communicate('\n')
            assert second.stdout.readline() == 'in\n'
            second.communicate('\n')
    assert (first.returncode, second.returncode) == (0, 0)


def test_an_existing_link_is_kept_unless_it_leads_nowhere(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    for _ in range(2):
        scripts.link('../one', str(tmp_path), 'out/link')
    for path, message in (('out/link', 'is not .*two'), ('out/link/a/b', '/link is a link .*one'),
                          ('n' * 256, 'cannot make a symbolic link')):
        with refused(message + '.*--target'):
            scripts.link(str(tmp_path / 'two'), str(tmp_path), path)
    assert os.readlink(str(tmp_path / 'out' / 'link')) == '../one'
    (tmp_path / 'one').rename(tmp_path / 'moved')
    scripts.link(str(tmp_path / 'moved'), str(tmp_path), 'out/link')
    assert os.readlink(str(tmp_path / 'out' / 'link')) == str(tmp_path / 'moved')


def test_an_error_or_sigterm_ends_a_script_in_one_line(capsys, monkeypatch):
    def be_terminated():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    try:
        for error, text in ((PermissionError(errno.EACCES, 'Denied', 'a.tar'), 'Denied$'),
                            (OSError(errno.ENOSPC, 'Full', 'a.tar'), 'Full.*then rerun the same ')):
            with pytest.raises(SystemExit, match='^error: a.tar: ' + text):
                scripts.run(mock.Mock(side_effect=error))
        with pytest.raises(SystemExit, match='^130$'):
            scripts.run(be_terminated)
        monkeypatch.setattr(sys, 'argv', ['prepare.py', 'gs://bucket/a.tar'])
        with pytest.raises(SystemExit, match='^error: gs://bucket/a.tar: remote'):
            scripts.run(mock.Mock())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert 'Rerun the same command' in capsys.readouterr().err
