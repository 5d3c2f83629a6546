"""Lists with a record of who wrote them, and file systems that lack something."""
import errno
import fcntl
import json
import os
import shlex
import shutil
import sys

import pytest

from data import scripts
from runtime import files
from runtime.errors import UserError

TRAIN, TEST = [('a b.png', 0), ('/abs/c.png', 1)], [('d.png', 0)]


def contents(folder):
    return [(folder / name).read_text() for name in scripts.LISTS if (folder / name).exists()]


def test_own_lists_are_replaced(tmp_path):
    scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    assert contents(tmp_path) == ['a b.png 0\n/abs/c.png 1\n', 'd.png 0\n', 'cat\ndog\n']
    assert scripts.refuse_foreign_lists(str(tmp_path)) == list(scripts.LISTS)
    scripts.write_lists(str(tmp_path), TEST, TRAIN, classes=['x'])
    assert contents(tmp_path) == ['d.png 0\n', 'a b.png 0\n/abs/c.png 1\n', 'x\n']
    (tmp_path / 'val.txt').unlink()
    scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert contents(tmp_path) == ['a b.png 0\n/abs/c.png 1\n', 'd.png 0\n', 'x\n']


@pytest.mark.parametrize('name', scripts.LISTS)
@pytest.mark.parametrize('same_content', [False, True])
def test_lists_without_a_record_are_kept(tmp_path, name, same_content):
    scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    for other in set(os.listdir(str(tmp_path))) - {name}:
        (tmp_path / other).unlink()
    if not same_content:
        (tmp_path / name).write_text('mine.png 0\n')
    before = contents(tmp_path)
    with pytest.raises(UserError, match=name):
        scripts.write_lists(str(tmp_path), TRAIN, TEST, classes=['cat', 'dog'])
    with pytest.raises(UserError, match=name), scripts.target_folder(str(tmp_path)):
        pytest.fail('images would be written first')
    assert contents(tmp_path) == before


def test_a_link_to_nothing_is_kept(tmp_path):
    (tmp_path / 'train.txt').symlink_to('elsewhere')
    with pytest.raises(UserError, match='train.txt'):
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


@pytest.mark.parametrize('content', ['', '{'])
def test_damaged_record_is_named(tmp_path, content):
    (tmp_path / scripts.RECORD).write_text(content)
    with pytest.raises(UserError, match=scripts.RECORD):
        scripts.write_lists(str(tmp_path), TRAIN, TEST)


@pytest.mark.parametrize('train, classes', [
    (TRAIN, ['cat', 'fire\nengine']), ([('a\n.JPEG', 1)], None), ([('a\udcff.JPEG', 1)], None)])
def test_name_that_a_list_cannot_hold(tmp_path, train, classes):
    with pytest.raises(UserError, match='Rename it'):
        scripts.write_lists(str(tmp_path), train, TEST, classes)
    assert os.listdir(str(tmp_path)) == []


def test_images_are_on_disk_before_the_lists_are_written(tmp_path, monkeypatch):
    listed = []
    monkeypatch.setattr(os, 'sync', lambda: listed.append(contents(tmp_path)))
    scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert listed == [[]] and len(contents(tmp_path)) == 2
    assert json.loads((tmp_path / scripts.RECORD).read_text()).keys() == {'train.txt', 'val.txt'}


def test_folder_that_cannot_be_synced(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, 'Invalid argument')
    monkeypatch.setattr(files, 'flush', refuse)
    scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert len(contents(tmp_path)) == 2


@pytest.mark.parametrize('number', ['ENOLCK', 'ENOSYS', 'EOPNOTSUPP', 'EACCES'])
def test_file_system_without_locks(tmp_path, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(getattr(errno, number), 'no locks here')
    monkeypatch.setattr(fcntl, 'flock', refuse)
    with scripts.target_folder(str(tmp_path)):
        scripts.write_lists(str(tmp_path), TRAIN, TEST)
    assert f'warning: {tmp_path}' in capsys.readouterr().out


@pytest.mark.parametrize('folder', ['file', 'file/below', '/proc/none'])
def test_target_that_cannot_be_written(tmp_path, folder):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=folder + '.*--target'), \
            scripts.target_folder(os.path.join(str(tmp_path), folder)):
        pytest.fail('it was made')


def test_printed_command_names_the_script_and_this_python(tmp_path, monkeypatch, capsys):
    for folder in (scripts.ROOT, str(tmp_path)):
        monkeypatch.chdir(folder)
        scripts.print_commands([TRAIN, TEST], '/my images', {'folder --num_classes=2': ''})
        python, script, *flags = shlex.split(capsys.readouterr().out.split('next: ')[1])
        assert os.path.realpath(shutil.which(python)) == os.path.realpath(sys.executable)
        assert os.path.samefile(script, os.path.join(scripts.ROOT, 'imagenet_main.py'))
        assert flags == ['--dataset=folder', '--num_classes=2', '--data_dir=/my images']
