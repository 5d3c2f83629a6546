"""data/cifar100/prepare.py on miniatures of the published archives and of common copies."""

import io
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf
from miniatures import JPEG, interrupted_after, lines, tar, tree, write, zipped

from data.cifar100 import prepare
from runtime.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = lines(prepare.FINE_NAMES)
PER_CLASS = {'train': 2, 'test': 1}


def make_batches():
    """{split: (pixels, uint8 [n, 3072], planes of red, green and blue; fine labels)}."""
    random = np.random.RandomState(7)
    batches = {}
    for split, per_class in PER_CLASS.items():
        labels = random.permutation(np.repeat(np.arange(100), per_class))
        batches[split] = random.randint(0, 256, (len(labels), 3072)).astype(np.uint8), labels
    return batches


BATCHES = make_batches()


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


def python_archive(**other):
    return tar({f'cifar-100-python/{name}': data for name, data in python_files(**other).items()},
               'w:gz')


def in_folder(folder, members):
    for name, data in members.items():
        write(folder / name, data)
    return str(folder)


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
    'archive': lambda path: write(path / 'cifar-100-python.tar.gz', python_archive()),
    'zip with the files on top': lambda path: write(path / 'kaggle.zip', zipped(python_files())),
    'zip with another folder': lambda path: write(path / 'a.zip', zipped(
        {f'data/{name}': data for name, data in python_files().items()})),
    'unpacked': lambda path: in_folder(path / 'cifar-100-python', python_files()),
    'one level up': lambda path: os.path.dirname(in_folder(path / 'data/cifar-100-python',
                                                           python_files())),
    'unpacked binary': lambda path: in_folder(path / 'binary', {
        'train.bin': binary('train'), 'test.bin': binary('test')})}


@pytest.mark.parametrize('kind', sorted(SOURCES))
def test_all_sources_give_the_same_files(tmp_path, expected, kind):
    assert prepared_files(SOURCES[kind](tmp_path / 'source'), tmp_path / 'images') == expected


def test_nothing_given_is_downloaded_in_the_published_order(tmp_path, expected, monkeypatch):
    def load_data(label_mode):
        assert label_mode == 'fine'
        return [(np.moveaxis(pixels.reshape(-1, 3, 32, 32), 1, -1), labels.reshape(-1, 1))
                for pixels, labels in (BATCHES['train'], BATCHES['test'])]
    monkeypatch.setattr(tf.keras.datasets.cifar100, 'load_data', load_data)
    assert prepared_files(None, tmp_path / 'images') == expected


def test_download_without_a_network_is_one_message(tmp_path, monkeypatch):
    def fail(label_mode):
        raise Exception('URL fetch failure on https://...: None --\nName not known')
    monkeypatch.setattr(tf.keras.datasets.cifar100, 'load_data', fail)
    with pytest.raises(UserError, match='URL fetch.*cifar-100-python.tar.gz') as error:
        prepare.prepare(None, str(tmp_path / 'images'))
    assert '\n' not in str(error.value) and not (tmp_path / 'images').exists()


def test_class_folders_are_pointed_to_the_other_script(tmp_path):
    source = in_folder(tmp_path / 'png', {'train/apple/1.png': JPEG, 'test/apple/2.png': JPEG})
    with pytest.raises(UserError, match='data/folder/prepare.py ' + source):
        prepare.prepare(source, str(tmp_path / 'images'))


def test_interrupted_and_started_again(tmp_path):
    path = write(tmp_path / 'cifar.tar.gz', binary_archive())
    target = tmp_path / 'images'
    with interrupted_after(70):
        prepare.prepare(path, str(target), PER_CLASS)
    before = tree(target)
    assert len(before) == 70 and not {'train.txt', 'val.txt'} & set(before)
    prepare.prepare(path, str(target), PER_CLASS)
    after = tree(target)
    assert {name: after[name] for name in before} == before
    assert len(after) == 303


class Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('call', [
    (os.system, ('touch {}',)), (eval, ("open({!r}, 'w')",)), (np.fromfile, ('/etc/passwd',)),
    (getattr, (str, 'upper')), (pickle.loads, (b'N.',))])
def test_pickle_that_asks_for_more_is_refused(tmp_path, call):
    trace = tmp_path / 'trace'
    function, arguments = call
    arguments = tuple(part.format(str(trace)) if isinstance(part, str) else part
                      for part in arguments)
    evil = pickle.dumps({'data': [], 'more': Evil((function, arguments))}, 2)
    path = write(tmp_path / 'cifar.tar.gz', python_archive(test=evil))
    with pytest.raises(UserError, match='test: .*CIFAR-100.*which no batch'):
        prepare.prepare(path, str(tmp_path / 'images'), PER_CLASS)
    assert not trace.exists() and not (tmp_path / 'images').exists()


def test_unpickler_admits_what_python_2_wrote():
    """A batch in the form of Python 2's pickle: protocol 2, byte strings, no _codecs."""
    pixels = np.arange(3072, dtype=np.uint8).reshape(1, 3072)
    data = pickle.dumps({'data': pixels, 'fine_labels': [3]}, 3)
    # Protocol 3 differs from what Python 2 wrote in its bytes and text opcodes.
    out = io.BytesIO(b'')
    out.write(b'\x80\x02')
    body = list(pickletools.genops(data))
    ends = [position for _, _, position in body[1:]] + [len(data)]
    for (code, value, start), end in zip(body, ends):
        if code.name == 'BINUNICODE':
            out.write(b'U' + bytes([len(value)]) + value.encode())
        elif code.name in ('BINBYTES', 'SHORT_BINBYTES'):
            out.write(b'T' + len(value).to_bytes(4, 'little') + value)
        elif code.name != 'PROTO':
            out.write(data[start:end])
    images, labels = prepare.read_batch('train', out.getvalue())
    assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(1, -1), pixels)
    assert list(labels) == [3]


def check_refused(tmp_path, archive, message):
    path = write(tmp_path / 'cifar.tar.gz', archive)
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare(path, str(tmp_path / 'images'), PER_CLASS)
    assert '\n' not in str(error.value)
    assert not (tmp_path / 'images' / 'train.txt').exists()


@pytest.mark.parametrize('batch, message', [
    (b'', 'train: .*CIFAR-100'), (b'\x80\x02N.', 'train: .*CIFAR-100'),
    (pickle.dumps({'data': 1}, 2), 'train: .*CIFAR-100'),
    (pickle.dumps({'data': np.zeros((2, 3)), 'fine_labels': [1, 2]}, 3), 'reshape'),
    (pickle.dumps({'data': np.zeros((2, 3072), np.uint8), 'fine_labels': [1]}, 3),
     'from 0 to 99'),
    (pickle.dumps({'data': np.zeros((200, 3072), np.uint8),
                   'fine_labels': list(range(1, 101)) * 2}, 3), 'from 0 to 99'),
    (pickle.dumps({'data': np.zeros((200, 3072), np.uint8), 'fine_labels': [0] * 200}, 3),
     'train: 200 of 200 .*lass 0 has 200 of 2')])
def test_damaged_batches(tmp_path, batch, message):
    check_refused(tmp_path, python_archive(train=batch), message)


def test_damaged_archives(tmp_path):
    whole = binary_archive()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        check_refused(tmp_path, whole[:length], 'damaged or truncated')
    check_refused(tmp_path, tar({'cifar-100-binary/train.bin': binary('train')[:-1]}),
                  'train.bin: .*CIFAR-100')
    check_refused(tmp_path, tar({'cifar-100-binary/train.bin': binary('train')}), 'named test ')
    check_refused(tmp_path, tar({'cifar-10-batches-py/data_batch_1': b'x'}),
                  'named test and train')


def test_published_counts_are_the_default(tmp_path):
    source = write(tmp_path / 'cifar.tar.gz', binary_archive())
    ended = subprocess.run(
        [sys.executable, 'data/cifar100/prepare.py', '--target', str(tmp_path / 'images'), source],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    assert (ended.returncode, ended.stdout) == (1, '')
    assert ended.stderr == (
        f'error: {source}: train: 200 of 50000 images. Class 0 has 2 of 500.\n')


def test_script_says_what_to_type_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(prepare.PER_CLASS, 'train', 2)
    monkeypatch.setitem(prepare.PER_CLASS, 'test', 1)
    prepare.main(['--target', str(tmp_path / 'images'),
                  write(tmp_path / 'cifar.tar.gz', binary_archive())])
    said = capsys.readouterr().out.split('\n')
    assert said[0].startswith('images written: 300, ')
    assert said[1].startswith('200 training and 100 test images')
    assert said[2].startswith('next: ') and said[2].endswith(
        f' --dataset=cifar100 --data_dir={tmp_path / "images"}')
