"""data/folder/prepare.py on small folders of pictures, and its lists in the driver."""

import base64
import os
import shlex
import subprocess
import sys

import pytest
from miniatures import JPEG, PNG, lines, numbered, write

import exemplar
from data import lists
from data import settings as settings_lib
from data.folder import prepare
from runtime.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GIF = base64.b64decode('R0lGODlhAQABAIAAAAAAAP///yH5BAAAAAAALAAAAAABAAEAAAIBRAA7')  # one frame
CLASSES = ['Ant', 'bee', 'cat', 'fire engine']
KINDS = (('jpg', JPEG), ('PNG', PNG), ('jpeg', JPEG), ('gif', GIF))


def fill(folder, count=15, classes=CLASSES):
    for name in classes:
        for number in range(count):
            suffix, data = KINDS[number % len(KINDS)]
            write(folder / name / '{:02d}.{}'.format(number, suffix),
                  data if suffix == 'gif' else numbered(data, number))
    return str(folder)


def read(folder):
    return [lines(folder / name) for name in prepare.LISTS]


def test_lists_hold_every_picture_once_and_a_share_to_test_on(tmp_path):
    write(tmp_path / 'Ant' / 'notes.txt', b'not a picture')
    write(tmp_path / '.cache' / 'x.jpg', JPEG)
    prepare.main([fill(tmp_path)])
    train, test, classes = read(tmp_path)
    assert classes == CLASSES
    assert len(train) == 4 * 12 and len(test) == 4 * 3
    for line in train + test:
        path, label = line.rsplit(' ', 1)
        assert path.split('/')[0] == classes[int(label)] and (tmp_path / path).is_file()
    assert len(set(train + test)) == 60
    assert [int(line.rsplit(' ', 1)[1]) for line in train] == sorted(list(range(4)) * 12)
    assert len(lists.read_lists(str(tmp_path), 4)[0].paths) == 48


def test_same_seed_same_lists_and_none_is_overwritten_unasked(tmp_path):
    folder = fill(tmp_path)
    prepare.main([folder])
    first = read(tmp_path)
    with pytest.raises(UserError, match='train.txt and val.txt and classes.txt there already; '
                                        '--overwrite'):
        prepare.main([folder, '--seed=2'])
    assert read(tmp_path) == first
    prepare.main([folder, '--overwrite'])
    assert read(tmp_path) == first
    prepare.main([folder, '--overwrite', '--seed=2', '--test_share=0.3'])
    assert len(read(tmp_path)[1]) == 4 * 4 and read(tmp_path)[2] == CLASSES


def test_train_and_val_folders_stay_as_they_are(tmp_path):
    fill(tmp_path / 'train')
    fill(tmp_path / 'val', 2)
    prepare.main([str(tmp_path)])
    train, test, _ = read(tmp_path)
    assert {line.split('/')[0] for line in train} == {'train'} and len(train) == 60
    assert {line.split('/')[0] for line in test} == {'val'} and len(test) == 8


def test_small_classes_are_left_out_and_named(tmp_path, capsys):
    fill(tmp_path)
    fill(tmp_path, 5, ['dog'])
    prepare.main([str(tmp_path)])
    assert 'left out: dog: 4 training and 1 test images\n' in capsys.readouterr().out
    assert read(tmp_path)[2] == CLASSES
    prepare.main([str(tmp_path), '--overwrite', '--min_images=4'])
    assert read(tmp_path)[2] == ['Ant', 'bee', 'cat', 'dog', 'fire engine']


def test_pictures_below_a_class_folder_are_left_out_and_named(tmp_path, capsys):
    fill(tmp_path)
    fill(tmp_path / 'bee' / 'more', 3, ['2019'])
    prepare.main([str(tmp_path)])
    said = capsys.readouterr().out
    assert 'left out: bee/more/2019: 3 pictures in a folder below that of a class\n' in said
    assert len(read(tmp_path)[0] + read(tmp_path)[1]) == 60


def test_names_of_any_bytes_can_be_said(tmp_path):
    fill(tmp_path)
    write(os.path.join(str(tmp_path), os.fsdecode(b'caf\xe9'), 'a.jpg'), JPEG)
    ended = subprocess.run(
        [sys.executable, 'data/folder/prepare.py', str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=dict(os.environ, PYTHONIOENCODING='utf-8:strict'))
    assert (ended.returncode, ended.stderr) == (0, b'')
    assert b'left out: caf\\udce9: 0 training and 1 test images' in ended.stdout


def test_pictures_that_do_not_decode_are_all_named(tmp_path, capsys):
    folder = fill(tmp_path)
    write(tmp_path / 'bee' / '03.jpg', JPEG[:60])
    write(tmp_path / 'cat' / '04.png', b'<html>')
    write(tmp_path / 'cat' / '99.webp', b'RIFF0000WEBPVP8 ')
    with pytest.raises(UserError, match='bad images: 3 .*--skip_bad_images'):
        prepare.main([folder])
    said = capsys.readouterr().err
    assert 'bee/03.jpg: cut off' in said and 'cat/04.png: HTML or SVG' in said
    assert 'cat/99.webp: WebP' in said
    assert not (tmp_path / 'train.txt').exists()
    prepare.main([folder, '--skip_bad_images'])
    train, test, _ = read(tmp_path)
    assert not [line for line in train + test if '/03.jpg ' in line and line.startswith('bee')]
    assert len(train + test) == 60


@pytest.mark.parametrize('make, flags, message', [
    (lambda path: fill(path), ['--test_share=1'], '--test_share=1.0 must lie'),
    (lambda path: fill(path), ['--seed=-1'], '--seed=-1 must be'),
    (lambda path: fill(path, classes=[' cats', 'dogs']), [], "' cats/.*rename it"),
    (lambda path: fill(path, classes=['one']), [], '1 classes with .*it takes two'),
    (lambda path: os.path.dirname(write(path / 'one.jpg', JPEG)), [], '0 classes with')])
def test_other_mistakes(tmp_path, make, flags, message):
    with pytest.raises(UserError, match=message):
        prepare.main([make(tmp_path)] + flags)
    assert not (tmp_path / 'train.txt').exists()


def test_driver_takes_the_command_that_is_printed(tmp_path, capsys):
    fill(tmp_path / 'my images', 30)
    prepare.main([str(tmp_path / 'my images')])
    command = capsys.readouterr().out.split('next: python ')[1]
    planned = subprocess.run(
        [sys.executable] + shlex.split(command) + ['--dry_run'], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert planned.returncode == 0, planned.stderr
    assert '#test: 24\n' in planned.stdout and 'warning' not in planned.stdout


@pytest.mark.parametrize('num_classes, fewest', [(2, 8), (3, 8), (7, 10), (20, 9), (100, 500)])
def test_suggested_flags_hold_a_quarter_of_a_class_out_at_most(num_classes, fewest):
    given = dict(flag.lstrip('-').split('=') for flag in prepare.suggested(
        num_classes, fewest).split())
    settings = settings_lib.override(settings_lib.DATASETS['folder'], **{
        name: float(value) if '.' in value else int(value) for name, value in given.items()})
    settings_lib.check(settings)
    exemplar.check(settings)
    assert settings.num_steps > 1
    assert exemplar.validation_pool(settings) <= fewest / 4
