"""List files, class orders from files, and the split, image for image."""
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures import refused

from data import lists
from runtime import label_files
from runtime.errors import UserError


def write_list(path, lines):
    path.write_text(''.join(f'{image} {label}\n' for image, label in lines))
    return str(path)


def mixed_lines(num_classes, stream, low=6, high=14, name='image'):
    """Return (path, label) of images in mixed order, from `low` to `high` of each label."""
    labels = np.repeat(np.arange(num_classes), stream.randint(low, high + 1, num_classes))
    stream.shuffle(labels)
    return [(f'{label}/{name}{i}.png', int(label)) for i, label in enumerate(labels)]


def make_split(folder, train, test, num_classes, pool, seed=1993, class_order=()):
    """Return (Split, and by class the paths of its training, validation and test images)."""
    train_list = lists.read_list(write_list(folder / 'train.txt', train), num_classes)
    test_list = lists.read_list(write_list(folder / 'val.txt', test), num_classes)
    split = lists.make_split(train_list, test_list, num_classes, pool, seed, class_order)
    paths = [[image_list.names(images) for images in by_class] for image_list, by_class in (
        (train_list, split.train), (train_list, split.validation), (test_list, split.test))]
    return (split, *paths)


@pytest.mark.parametrize('seed, pool', [(1993, 4), (1993, 0), (5, 4)])
def test_split_image_for_image(tmp_path, seed, pool):
    stream = np.random.RandomState(8)
    train = mixed_lines(30, stream)
    test = mixed_lines(30, stream, 1, 3, 'test')
    split, training, validation, testing = make_split(tmp_path, train, test, 30, pool, seed)
    assert (training, validation) == oracles.split(train, 30, pool, seed)
    order = oracles.class_order(30, seed)[0]
    assert testing == [[path for path, label in test if label == order[c]] for c in range(30)]
    assert split.test_classes.tolist() == [order.index(label) for _, label in test]


def test_a_class_order_replaces_the_drawn_order_and_keeps_the_split(tmp_path):
    """The split follows from the seed: the stream still draws an order, which is not used."""
    train = mixed_lines(12, np.random.RandomState(8))
    order = tuple(range(11, -1, -1))
    split, training, validation, _ = make_split(tmp_path, train, train, 12, 3, class_order=order)
    assert (training, validation) == oracles.split(train, 12, 3, 1993, order)
    assert tuple(split.order) == order and training[0][0].startswith('11/')
    assert split.test_classes.tolist() == [11 - label for _, label in train]
    # A file with the order that the seed gives changes nothing.
    seeds = tuple(oracles.class_order(12)[0])
    assert make_split(tmp_path, train, train, 12, 3, class_order=seeds)[1:] == (
        make_split(tmp_path, train, train, 12, 3)[1:])


def test_stored_exemplars_are_looked_up_by_path(tmp_path):
    train = mixed_lines(6, np.random.RandomState(4))
    split, training, _, _ = make_split(tmp_path, train, train, 6, 4)
    paths = [[training[0][1], training[0][0]], []]
    images = lists.find_images(split, paths)
    assert [[train[i][0] for i in indices] for indices in images] == paths
    with refused('gone.png'):
        lists.find_images(split, [['gone.png']])


@pytest.mark.parametrize('content, paths', [
    ('a.png 0\nb.png 1', ['a.png', 'b.png']),
    ('a.png 0\r\nb.png 1\r\n\r\n', ['a.png', 'b.png']),
    ('\ufeffa.png 0\nb.png 1\n\n\n', ['a.png', 'b.png']),
    ('a.png\t0\nb.png   1 \n', ['a.png', 'b.png']),
    ('./a.png 0\n.//b.png 1\n', ['a.png', 'b.png']),
    ('my cats 1/\xe9t\xe9 2.png 0\n../x.png 1\n', ['my cats 1/\xe9t\xe9 2.png', '../x.png']),
    # The system takes link/.. for the parent of the folder that the link points to.
    ('./a//b.png 0\nlink/../d.png 1\n', ['a/b.png', 'link/../d.png'])])
def test_list_files_may_differ_in_line_ends_spaces_and_paths(tmp_path, content, paths):
    (tmp_path / 'train.txt').write_bytes(content.encode())
    image_list = lists.read_list(str(tmp_path / 'train.txt'), 2)
    assert image_list.paths.tolist() == [path.encode() for path in paths]
    assert image_list.labels.tolist() == [0, 1]


@pytest.mark.parametrize('content, message', [
    (b'a.png 0\nb.png\n', ', line 2:'), (b'a.png 0\nb.png 2\n', ', line 2:'),
    (b'a.png 0\nb.png -1\n', ', line 2:'), (b'a.png 0\nb.png 1.0\n', ', line 2:'),
    (b'a.png 0\n\nb.png 1\n', ', line 2:'), (b'a\0.png 0\n', ', line 1:'),
    (b'a.png 99999999999999999999\n', ', line 1:'), (b'\n\n', ': the list is empty'),
    (None, ': No such file'),
    # An image that is listed twice.
    (b'a.png 0\nb.png 1\na.png 0', ', line 3: .a.png. .*line 1'),
    (b'a.png 0\nb.png 1\n./a.png 0', ', line 3: .a.png. .*line 1'),
    (b'a/ 0\nb.png 1\na/ 0', ', line 3: .a/?. .*line 1'),
    (b'link/../d.png 0\nb.png 1\nd.png 0', ', line 3: .d.png. .*line 1')])
def test_a_faulty_list_or_line_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / 'train.txt').write_bytes(content)
    with refused('train.txt' + message):
        lists.read_list(str(tmp_path / 'train.txt'), 2)


def test_a_class_without_enough_images_is_named(tmp_path):
    lines = [(f'{i}.png', i % 2) for i in range(8)]
    with refused('label 2'):
        make_split(tmp_path, lines, lines, 3, 1)
    with refused('4 images.*--memory=growing'):
        make_split(tmp_path, lines, lines, 2, 4)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 150), st.integers(0, 20), st.one_of(
    st.binary(max_size=5), st.sampled_from([
        b'\r\n', b'\r', b'\0', b'\xef\xbb\xbf', b'-1', b'5', b'9' * 5000, b'1e3', b'../', b'//',
        b'\xd9\xa3', b'\x85']))), min_size=1, max_size=5))
def test_a_damaged_list_is_refused_in_one_line_or_can_be_split(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp('list') / 'train.txt'
    content = b'\n'.join(b'%d/image %d.png %d' % (label, i, label)
                         for label in range(5) for i in range(3))
    for begin, length, inserted in changes:
        content = content[:begin] + inserted + content[begin + length:]
    path.write_bytes(content)
    try:
        image_list = lists.read_list(str(path), 5)
        size = len(image_list.paths)
        assert len(set(image_list.paths)) == len(image_list.labels) == size > 0
        assert 0 <= image_list.labels.min() and image_list.labels.max() < 5
        split = lists.make_split(image_list, image_list, 5, 1, 1993)
        assert sorted(np.concatenate(split.train + split.validation)) == list(range(size))
    except UserError as error:
        assert '\n' not in str(error) and len(str(error)) < 1500


@pytest.mark.parametrize('content', [
    b'2\n0\n1', b'2\r\n0\r\n1\r\n\r\n', b'\xef\xbb\xbf2\n 0 \n01\n\n'])
def test_class_order_from_a_file(tmp_path, monkeypatch, content):
    (tmp_path / 'order.txt').write_bytes(content)
    assert label_files.read_class_order(str(tmp_path / 'order.txt'), 3) == (2, 0, 1)
    monkeypatch.setenv('HOME', str(tmp_path))
    assert label_files.read_class_order('~/order.txt', 3) == (2, 0, 1)


@pytest.mark.parametrize('content, expected', [
    (b'2\n0\n2\n', ', line 3: label 2 already appears on line 1'),
    (b'2\n0\n3\n', ", line 3: invalid label '3'"),
    (b'0 1 2\n', ", line 1: invalid label '0 1 2'"),
    (b'2\n\n0\n1\n', ", line 2: invalid label ''"),
    (b'', ", line 1: invalid label ''"),
    (b'2\n\xc2\xb2\n', ", line 2: invalid label '\xb2'"),
    (b'9' * 5000 + b'\n', ", line 1: invalid label '" + '9' * 80 + "'"),
    (b'2\n0\n', ': label 1 is missing'),
    (b'\xff\xfe2\n', ", line 1: invalid label '\ufffd\ufffd2'"),
    (None, ': Is a directory')])
def test_a_wrong_class_order_names_file_and_line(tmp_path, content, expected):
    path = tmp_path / 'order.txt'
    path.mkdir() if content is None else path.write_bytes(content)
    with refused(f'^--class_order={path}{expected}'):
        label_files.read_class_order(str(path), 3)
