"""Layouts of image folders: read, or refused with a message about what was recognized."""
import os

import pytest
from miniatures import JPEG, PNG, refused, write, write_all

from data.folder import layouts

NAMES = ('ant', 'bee', 'cat')


def fill(folder, names=NAMES, suffix='.jpg', inner=''):
    """Write class folders with two images each."""
    write_all(folder, {os.path.join(name, inner, f'{number}{suffix}'): JPEG
                       for name in names for number in range(2)})


def flat(folder):
    write_all(folder, {f'{number}.jpg': JPEG for number in range(3)})


def read(root, **options):
    """Return (Classes, all notes in one text, skipped)."""
    layout = layouts.Layout(str(root), **options)
    classes = layout.read()
    return classes, '\n'.join(layout.notes), layout.skipped


@pytest.mark.parametrize('train, test, other', [
    ('train', 'val', '__MACOSX'), ('Train', 'Valid', '__MACOSX'), ('TRAIN', 'TEST', '__MACOSX'),
    ('training', 'validation', '__MACOSX'), ('training', 'testing', '__MACOSX'),
    ('seg_train/seg_train', 'seg_test/seg_test', 'seg_pred'),
    ('dataset/training_set', 'dataset/test_set', '__MACOSX'),
    ('data/images/train', 'data/images/val', '__MACOSX')])
def test_two_sides_under_any_name_and_further_down(tmp_path, train, test, other):
    fill(tmp_path / train)
    fill(tmp_path / test)
    flat(tmp_path / other)
    classes, notes, _ = read(tmp_path)
    for side, folder in ((classes.train, train), (classes.test, test)):
        assert list(side) == list(NAMES)
        assert side['bee'] == [f'{folder}/bee/0.jpg', f'{folder}/bee/1.jpg']
        assert folder.split('/')[0] in notes


@pytest.mark.parametrize('val, test, used, unused', [
    (fill, fill, 'val', 'test'), (fill, flat, 'val', 'test'), (flat, fill, 'test', 'val')])
def test_of_val_and_test_the_one_with_labels_is_used(tmp_path, val, test, used, unused):
    fill(tmp_path / 'train')
    val(tmp_path / 'val')
    test(tmp_path / 'test')
    classes, notes, _ = read(tmp_path)
    assert classes.test['cat'][0] == f'{used}/cat/0.jpg'
    assert f'{used} for testing' in notes and f'{unused} is not used' in notes


@pytest.mark.parametrize('train, test', [
    ('train', 'test'), ('train', 'unlabeled'), ('train', 'test/test'), ('train', 'test/images'),
    ('asl_train/asl_train', 'asl_test/asl_test'), ('train', None)])
def test_train_next_to_images_without_labels_is_to_be_split(tmp_path, train, test):
    fill(tmp_path / train)
    if test:
        flat(tmp_path / test)
    classes, notes, _ = read(tmp_path)
    assert list(classes.train) == list(NAMES) and classes.test is None
    assert not test or test.split('/')[0] in notes and 'is not used' in notes


@pytest.mark.parametrize('folder', ['', 'images', 'dataset/images', '101_ObjectCategories'])
def test_class_folders_further_down(tmp_path, folder):
    fill(tmp_path / folder)
    write(tmp_path / 'annotations' / 'list.txt', b'x')
    classes, _, _ = read(tmp_path)
    assert [name for name in classes.train if classes.train[name]] == list(NAMES)
    assert classes.train['ant'][0] == os.path.join(folder, 'ant/0.jpg') and classes.test is None


def test_tiny_imagenet_as_downloaded(tmp_path):
    fill(tmp_path / 'train', ['n01', 'n02'], suffix='.JPEG', inner='images')
    names = {'val_0.JPEG': 'n02', 'val_1.JPEG': 'n01', 'val_2.JPEG': 'n02'}
    rows = [f'{name}\t{wnid}\t0\t0\t62\t62\n' for name, wnid in names.items()]
    write_all(tmp_path, {f'val/images/{name}': JPEG for name in [*names, 'val_9.JPEG']})
    write_all(tmp_path, {
        'train/n01/n01_boxes.txt': b'0.JPEG 0 0 62 62\n', 'wnids.txt': b'n02\nn01\n',
        'val/val_annotations.txt': ''.join(rows).encode(), 'test/images/test_0.JPEG': JPEG})
    classes, notes, skipped = read(tmp_path)
    assert classes.train['n01'] == ['train/n01/images/0.JPEG', 'train/n01/images/1.JPEG']
    assert classes.test == {'n01': ['val/images/val_1.JPEG'],
                            'n02': ['val/images/val_0.JPEG', 'val/images/val_2.JPEG']}
    assert 'test is not used' in notes and 'val_annotations.txt' in notes
    assert 'left out: 1 images' in notes and 'val/images/val_9.JPEG' in notes
    assert skipped == ['train/n01/n01_boxes.txt']


def test_cub_200_keeps_its_split(tmp_path):
    root = tmp_path / 'CUB_200_2011'
    fill(root / 'images', ['001.Albatross', '002.Auklet'])
    write_all(root, {
        'images.txt': b'1 001.Albatross/0.jpg\n2 001.Albatross/1.jpg\n'
                      b'3 002.Auklet/0.jpg\n4 002.Auklet/1.jpg\n',
        'image_class_labels.txt': b'1 1\n2 1\n3 2\n4 2\n',
        'train_test_split.txt': b'1 0\n2 1\n3 1\n4 0\n',
        'classes.txt': b'1 001.Albatross\n2 002.Auklet\n'})
    classes, notes, _ = read(tmp_path)
    images = 'CUB_200_2011/images/'
    assert classes.train == {'001.Albatross': [images + '001.Albatross/1.jpg'],
                             '002.Auklet': [images + '002.Auklet/0.jpg']}
    assert classes.test == {'001.Albatross': [images + '001.Albatross/0.jpg'],
                            '002.Auklet': [images + '002.Auklet/1.jpg']}
    assert 'train_test_split.txt' in notes
    write(root / 'image_class_labels.txt', b'1 1\n2 1\n3 2\n')
    with refused('images.txt'):
        read(tmp_path)


@pytest.mark.parametrize('folder, labels', [
    ('train', 'labels.csv'), ('train/train', 'labels.csv'), ('train', 'train/_classes.csv'),
    ('train_images', 'train.csv'), ('', 'labels.csv'), ('images', 'annotations/list.txt'),
    ('jpg', 'imagelabels.mat'), ('data/images', 'data/meta.json')])
def test_flat_folder_is_refused_and_the_labels_named(tmp_path, folder, labels):
    flat(tmp_path / folder)
    if folder.startswith('train'):
        flat(tmp_path / folder.replace('train', 'test'))
    write(tmp_path / labels, b'0.jpg,ant\n')
    with refused(labels + '.*path label.*CLASS'):
        read(tmp_path)


@pytest.mark.parametrize('make, words', [
    (lambda root: [fill(root), flat(root / 'train')], ['train', 'ant', 'never classes']),
    (lambda root: [fill(root), fill(root / 'test')], ['test', 'no train folder']),
    (lambda root: fill(root / 'val'), ['val', 'no train folder']),
    (lambda root: [fill(root / 'train'), fill(root / 'training')], ['train, training']),
    (lambda root: [fill(root / 'train'), fill(root / 'val', ['x', 'y'])],
     ['no class in both', 'x']),
    (lambda root: [fill(root / 'animals'), fill(root / 'plants')],
     ['animals/ant', '--class_depth=2']),
    (lambda root: [fill(root / 'train' / 'animals'), fill(root / 'train' / 'plants')],
     ['train/animals/ant', '--class_depth=2']),
    (lambda root: [fill(root / 'ant', ['train', 'test']), fill(root / 'bee', ['train', 'test'])],
     ['ant/test', 'train/CLASS']),
    (lambda root: write(root / 'images.zip', b'PK'), ['images.zip', 'Unpack']),
    (lambda root: write(root / 'notes.txt', b'x'), ['no images'])])
def test_other_layouts_are_refused_in_one_message(tmp_path, make, words):
    make(tmp_path)
    with refused(str(tmp_path)) as error:
        read(tmp_path)
    assert all(word in str(error.value) for word in words), error.value


def test_class_depth(tmp_path):
    for side in ('train', 'val'):
        fill(tmp_path / side / 'animals')
        fill(tmp_path / side / 'plants', ['oak'])
    classes, _, _ = read(tmp_path, class_depth=2)
    assert list(classes.train) == ['animals/ant', 'animals/bee', 'animals/cat', 'plants/oak']
    assert classes.test['plants/oak'] == ['val/plants/oak/0.jpg', 'val/plants/oak/1.jpg']


def test_images_are_recognized_by_content(tmp_path):
    fill(tmp_path)
    images = ('no_suffix', 'photo.dat', 'b.JPG', 'scan.txt', 'c.webp')
    others = ('notes.txt', 'Thumbs.db', '.DS_Store', '._0.jpg', 'empty')
    write_all(tmp_path / 'ant', dict(
        dict.fromkeys(images, PNG), **dict.fromkeys(others, b''),
        **{'hidden_webp': b'RIFF1234WEBPVP8 ',
           'broken.jpg': b'no image'}))  # named when it does not decode
    for name in ('.ipynb_checkpoints', '__MACOSX', '.cache'):
        fill(tmp_path, [name])
    classes, _, skipped = read(tmp_path)
    assert list(classes.train) == list(NAMES)
    assert [os.path.basename(path) for path in classes.train['ant']] == [
        '0.jpg', '1.jpg', 'b.JPG', 'broken.jpg', 'c.webp', 'hidden_webp', 'no_suffix', 'photo.dat',
        'scan.txt']
    assert [os.path.basename(path) for path in skipped] == [
        '.DS_Store', '._0.jpg', 'Thumbs.db', 'empty', 'notes.txt']


def test_numbers_are_sorted_by_value(tmp_path):
    fill(tmp_path, map(str, range(12)))
    assert list(read(tmp_path)[0].train) == [str(number) for number in range(12)]
    fill(tmp_path, ['background'])
    assert list(read(tmp_path)[0].train)[:3] == ['0', '1', '10']
    assert layouts.label_order(['010', '9', '1']) == ['1', '9', '010']


def test_what_is_not_used_is_named(tmp_path):
    fill(tmp_path)
    flat(tmp_path)
    (tmp_path / 'dog').mkdir()
    write(tmp_path / 'meta' / 'train.txt', b'ant/0\n')
    classes, notes, _ = read(tmp_path)
    assert list(classes.train) == [*NAMES, 'dog', 'meta']
    assert classes.train['dog'] == classes.train['meta'] == []  # their labels are left out later
    assert 'left out: 3 images outside the class folders' in notes
    assert 'not used: meta/train.txt' in notes


def test_links_to_classes_are_followed_and_loops_are_not(tmp_path):
    fill(tmp_path / 'all')
    for side in ('train', 'val'):
        (tmp_path / 'set' / side).mkdir(parents=True)
        for name in NAMES:
            (tmp_path / 'set' / side / name).symlink_to(tmp_path / 'all' / name)
    for name in ('Data', 'CLS-LOC'):
        (tmp_path / 'set' / name).symlink_to('.')
    (tmp_path / 'set' / 'train' / 'up').symlink_to('..')
    (tmp_path / 'all' / 'ant' / 'again').symlink_to('../../all')
    classes, notes, _ = read(tmp_path / 'set')
    assert list(classes.train) == list(classes.test) == list(NAMES)
    assert 'Data: a link' in notes and 'train/up: a link' in notes


def test_odd_links_and_a_pipe(tmp_path):
    fill(tmp_path)
    for name, leads_to in (('ant/to_bee', '../bee'), ('bee/to_ant', '../ant'), ('dog', 'cat'),
                           ('ant/gone.jpg', 'nowhere.jpg'), ('ant/gone', 'nowhere')):
        (tmp_path / name).symlink_to(leads_to)
    os.mkfifo(str(tmp_path / 'ant' / 'pipe.jpg'))
    classes, notes, skipped = read(tmp_path)
    assert list(classes.train) == list(NAMES)
    assert 'dog: a link' in notes
    assert 'ant/gone.jpg' in classes.train['ant']  # named when it does not decode
    assert skipped == ['ant/gone', 'ant/pipe.jpg']
