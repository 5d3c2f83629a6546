"""The embedded data set: what is in it, and how its images are written to a folder."""
import concurrent.futures
import os
import re
import sys
import threading

import miniatures
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from miniatures import refused, tree

from data.glyphs100 import prepare

# Licenses that let images drawn with a font be distributed.
LICENSES = {'OFL-1.1', 'Apache-2.0'}


@pytest.fixture(scope='module')
def arrays():
    return prepare.load()


@pytest.fixture
def few(arrays, monkeypatch):
    """Two typefaces per split and ten classes, which are written quickly."""
    small = {name: array[:10] if name == 'characters' else array[:2, :10]
             if name.endswith('images') else array[:2] for name, array in arrays.items()}
    monkeypatch.setattr(prepare, 'load', lambda: small)


def test_archive_has_100_classes_in_64_and_20_typefaces_with_open_licenses(arrays):
    rows = prepare.read_typefaces()
    for split, count in (('train', 64), ('test', 20)):
        assert arrays[split + '_images'].shape == (count, 100, 32, 32)
        assert arrays[split + '_images'].dtype == np.uint8
        listed = [row['typeface'] for row in rows if row['split'] == split]
        assert listed == list(arrays[split + '_typefaces']) == sorted(set(listed))
    assert ''.join(map(chr, arrays['characters'])) == prepare.CHARACTERS
    assert (np.diff(arrays['characters']) > 0).all()
    assert {row['license'] for row in rows} <= LICENSES
    for row in rows:
        assert row['package'] == '@fontsource/' + row['typeface']
        assert re.match(r'\d+\.\d+\.\d+$', row['version'])
        assert re.match(r'[a-z0-9-]+$', row['typeface'])  # It becomes a file name.
    # Stricter than needed: 'Source Serif' and 'Source Code' would count as one family.
    families = [{name.split('-')[0] for name in arrays[split + '_typefaces']}
                for split in ('train', 'test')]
    assert not families[0] & families[1]


@pytest.mark.parametrize('split', ['train', 'test'])
def test_glyphs_are_whole_and_differ_in_shape_size_or_position(arrays, split):
    ink = 255. - arrays[split + '_images']
    assert (ink.max(axis=(2, 3)) > 48).all(), 'a blank image'
    border = np.concatenate([ink[..., 0, :], ink[..., -1, :], ink[..., 0], ink[..., -1]], axis=-1)
    assert border.max() < 32, 'a glyph is cut off'
    for typeface, glyphs in zip(arrays[split + '_typefaces'], ink):
        assert len({glyph.tobytes() for glyph in glyphs}) == 100, typeface
    height = dict(zip(prepare.CHARACTERS, (ink.max(axis=3) > 64).sum(axis=2).T))
    assert all((height[capital] > height[small]).all() for capital, small in ('Oo', 'Ss', 'Xx'))
    rows = (ink * np.arange(32)[:, None]).sum(axis=(2, 3)) / ink.sum(axis=(2, 3))
    middle = dict(zip(prepare.CHARACTERS, rows.T))
    assert (middle[','] > middle["'"] + 4).all() and (middle['_'] > middle['-'] + 3).all()


def test_write_images_writes_the_archive_once(arrays, tmp_path, monkeypatch):
    target = tmp_path / 'images'
    assert prepare.write_images(str(target)) is True
    with tf.Graph().as_default(), tf.Session() as session:
        content = tf.placeholder(tf.string, [])
        decode = session.make_callable(tf.image.decode_png(content), [content])
        for split, part in (('train', 'train'), ('val', 'test')):
            lines = (target / (split + '.txt')).read_text().splitlines()
            assert lines == sorted(set(lines))
            images = np.zeros_like(arrays[part + '_images'])
            typefaces = list(arrays[part + '_typefaces'])
            for line in lines:
                name, label = line.rsplit(' ', 1)
                folder, character, png = name.split('/')
                assert folder == split
                assert character == 'U+%04X' % arrays['characters'][int(label)]
                images[typefaces.index(png[:-len('.png')]), int(label)] = decode(
                    (target / name).read_bytes())[..., 0]
            assert len(lines) == len(typefaces) * 100
            np.testing.assert_array_equal(images, arrays[part + '_images'])
    before = tree(target)
    monkeypatch.setattr(prepare, 'load', lambda: pytest.fail('read the archive again'))
    assert prepare.write_images(str(target)) is False
    assert tree(target) == before and os.listdir(str(tmp_path)) == ['images']


@pytest.mark.parametrize('damage', ['interrupted', 'image', 'list', 'archive'])
def test_an_incomplete_or_outdated_folder_is_written_again(few, tmp_path, damage):
    target = tmp_path / 'images'
    prepare.write_images(str(target))
    whole = set(tree(target))
    if damage == 'interrupted':
        target = tmp_path / 'interrupted'
        with miniatures.interrupted_after(30):
            prepare.write_images(str(target))
        assert not {'train.txt', 'val.txt'} & set(tree(target))
    elif damage == 'image':
        (target / 'val' / 'U+0021' / 'carter-one.png').unlink()
    elif damage == 'list':
        (target / 'train.txt').unlink()
    else:
        (target / prepare.MARKER).write_text('0' * 64 + '\n')
    assert prepare.write_images(str(target)) is True
    assert set(tree(target)) == whole
    assert prepare.write_images(str(target)) is False
    assert set(os.listdir(str(tmp_path))) == {'images', target.name}


def test_two_processes_write_the_images_once(few, tmp_path, monkeypatch):
    target = tmp_path / 'images'
    load, both = prepare.load, threading.Barrier(2)

    def load_together():
        both.wait(30)
        return load()

    monkeypatch.setattr(prepare, 'load', load_together)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        wrote = list(threads.map(prepare.write_images, [str(target)] * 2))
    assert sorted(wrote) == [False, True]
    assert os.listdir(str(tmp_path)) == ['images']


def test_a_process_that_comes_in_between_finds_the_marker(few, tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr('runtime.files.check_writable',
                        lambda folder, *_: names.extend(os.listdir(folder)))
    prepare.write_images(str(tmp_path / 'images'))
    assert names == [prepare.MARKER]


def test_foreign_folder_file_or_list_is_refused(few, tmp_path):
    prepare.write_images(str(tmp_path / 'edited'))
    miniatures.write_all(tmp_path, {'edited/train.txt': b'\xff', 'mine/thesis.txt': b'precious',
                                    'file': b'precious'})
    before = tree(tmp_path)
    for name in ('edited', 'mine', 'file'):
        with refused(f'^{tmp_path}/{name}'):
            prepare.write_images(str(tmp_path / name))
    assert tree(tmp_path) == before


def test_a_missing_package_or_damaged_archive_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'PIL', None)
    with refused('`python -m pip install pillow`'):
        prepare.main(['--fonts', str(tmp_path)])
    archive = tmp_path / 'glyphs100.npz'
    monkeypatch.setattr(prepare, 'ARCHIVE', str(archive))
    with pytest.raises(FileNotFoundError, match=str(archive)):
        prepare.main([str(tmp_path / 'images')])
    archive.write_bytes(b'PK\x03\x04 cut off')
    with refused(f'{archive}: cannot be read'):
        prepare.main([str(tmp_path / 'images')])
    assert list(tmp_path.iterdir()) == [archive]
