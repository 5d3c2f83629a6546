"""The embedded data set: what is in it, and how its images come to lie in a folder."""
import concurrent.futures
import os
import re
import sys
import threading

import miniatures
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from data import scripts
from data.glyphs100 import prepare
from runtime.errors import UserError

# Licenses that let images drawn with a font be distributed.
LICENSES = {'OFL-1.1', 'Apache-2.0'}


@pytest.fixture(scope='module')
def arrays():
    return prepare.load()


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    target = tmp_path_factory.mktemp('glyphs100') / 'images'
    assert prepare.write_images(str(target)) is True
    return target


@pytest.fixture
def few(arrays, monkeypatch):
    """Two typefaces per split and ten classes, to write in a moment."""
    small = {name: array[:10] if name == 'characters' else array[:2, :10]
             if name.endswith('images') else array[:2] for name, array in arrays.items()}
    monkeypatch.setattr(prepare, 'load', lambda: small)


def snapshot(folder):
    return {os.path.join(path, name): os.stat(os.path.join(path, name)).st_mtime_ns
            for path, _, names in os.walk(str(folder)) for name in names}


def test_archive_has_100_classes_in_64_and_20_typefaces(arrays):
    assert arrays['train_images'].shape == (64, 100, 32, 32)
    assert arrays['test_images'].shape == (20, 100, 32, 32)
    assert arrays['train_images'].dtype == arrays['test_images'].dtype == np.uint8
    assert ''.join(map(chr, arrays['characters'])) == prepare.CHARACTERS
    assert (np.diff(arrays['characters']) > 0).all()
    assert os.path.getsize(prepare.ARCHIVE) <= 4e6


def test_typefaces_are_listed_and_openly_licensed(arrays):
    rows = prepare.read_typefaces()
    for split in ('train', 'test'):
        listed = [row['typeface'] for row in rows if row['split'] == split]
        assert listed == list(arrays[split + '_typefaces']) == sorted(set(listed))
    assert len(rows) == 84
    assert {row['license'] for row in rows} <= LICENSES
    for row in rows:
        assert row['package'] == '@fontsource/' + row['typeface']
        assert re.match(r'\d+\.\d+\.\d+$', row['version'])
        assert re.match(r'[a-z0-9-]+$', row['typeface'])  # It becomes a file name.


def test_no_family_is_in_both_splits(arrays):
    # 'Source Serif' and 'Source Code' would be one family here: stricter than needed.
    families = [{name.split('-')[0] for name in arrays[split + '_typefaces']}
                for split in ('train', 'test')]
    assert not families[0] & families[1]


@pytest.mark.parametrize('split', ['train', 'test'])
def test_images_hold_whole_and_distinct_glyphs(arrays, split):
    ink = 255 - arrays[split + '_images'].astype(int)
    assert (ink.max(axis=(2, 3)) > 48).all(), 'a blank image'
    border = np.concatenate([ink[..., 0, :], ink[..., -1, :], ink[..., 0], ink[..., -1]], axis=-1)
    assert border.max() < 32, 'a glyph is cut off'
    for typeface, glyphs in zip(arrays[split + '_typefaces'], ink):
        assert len({glyph.tobytes() for glyph in glyphs}) == 100, typeface


@pytest.mark.parametrize('split', ['train', 'test'])
def test_size_and_position_are_those_of_typography(arrays, split):
    ink = dict(zip(prepare.CHARACTERS,
                   (255. - arrays[split + '_images']).transpose(1, 0, 2, 3)))
    row = np.arange(32)[:, None]

    def height(c):
        return (ink[c].max(axis=2) > 64).sum(axis=1)

    def middle(c):
        return (ink[c] * row).sum(axis=(1, 2)) / ink[c].sum(axis=(1, 2))

    for capital, small in ('Oo', 'Ss', 'Xx'):
        assert (height(capital) > height(small)).all()
    assert (middle(',') > middle("'") + 4).all()
    assert (middle('_') > middle('-') + 3).all()


def test_write_images_writes_the_archive(written, arrays):
    with tf.Graph().as_default(), tf.Session() as session:
        content = tf.placeholder(tf.string, [])
        decode = session.make_callable(tf.image.decode_png(content), [content])
        for split, part in (('train', 'train'), ('val', 'test')):
            lines = (written / (split + '.txt')).read_text().splitlines()
            assert lines == sorted(set(lines))
            images = np.zeros_like(arrays[part + '_images'])
            typefaces = list(arrays[part + '_typefaces'])
            for line in lines:
                name, label = line.rsplit(' ', 1)
                folder, character, png = name.split('/')
                assert folder == split
                assert character == 'U+%04X' % arrays['characters'][int(label)]
                images[typefaces.index(png[:-len('.png')]), int(label)] = decode(
                    (written / name).read_bytes())[..., 0]
            assert len(lines) == len(typefaces) * 100
            np.testing.assert_array_equal(images, arrays[part + '_images'])


def test_second_call_does_no_work(written, monkeypatch):
    before = snapshot(written)
    monkeypatch.setattr(prepare, 'load', lambda: pytest.fail('read the archive again'))
    assert prepare.write_images(str(written)) is False
    assert snapshot(written) == before
    assert os.listdir(str(written.parent)) == [written.name]


def test_interrupted_write_is_started_again(few, tmp_path):
    target = tmp_path / 'deep' / 'images'
    with miniatures.interrupted_after(30):
        prepare.write_images(str(target))
    assert not (target / 'train.txt').exists() and not (target / 'val.txt').exists()
    assert prepare.write_images(str(target)) is True
    assert prepare.write_images(str(target)) is False
    assert not [path for path in snapshot(target) if path.endswith('.part')]


@pytest.mark.parametrize('damage', ['image', 'list', 'archive'])
def test_a_damaged_or_outdated_folder_is_written_again(few, tmp_path, damage):
    target = tmp_path / 'images'
    prepare.write_images(str(target))
    whole = set(snapshot(target))
    if damage == 'image':
        (target / 'val' / 'U+0021' / 'carter-one.png').unlink()
    elif damage == 'list':
        (target / 'train.txt').unlink()
    else:
        (target / prepare.MARKER).write_text('0' * 64 + '\n')
    assert prepare.write_images(str(target)) is True
    assert set(snapshot(target)) == whole
    assert prepare.write_images(str(target)) is False
    assert os.listdir(str(tmp_path)) == ['images']


def test_slower_of_two_processes_keeps_the_images_of_the_faster(few, tmp_path, monkeypatch):
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


def test_foreign_folder_file_or_list_is_refused(few, tmp_path):
    prepare.write_images(str(tmp_path / 'edited'))
    (tmp_path / 'edited' / 'train.txt').write_bytes(b'\xff')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('precious')
    (tmp_path / 'file').write_text('precious')
    before = snapshot(tmp_path)
    for name in ('edited', 'mine', 'file'):
        with pytest.raises((UserError, OSError), match=name):
            prepare.write_images(str(tmp_path / name))
    assert snapshot(tmp_path) == before


def test_script_says_mistakes_in_one_line(tmp_path, monkeypatch):
    def error(*argv):
        monkeypatch.setattr(sys, 'argv', ['prepare.py'] + list(argv))
        with pytest.raises(SystemExit) as ended:
            scripts.run(prepare.main)
        assert '\n' not in ended.value.code
        return ended.value.code

    monkeypatch.setitem(sys.modules, 'PIL', None)
    assert 'pip install pillow' in error('--fonts', str(tmp_path))
    damaged = tmp_path / 'glyphs100.npz'
    damaged.write_bytes(b'PK\x03\x04 cut off')
    monkeypatch.setattr(prepare, 'ARCHIVE', str(damaged))
    assert str(damaged) in error(str(tmp_path / 'images'))
    damaged.unlink()
    assert str(damaged) in error(str(tmp_path / 'images'))
    assert list(tmp_path.iterdir()) == []
