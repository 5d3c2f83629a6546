"""data/cifar100/prepare.py on miniatures of the published archives and of common copies."""
import os
import pickle

import miniatures
import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from miniatures import JPEG, lines, refused, tar, tree, write, write_all, zipped

from data.cifar100 import prepare

NAMES = lines(prepare.FINE_NAMES)
PER_CLASS = {'train': 2, 'test': 1}


def random_batch(per_class, seed):
    """Return (pixels, uint8 [n, 3072], planes of red, green and blue; fine labels)."""
    random = np.random.RandomState(seed)
    labels = random.permutation(np.repeat(np.arange(100), per_class))
    return random.randint(0, 256, (len(labels), 3072)).astype(np.uint8), labels


BATCHES = {split: random_batch(per_class, per_class) for split, per_class in PER_CLASS.items()}


def binary(split):
    return b''.join(bytes([label % 20, label]) + row.tobytes()
                    for row, label in zip(*BATCHES[split]))


def binary_archive():
    return tar({'cifar-100-binary/fine_label_names.txt': '\n'.join(NAMES).encode() + b'\n\n',
                'cifar-100-binary/test.bin': binary('test'),
                'cifar-100-binary/train.bin': binary('train')}, 'w:gz')


def python_files(**other):
    members = {'meta': pickle.dumps({'fine_label_names': NAMES}, 3), 'file.txt~': b'notes'}
    for split, (pixels, labels) in BATCHES.items():
        members[split] = pickle.dumps({
            'filenames': [f'{index}.png' for index in range(len(labels))],
            'fine_labels': labels.tolist(), 'coarse_labels': (labels % 20).tolist(),
            'data': pixels}, 3)
    return {**members, **other}


def prepared_files(source, target):
    """Prepare `source` and return {path under the target: bytes}."""
    prepare.prepare(source, str(target), PER_CLASS)
    return {path: status[0] for path, status in tree(target).items()}


@pytest.fixture
def expected(tmp_path):
    """The files made from the binary archive."""
    files = prepared_files(write(tmp_path / 'b.tar.gz', binary_archive()), tmp_path / 'expected')
    assert len(files) == 303 and files['classes.txt'].decode().split() == NAMES
    return files


def test_images_and_lists(expected, session):
    assert NAMES[:2] == ['apple', 'aquarium_fish'] and len(set(NAMES)) == 100
    for split, name in (('train', 'train.txt'), ('test', 'val.txt')):
        pixels, labels = BATCHES[split]
        assert expected[name].decode().splitlines() == [
            f'{split}/{NAMES[label]}/{index:05d}.png {label}'
            for label, index in sorted(zip(labels, range(len(labels))))]
        for index in (0, len(labels) - 1):
            image = session.run(tf.image.decode_png(
                expected[f'{split}/{NAMES[labels[index]]}/{index:05d}.png']))
            assert np.array_equal(image, np.moveaxis(pixels[index].reshape(3, 32, 32), 0, -1))


SOURCES = {
    'archive': lambda path: write(path / 'cifar-100-python.tar.gz', tar(
        {f'cifar-100-python/{name}': data for name, data in python_files().items()}, 'w:gz')),
    'zip with the files on top': lambda path: write(path / 'kaggle.zip', zipped(python_files())),
    'unpacked': lambda path: write_all(path / 'cifar-100-python', python_files()),
    'one level up': lambda path: os.path.dirname(write_all(path / 'data/cifar-100-python',
                                                           python_files())),
    'unpacked binary': lambda path: write_all(path / 'binary', {
        'train.bin': binary('train'), 'test.bin': binary('test')})}


@pytest.mark.parametrize('kind', sorted(SOURCES))
def test_all_sources_give_the_same_files(tmp_path, expected, kind):
    assert prepared_files(SOURCES[kind](tmp_path / 'source'), tmp_path / 'images') == expected


def test_without_a_source_the_download_gives_the_same_files(tmp_path, expected, monkeypatch):
    def load_data(label_mode):
        assert label_mode == 'fine'
        return [(np.moveaxis(pixels.reshape(-1, 3, 32, 32), 1, -1), labels.reshape(-1, 1))
                for pixels, labels in (BATCHES['train'], BATCHES['test'])]
    monkeypatch.setattr(tf.keras.datasets.cifar100, 'load_data', load_data)
    assert prepared_files(None, tmp_path / 'images') == expected


def test_a_failed_download_is_one_message(tmp_path, monkeypatch):
    def fail(label_mode):
        raise Exception('URL fetch failure on https://...: None --\nName not known')
    monkeypatch.setattr(tf.keras.datasets.cifar100, 'load_data', fail)
    with refused('URL fetch.*cifar-100-python.tar.gz'):
        prepare.prepare(None, str(tmp_path / 'images'))
    assert not (tmp_path / 'images').exists()


def test_an_interrupted_start_is_resumed(tmp_path):
    path, target = write(tmp_path / 'cifar.tar.gz', binary_archive()), tmp_path / 'images'
    miniatures.check_resumes(lambda: prepare.prepare(path, str(target), PER_CLASS), target, 70)
    assert len(tree(target)) == 303


@pytest.mark.parametrize('function, argument', [
    (os.system, 'touch {}'), (eval, "open({!r}, 'w')"), (np.fromfile, '{}')])
def test_a_pickle_that_runs_code_is_refused(tmp_path, function, argument):
    trace = tmp_path / 'trace'

    class Evil:
        def __reduce__(self):
            return function, (argument.format(str(trace)),)

    evil = pickle.dumps({'data': [], 'more': Evil()}, 2)
    with refused('test: .*CIFAR-100.*which no batch'):
        prepare.prepare(write_all(tmp_path / 'source', python_files(test=evil)),
                        str(tmp_path / 'images'), PER_CLASS)
    assert not trace.exists() and not (tmp_path / 'images').exists()


def test_pickles_of_python_2_are_read():
    """The published files are pickles of Python 2: protocol 2, with byte strings."""
    pixels = np.arange(3072, dtype=np.uint8).reshape(1, 3072)
    images, labels = prepare.read_batch('train', (
        b'\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n'
        b'K\x00\x85U\x01b\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R'
        b'(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00'
        + pixels.tobytes() + b'tbU\x0bfine_labels]K\x03au.'))
    assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(1, -1), pixels)
    assert list(labels) == [3]


def pickled(count, labels, size=3072):
    return pickle.dumps({'data': np.zeros((count, size), np.uint8), 'fine_labels': labels}, 3)


@pytest.mark.parametrize('files, message', [
    (python_files(train=b''), 'train: .*CIFAR-100'),
    (python_files(train=pickled(2, [1, 2], size=3)), 'reshape'),
    (python_files(train=pickled(2, [1])), 'from 0 to 99'),
    (python_files(train=pickled(200, list(range(1, 101)) * 2)), 'from 0 to 99'),
    (python_files(train=pickled(200, [0] * 200)), 'train: 200 of 200 .*lass 0 has 200 of 2'),
    ({'train.bin': binary('train')[:-1]}, 'train.bin: .*CIFAR-100'),
    ({'train.bin': binary('train')}, 'named test '),
    ({'data_batch_1': b'x'}, 'named test and train'),
    ({'train/apple/1.png': JPEG, 'test/apple/2.png': JPEG}, 'data/folder/prepare.py .*source')])
def test_damaged_or_unknown_files_are_named(tmp_path, files, message):
    with refused(message):
        prepare.prepare(write_all(tmp_path / 'source', files), str(tmp_path / 'images'), PER_CLASS)
    assert not (tmp_path / 'images' / 'train.txt').exists()
