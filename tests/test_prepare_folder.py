"""data/folder/prepare.py on small folders of images, and its lists in the driver."""
import itertools
import os
import shlex
import subprocess

import numpy as np
import pytest
from miniatures import JPEG, PNG, gif, lines, numbered, refused, run_prepare, write, write_all
from tiny_runs import ROOT

import exemplar
from data import scripts
from data.folder import layouts, prepare
from runtime import settings as settings_lib

CLASSES = ['Ant', 'bee', 'cat', 'fire engine']
KINDS = (('jpg', JPEG), ('PNG', PNG), ('jpeg', JPEG), ('gif', gif()))
NUMBERS = itertools.count()


def fill(folder, count=15, classes=CLASSES):
    """Write class folders of images of which no two are identical; return the path."""
    for name in classes:
        for number in range(count):
            suffix, data = KINDS[number % len(KINDS)]
            write(folder / name / f'{number:02d}.{suffix}', numbered(data, next(NUMBERS)))
    return str(folder)


def read(folder):
    return [lines(folder / name) for name in scripts.LISTS]


@pytest.fixture
def undecoded(monkeypatch):
    """Skip decoding by TensorFlow, which takes a second."""
    monkeypatch.setattr(prepare, 'undecodable_images', lambda root, paths: {})


def test_lists_hold_every_image_once_and_a_share_to_test_on(tmp_path, monkeypatch):
    write_all(tmp_path, {'Ant/notes.txt': b'text', 'bee/Thumbs.db': b'x', '.cache/x.jpg': JPEG})
    write_all(tmp_path, {os.fsdecode(b'caf\xe9/a.jpg'): JPEG})  # not UTF-8
    fill(tmp_path / 'bee' / 'more', 3, ['2019'])
    fill(tmp_path, 5, ['dog'])
    monkeypatch.setenv('PYTHONIOENCODING', 'utf-8:strict')
    ended = run_prepare('folder', fill(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, '')
    for text in ('left out: dog: 4 training and 1 test images\n', 'left out: bee/more/2019: 3 ',
                 'left out: caf\\udce9: 0 training and 1 test images\n',
                 'skipped: 2 files that are not images: Ant/notes.txt, bee/Thumbs.db',
                 f' --data_dir={shlex.quote(str(tmp_path))}\n'):
        assert text in ended.stdout
    train, test, classes = read(tmp_path)
    assert classes == CLASSES
    assert len(train) == 4 * 12 and len(test) == 4 * 3
    for line in train + test:
        path, label = line.rsplit(' ', 1)
        assert path.split('/')[0] == classes[int(label)] and (tmp_path / path).is_file()
    assert len(set(train + test)) == 60
    assert [int(line.rsplit(' ', 1)[1]) for line in train] == sorted(list(range(4)) * 12)


def test_the_same_seed_gives_the_same_lists_and_only_overwrite_replaces_them(
        tmp_path, undecoded, monkeypatch):
    folder = fill(tmp_path)
    fill(tmp_path, 5, ['dog'])
    prepare.main([folder])
    first = read(tmp_path)
    with refused('train.txt and val.txt and classes.txt .*--overwrite.*--target.*cannot resume'):
        prepare.main([folder, '--seed=2'])
    assert read(tmp_path) == first
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', folder)
    prepare.main(['.', '--target', folder, '--overwrite'])
    assert read(tmp_path) == first
    prepare.main(['.', '--target=~', '--overwrite', '--test_share=0.3', '--min_images=3'])
    assert len(read(tmp_path)[1]) == 4 * 4 + 2 and read(tmp_path)[2] == sorted([*CLASSES, 'dog'])


def test_images_that_do_not_decode_are_all_named(tmp_path, capsys):
    folder = fill(tmp_path)
    write_all(tmp_path, {'bee/03.jpg': JPEG[:60], 'cat/04.png': b'<html>',
                         'cat/99.webp': b'RIFF0000WEBPVP8 '})
    with refused('bad images: 3 .*--skip_bad_images'):
        prepare.main([folder])
    output = capsys.readouterr().err
    assert 'bee/03.jpg: cut off' in output and 'cat/04.png: HTML or SVG' in output
    assert 'cat/99.webp: WebP' in output
    assert not (tmp_path / 'train.txt').exists()
    prepare.main([folder, '--skip_bad_images'])
    train, test, _ = read(tmp_path)
    assert not [line for line in train + test if '/03.jpg ' in line and line.startswith('bee')]
    assert len(train + test) == 60


def test_bad_images_take_no_place_in_the_test_set(tmp_path, undecoded, monkeypatch):
    prepare.main([fill(tmp_path)])
    bad = {line.rsplit(' ', 1)[0]: 'cut off' for line in read(tmp_path)[1]}
    monkeypatch.setattr(prepare, 'undecodable_images', lambda root, paths: bad)
    prepare.main([str(tmp_path), '--skip_bad_images', '--overwrite'])
    train, test, classes = read(tmp_path)
    assert classes == CLASSES and (len(train), len(test)) == (4 * 10, 4 * 2)


def test_a_target_that_cannot_be_written_is_refused_before_images_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts.Layout, 'read', lambda self: pytest.fail('read the images'))
    with refused('/proc/none.*--target'):
        prepare.main([fill(tmp_path), '--target', '/proc/none'])


@pytest.mark.parametrize('make, flags, message', [
    (lambda path: fill(path), ['--test_share=1'], '--test_share=1.0 must be'),
    (lambda path: fill(path), ['--seed=-1'], '--seed=-1 must be'),
    (lambda path: fill(path, classes=[' cats', 'dogs']), [], "(?i)' cats/.*rename it"),
    (lambda path: fill(path, classes=['one']), [], '1 classes .*at least 2'),
    (lambda path: write(path / 'images.zip', b'PK'), [], 'images.zip.*file, not a folder'),
    (lambda path: str(path / 'none'), [], 'none: no such folder')])
def test_a_wrong_flag_or_folder_is_named(tmp_path, make, flags, message):
    with refused(message):
        prepare.main([make(tmp_path)] + flags)
    assert not (tmp_path / 'train.txt').exists()


def test_abbreviated_flags_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
        prepare.main([fill(tmp_path), '--over'])
    assert 'unrecognized arguments: --over' in capsys.readouterr().err


def test_target_holds_absolute_paths_and_the_driver_takes_the_printed_command(tmp_path, capsys):
    folder = fill(tmp_path / 'my images', 30)
    before = sorted(os.listdir(folder))
    prepare.main([folder, '--target', str(tmp_path / 'my lists')])
    assert sorted(os.listdir(folder)) == before
    train, test, classes = read(tmp_path / 'my lists')
    assert classes == CLASSES and len(train + test) == 120
    assert all(line.startswith(folder + '/') for line in train + test)
    command = shlex.split(capsys.readouterr().out.split('next: ')[1])
    assert {'--image_size=16', '--network=cifar', '--preprocessing=cifar'} <= set(command)
    ended = subprocess.run(command + ['--dry_run'], cwd=ROOT, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, universal_newlines=True)
    assert ended.returncode == 0, ended.stdout
    assert '#test: 24\n' in ended.stdout and 'warning' not in ended.stdout


@pytest.mark.parametrize('num_classes, fewest, sizes, expected', [
    (10, 100, [(32, 32)] * 3, {'image_size': 32, 'preprocessing': 'cifar', 'network': 'cifar',
                               'resnet_size': 32}),
    (3, 8, [(48, 64), (64, 48)], {'image_size': 64, 'network': 'cifar'}),
    (7, 10, [(96, 96), (64, 64)], {'image_size': 112, 'network': 'imagenet'}),
    (20, 9, [(375, 500), (500, 375)], {'image_size': 224, 'preprocessing': 'vgg',
                                       'network': 'imagenet'}),
    (100, 500, [(300, 300)], {})])
def test_suggested_flags_suit_the_images(num_classes, fewest, sizes, expected):
    """They fit the size of the images, and hold out at most a quarter of a class."""
    values = {}
    for flag in prepare.suggested_flags(num_classes, fewest, sizes).split():
        name, value = flag[2:].split('=')
        values[name] = value if value.isalpha() else float(value) if '.' in value else int(value)
    settings = settings_lib.override(settings_lib.DATASETS['folder'], **values)
    settings_lib.check_settings(settings)
    exemplar.check_memory(settings)
    assert settings.num_steps > 1
    assert exemplar.validation_pool(settings) <= fewest / 4
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_seed_decides_the_test_images_one_by_one(tmp_path, undecoded):
    """Image for image: one stream shuffles the sorted names of each class, in text order."""
    names = [str(number) for number in range(11)]
    prepare.main([fill(tmp_path, 13, names), '--min_images=1'])
    stream, test = np.random.RandomState(1993), set()
    for name in sorted(names):
        paths = sorted(f'{name}/{path}' for path in os.listdir(str(tmp_path / name)))
        stream.shuffle(paths)
        test.update(f'{path} {int(name)}' for path in paths[:round(0.2 * 13)])
    assert set(read(tmp_path)[1]) == test
    assert read(tmp_path)[2] == names


def test_copies_stay_on_one_side(tmp_path, undecoded, capsys):
    fill(tmp_path)
    for name in CLASSES:
        for original in list((tmp_path / name).iterdir()):
            write(tmp_path / name / f'copy of {original.name}', original.read_bytes())
    prepare.main([str(tmp_path)])
    assert 'warning' not in capsys.readouterr().out
    train, test = ({(tmp_path / line.rsplit(' ', 1)[0]).read_bytes() for line in side}
                   for side in read(tmp_path)[:2])
    assert len(train) + len(test) == 60 and not train & test
    assert len(read(tmp_path)[1]) == 4 * 6


def test_copies_and_classes_on_one_side_of_two_are_pointed_out(tmp_path, undecoded, capsys):
    fill(tmp_path / 'Train', classes=CLASSES + ['dog'])
    fill(tmp_path / 'Valid', 2, ['elk'] + CLASSES)
    for original, copy in (
            ('bee/00.jpg', 'Valid/bee/copy0.png'), ('bee/01.PNG', 'Valid/bee/copy1.png'),
            ('bee/02.jpeg', 'Valid/bee/copy2.png'), ('Ant/00.jpg', 'Train/cat/wrong.jpg')):
        write(tmp_path / copy, (tmp_path / 'Train' / original).read_bytes())
    prepare.main([str(tmp_path)])
    output = capsys.readouterr().out
    assert 'warning: 3 test images are identical' in output and 'Valid/bee/copy0.png' in output
    assert 'warning: 2 images have an identical copy under another label' in output
    assert 'left out: dog: 15 training and 0 test' in output
    assert 'left out: elk: 0 training and 2 test' in output
    assert "'fire engine' has label 3, not 4" in output and read(tmp_path)[2] == CLASSES


@pytest.mark.parametrize('names, emptied, words', [
    ([*range(12), 'x'], 'x', []), (range(12), 3, ['shifts', "'4' has label 3, not 4"]),
    (range(1, 13), None, ['label 0 is the class folder 1']),
    (['x1y', 'x10', 'x2'], None, []), (['\u00b2', '\u00b3'], None, [])])
def test_labels_that_differ_from_numeric_class_names_are_pointed_out(tmp_path, undecoded, capsys,
                                                                     names, emptied, words):
    names = list(map(str, names))
    fill(tmp_path, classes=names)
    for path in (tmp_path / str(emptied)).glob('*'):
        path.unlink()
    prepare.main([str(tmp_path)])
    output = capsys.readouterr().out
    assert all(word in output for word in words), output
    assert ('classes.txt' in output) == bool(words)


@pytest.mark.parametrize('own_lists', [False, True])
def test_foreign_lists_are_never_overwritten(tmp_path, undecoded, own_lists):
    fill(tmp_path)
    if own_lists:
        prepare.main([str(tmp_path)])
    write(tmp_path / 'train.txt', b'Ant/00.jpg 0\n')
    for flags in ([], ['--overwrite']):
        with refused('train.txt .*--target'):
            prepare.main([str(tmp_path)] + flags)
    assert lines(tmp_path / 'train.txt') == ['Ant/00.jpg 0']
