"""data/cifar100/prepare.py on miniatures of the published archives and of what people have."""

import io
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from miniatures import JPEG, lines, tar, tree, write, zipped

from data import archives
from data.cifar100 import prepare
from runtime.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ['class_' + chr(97 + index // 26) + chr(97 + index % 26) for index in range(100)]
PER_CLASS = {'train': 2, 'test': 1}


def batches():
    """{split: (pixels, uint8 [n, 3072], planes of red, green and blue; fine labels)}."""
    random = np.random.RandomState(7)
    made = {}
    for split, per_class in PER_CLASS.items():
        labels = random.permutation(np.repeat(np.arange(100), per_class))
        made[split] = random.randint(0, 256, (len(labels), 3072)).astype(np.uint8), labels
    return made


BATCHES = batches()
COARSE = [name for name in NAMES[:20]]


def binary(split):
    pixels, labels = BATCHES[split]
    return b''.join(bytes([label % 20, label]) + row.tobytes()
                    for row, label in zip(pixels, labels))


def binary_archive():
    return tar({'cifar-100-binary/fine_label_names.txt': '\n'.join(NAMES).encode() + b'\n\n',
                'cifar-100-binary/coarse_label_names.txt': '\n'.join(COARSE).encode(),
                'cifar-100-binary/test.bin': binary('test'),
                'cifar-100-binary/train.bin': binary('train')}, 'w:gz')


def python_batch(split):
    pixels, labels = BATCHES[split]
    return {'filenames': ['{}.png'.format(index) for index in range(len(labels))],
            'batch_label': split + 'ing batch 1 of 1',
            'fine_labels': [int(label) for label in labels],
            'coarse_labels': [int(label) % 20 for label in labels],
            'data': pixels}


def python_files(**other):
    members = {'meta': pickle.dumps({'fine_label_names': NAMES, 'coarse_label_names': COARSE}, 3)}
    for split in PER_CLASS:
        members[split] = pickle.dumps(python_batch(split), 3)
    members.update(other)
    members['file.txt~'] = b'notes'
    return members


def python_archive(**other):
    return tar({'cifar-100-python/' + name: data for name, data in python_files(**other).items()},
               'w:gz')


def in_folder(folder, members):
    for name, data in members.items():
        write(folder / name, data)
    return str(folder)


def decoded(session, path):
    import tensorflow.compat.v1 as tf
    return session.run(tf.image.decode_png(tf.io.read_file(str(path))))


@pytest.mark.parametrize('make', [binary_archive, python_archive])
def test_pictures_and_lists(tmp_path, session, make):
    target = tmp_path / 'images'
    prepare.prepare(write(tmp_path / 'cifar.tar.gz', make()), str(target), PER_CLASS)
    for split, name in (('train', 'train.txt'), ('test', 'val.txt')):
        pixels, labels = BATCHES[split]
        assert lines(target / name) == [
            '{}/{}/{:05d}.png {}'.format(split, NAMES[label], index, label)
            for label, index in sorted(zip(labels, range(len(labels))))]
        for index in (0, len(labels) // 2, len(labels) - 1):
            image = decoded(session, target / split / NAMES[labels[index]]
                            / '{:05d}.png'.format(index))
            planes = pixels[index].reshape(3, 32, 32)
            assert np.array_equal(image, np.stack(list(planes), axis=-1))


def files_of(source, target):
    prepare.prepare(source, str(target), PER_CLASS)
    return {path: status[0] for path, status in tree(target).items()}


@pytest.fixture
def expected(tmp_path):
    """What the binary archive gives, {path under the target: bytes}."""
    found = files_of(write(tmp_path / 'expected.tar.gz', binary_archive()), tmp_path / 'expected')
    assert len(found) == 303 and found['classes.txt'].decode().split() == NAMES
    return found


GIVE = {
    'archive': lambda path: write(path / 'cifar-100-python.tar.gz', python_archive()),
    'zip with the files on top': lambda path: write(path / 'kaggle.zip', zipped(python_files())),
    'zip with another folder': lambda path: write(path / 'a.zip', zipped(
        {'data/' + name: data for name, data in python_files().items()})),
    'unpacked': lambda path: in_folder(path / 'cifar-100-python', python_files()),
    'one level up': lambda path: os.path.dirname(in_folder(path / 'data/cifar-100-python',
                                                           python_files())),
    'unpacked binary': lambda path: in_folder(path / 'binary', {
        'train.bin': binary('train'), 'test.bin': binary('test'),
        'fine_label_names.txt': '\n'.join(NAMES).encode()})}


@pytest.mark.parametrize('kind', sorted(GIVE))
def test_all_sources_give_the_same_files(tmp_path, expected, kind):
    assert files_of(GIVE[kind](tmp_path / 'source'), tmp_path / 'images') == expected


def test_without_names_they_are_the_published_ones(tmp_path):
    files = python_files()
    del files['meta']
    prepare.prepare(in_folder(tmp_path / 'source', files), str(tmp_path / 'images'), PER_CLASS)
    names = lines(tmp_path / 'images' / 'classes.txt')
    assert names[:2] == ['apple', 'aquarium_fish'] and names[99] == 'worm'
    assert len(names) == 100 and names == sorted(set(names))


def test_nothing_given_is_downloaded_in_the_published_order(tmp_path, expected, monkeypatch):
    import tensorflow.compat.v1 as tf
    wanted = []

    def load_data(label_mode):
        wanted.append(label_mode)
        return [(prepare.from_planes(pixels), labels.reshape(-1, 1))
                for pixels, labels in (BATCHES['train'], BATCHES['test'])]
    monkeypatch.setattr(tf.keras.datasets.cifar100, 'load_data', load_data)
    monkeypatch.setattr(prepare, 'read_fine_names', lambda: NAMES)
    assert files_of(None, tmp_path / 'images') == expected
    assert wanted == ['fine']


def test_download_without_a_network_is_one_message(tmp_path, monkeypatch):
    import tensorflow.compat.v1 as tf

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


def test_interrupted_and_started_again(tmp_path, monkeypatch):
    path = write(tmp_path / 'cifar.tar.gz', binary_archive())
    target = tmp_path / 'images'
    written = []
    real = archives.write_file

    def interrupted(where, data, sync=True):
        if len(written) == 70:
            raise KeyboardInterrupt
        real(where, data, sync)
        written.append(where)
    monkeypatch.setattr(archives, 'write_file', interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(path, str(target), PER_CLASS)
    assert not (target / 'train.txt').exists() and not (target / 'val.txt').exists()
    before = {name: status for name, status in tree(target).items()}
    assert len(before) == 70
    monkeypatch.setattr(archives, 'write_file', real)
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
@pytest.mark.parametrize('place', ['meta', 'train', 'test'])
def test_pickle_that_asks_for_more_is_refused(tmp_path, call, place):
    trace = tmp_path / 'trace'
    function, arguments = call
    arguments = tuple(part.format(str(trace)) if isinstance(part, str) else part
                      for part in arguments)
    evil = dict(python_batch('train'), more=Evil((function, arguments)))
    path = write(tmp_path / 'cifar.tar.gz', python_archive(**{place: pickle.dumps(evil, 2)}))
    with pytest.raises(UserError, match=place + ': .*CIFAR-100.*which no batch'):
        prepare.prepare(path, str(tmp_path / 'images'), PER_CLASS)
    assert not trace.exists() and not (tmp_path / 'images').exists()


def test_unpickler_admits_what_python_2_wrote():
    """A batch as Python 2 and its NumPy pickled it: protocol 2, byte strings, no _codecs."""
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
    images, labels = prepare.contents('train', out.getvalue())['train']
    assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(1, -1), pixels)
    assert list(labels) == [3]


def refused(tmp_path, data, message):
    path = write(tmp_path / 'cifar.tar.gz', data)
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
    refused(tmp_path, python_archive(train=batch), message)


@pytest.mark.parametrize('name', ['../../etc', 'a/b', '', '.', 'A B'])
def test_class_names_that_are_no_folder_names(tmp_path, name):
    meta = pickle.dumps({'fine_label_names': [name] + NAMES[1:]}, 2)
    refused(tmp_path, python_archive(meta=meta), 'does not name the 100 classes')


def test_damaged_archives(tmp_path):
    whole = binary_archive()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        refused(tmp_path, whole[:length], 'damaged or truncated')
    refused(tmp_path, tar({'cifar-100-binary/train.bin': binary('train')[:-1]}),
            'train.bin: .*CIFAR-100')
    refused(tmp_path, tar({'cifar-100-binary/train.bin': binary('train')}),
            'named test ')
    refused(tmp_path, tar({'cifar-10-batches-py/data_batch_1': b'x'}),
            'named test and train')


def test_published_counts_are_the_default(tmp_path):
    ended = subprocess.run(
        [sys.executable, 'data/cifar100/prepare.py', '--target', str(tmp_path / 'images'),
         write(tmp_path / 'cifar.tar.gz', binary_archive())], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)
    assert (ended.returncode, ended.stdout) == (1, '')
    assert ended.stderr == (
        'error: {}: train: 200 of 50000 images. Class 0 has 2 of 500.\n'.format(
            tmp_path / 'cifar.tar.gz'))


def test_script_says_what_to_type_next(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(prepare.PER_CLASS, 'train', 2)
    monkeypatch.setitem(prepare.PER_CLASS, 'test', 1)
    prepare.main(['--target', str(tmp_path / 'images'),
                  write(tmp_path / 'cifar.tar.gz', binary_archive())])
    said = capsys.readouterr().out.split('\n')
    assert said[0].startswith('images written: 300, ')
    assert said[1].startswith('200 training and 100 test images')
    assert said[2].startswith('next: ') and said[2].endswith(
        ' imagenet_main.py --dataset=cifar100 --data_dir={}'.format(tmp_path / 'images'))
