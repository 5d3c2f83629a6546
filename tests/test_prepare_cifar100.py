"""data/cifar100/prepare.py on miniature archives of exactly the published structures."""

import io
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from miniatures import lines, tar, tree, write

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


def python_archive(**other):
    members = {'meta': pickle.dumps({'fine_label_names': NAMES, 'coarse_label_names': COARSE}, 3)}
    for split in PER_CLASS:
        members[split] = pickle.dumps(python_batch(split), 3)
    members.update(other)
    members['file.txt~'] = b'notes'
    return tar({'cifar-100-python/' + name: data for name, data in members.items()}, 'w:gz')


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


def test_both_archives_give_the_same_files(tmp_path):
    found = []
    for name, make in (('binary', binary_archive), ('python', python_archive)):
        target = tmp_path / name
        prepare.prepare(write(tmp_path / (name + '.tar.gz'), make()), str(target), PER_CLASS)
        found.append({path: status[0] for path, status in tree(target).items()})
    assert found[0] == found[1] and len(found[0]) == 302


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
    assert len(after) == 302


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
    with pytest.raises(UserError, match=place + ': it is not what CIFAR-100.*which no batch'):
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
    (b'', 'train: it is not what'), (b'\x80\x02N.', 'train: it is not what'),
    (pickle.dumps({'data': 1}, 2), 'train: it is not what'),
    (pickle.dumps({'data': np.zeros((2, 3)), 'fine_labels': [1, 2]}, 3), 'reshape'),
    (pickle.dumps({'data': np.zeros((2, 3072), np.uint8), 'fine_labels': [1]}, 3),
     'a label between 0 and 99 for every image'),
    (pickle.dumps({'data': np.zeros((200, 3072), np.uint8),
                   'fine_labels': list(range(1, 101)) * 2}, 3), 'between 0 and 99'),
    (pickle.dumps({'data': np.zeros((200, 3072), np.uint8), 'fine_labels': [0] * 200}, 3),
     'train: 200 of 200 images; class 0 has 200 of 2')])
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
            'train.bin: it is not what')
    refused(tmp_path, tar({'cifar-100-binary/train.bin': binary('train')}),
            'lacks names and test')
    refused(tmp_path, tar({'cifar-10-batches-py/data_batch_1': b'x'}),
            'lacks names and test and train')


def test_published_counts_are_the_default(tmp_path):
    ended = subprocess.run(
        [sys.executable, 'data/cifar100/prepare.py', '--target', str(tmp_path / 'images'),
         write(tmp_path / 'cifar.tar.gz', binary_archive())], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)
    assert (ended.returncode, ended.stdout) == (1, '')
    assert ended.stderr == (
        'error: {}: train: 200 of 50000 images; class 0 has 2 of 500\n'.format(
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
