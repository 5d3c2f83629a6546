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


@pytest.mark.parametrize('train, test, unlabeled', [
    ('train', 'val', None), ('Train', 'Valid', None), ('TRAIN', 'TEST', None),
    ('training', 'validation', None), ('training', 'testing', None),
    ('seg_train/seg_train', 'seg_test/seg_test', 'seg_pred'),
    ('dataset/training_set', 'dataset/test_set', None),
    ('data/images/train', 'data/images/val', None), ('train', 'val', 'test'),
    ('train/train', 'val/val', 'test/test'), ('train', None, 'test/test/images'),
    ('train', 'test', 'val'), ('train', None, 'test'), ('train', None, 'unlabeled'),
    ('train', None, 'test/test'), ('train', None, 'test/images'),
    ('asl_train/asl_train', None, 'asl_test/asl_test'), ('train', None, None), ('', None, None),
    ('images', None, None), ('dataset/images', None, None), ('101_ObjectCategories', None, None)])
def test_class_folders_are_found_on_one_or_two_sides(tmp_path, train, test, unlabeled):
    """Folders may have any name and be nested. A side whose images have no labels is not used."""
    write(tmp_path / 'annotations' / 'list.txt', b'x')
    for make, folder in ((flat, '__MACOSX'), (fill, train), (fill, test), (flat, unlabeled)):
        if folder is not None:
            make(tmp_path / folder)
    classes, notes, _ = read(tmp_path)
    for side, folder in ((classes.train, train), (classes.test, test)):
        if folder is None:
            assert side is None
            continue
        assert [name for name in side if side[name]] == list(NAMES)
        assert side['bee'] == [os.path.join(folder, 'bee', name) for name in ('0.jpg', '1.jpg')]
    if test or unlabeled:
        assert all(folder.split('/')[0] in notes for folder in (train, test, unlabeled) if folder)
    assert ('is not used' in notes) == bool(unlabeled)


def test_val_is_used_rather_than_test(tmp_path):
    for side in ('train', 'val', 'test'):
        fill(tmp_path / side)
    classes, notes, _ = read(tmp_path)
    assert classes.test['cat'][0] == 'val/cat/0.jpg'
    assert 'val for testing' in notes and 'test is not used' in notes


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


def test_cub_200_keeps_its_published_split(tmp_path):
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
        flat(tmp_path / (folder.replace('train', 'test') + ('1' if '/' in labels else '')))
    write(tmp_path / labels, b'0.jpg,ant\n')
    with refused(labels + '.*path label.*CLASS'):
        read(tmp_path)


@pytest.mark.parametrize('folders, words', [
    ('ant bee train', ['train', 'ant', 'never classes']),
    ('ant bee test/ant test/bee', ['test', 'no train folder']),
    ('val/ant val/bee', ['val', 'no train folder']),
    ('train/ant train/bee training/ant training/bee', ['train, training']),
    ('train/ant train/bee val/x val/y', ['no class in both', 'x']),
    ('animals/ant animals/bee plants/elm plants/oak', ['animals/ant', '--class_depth=2']),
    ('train/animals/ant train/plants/oak', ['train/animals/ant', '--class_depth=2']),
    ('ant/train ant/test bee/train bee/test', ['ant/test', 'train/CLASS'])])
def test_other_layouts_are_refused_in_one_message(tmp_path, folders, words):
    fill(tmp_path, folders.split())
    with refused(str(tmp_path)) as error:
        read(tmp_path)
    assert all(word in str(error.value) for word in words), error.value


def test_a_folder_without_images_is_refused(tmp_path):
    for name, message in (('notes.txt', 'no images'), ('images.zip', 'images.zip.*Unpack')):
        write(tmp_path / name, b'PK')
        with refused(f'{tmp_path}.*{message}'):
            read(tmp_path)


def test_class_depth_2_takes_folders_of_folders_as_classes(tmp_path):
    for side in ('train', 'val'):
        fill(tmp_path / side / 'animals')
        fill(tmp_path / side / 'plants', ['oak'])
    write(tmp_path / 'train' / 'animals' / 'herd.jpg', JPEG)
    classes, notes, _ = read(tmp_path, class_depth=2)
    assert 'left out: 1 images outside the class folders, such as train/animals/herd.jpg' in notes
    assert list(classes.train) == ['animals/ant', 'animals/bee', 'animals/cat', 'plants/oak']
    assert classes.test['plants/oak'] == ['val/plants/oak/0.jpg', 'val/plants/oak/1.jpg']


def test_images_are_recognized_by_content_and_what_is_not_used_is_named(tmp_path):
    images = ('no_suffix', 'photo.dat', 'b.JPG', 'scan.txt', 'c.webp')
    others = ('notes.txt', 'Thumbs.db', '.DS_Store', '._0.jpg', 'empty')
    write_all(tmp_path / 'ant', dict(
        dict.fromkeys(images, PNG), **dict.fromkeys(others, b''),
        **{'hidden_webp': b'RIFF1234WEBPVP8 ',
           'broken.jpg': b'no image'}))  # named when it does not decode
    fill(tmp_path, [*NAMES, '.ipynb_checkpoints', '__MACOSX', '.cache'])
    flat(tmp_path)
    (tmp_path / 'dog').mkdir()
    write(tmp_path / 'meta' / 'train.txt', b'ant/0\n')
    classes, notes, skipped = read(tmp_path)
    assert list(classes.train) == [*NAMES, 'dog', 'meta']
    assert classes.train['dog'] == classes.train['meta'] == []  # their labels are left out later
    assert [os.path.basename(path) for path in classes.train['ant']] == [
        '0.jpg', '1.jpg', 'b.JPG', 'broken.jpg', 'c.webp', 'hidden_webp', 'no_suffix', 'photo.dat',
        'scan.txt']
    assert [os.path.basename(path) for path in skipped] == [
        '.DS_Store', '._0.jpg', 'Thumbs.db', 'empty', 'notes.txt', 'train.txt']
    assert 'left out: 3 images outside the class folders' in notes
    assert 'not used: meta/train.txt' in notes


def test_numeric_class_names_are_sorted_by_value():
    assert layouts.label_order(['010', '9', '1']) == ['1', '9', '010']
    assert layouts.label_order(['9', 'background', '10']) == ['10', '9', 'background']


def test_links_to_classes_are_followed_and_loops_and_odd_files_are_not(tmp_path):
    fill(tmp_path / 'all')
    root = tmp_path / 'set'
    for side in ('train', 'val'):
        (root / side).mkdir(parents=True)
        for name in NAMES:
            (root / side / name).symlink_to(tmp_path / 'all' / name)
    fill(root / 'train', ['dog'])
    for path, leads_to in (
            ('Data', '.'), ('CLS-LOC', '.'), ('train/up', '..'), ('train/dogs', 'dog'),
            ('../all/ant/again', '../../all'), ('../all/ant/to_bee', '../bee'),
            ('../all/bee/to_ant', '../ant'), ('../all/ant/gone.jpg', 'nowhere.jpg'),
            ('../all/ant/gone', 'nowhere')):
        (root / path).symlink_to(leads_to)
    os.mkfifo(str(tmp_path / 'all' / 'ant' / 'pipe.jpg'))
    classes, notes, skipped = read(root)
    assert list(classes.train) == [*NAMES, 'dog'] and list(classes.test) == list(NAMES)
    assert all(f'{name}: a link' in notes for name in ('Data', 'train/up', 'train/dogs'))
    assert 'train/ant/gone.jpg' in classes.train['ant']  # named when it does not decode
    assert skipped == ['train/ant/gone', 'train/ant/pipe.jpg', 'val/ant/gone', 'val/ant/pipe.jpg']
