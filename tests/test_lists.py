"""List files, the class order and the split, image for image."""
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import lists
from runtime.errors import UserError


def write_list(path, lines):
    path.write_text(''.join(f'{image} {label}\n' for image, label in lines))
    return str(path)


def mixed_lines(num_classes, stream, low=6, high=14, name='image'):
    """Images of all labels in mixed order, from `low` to `high` of each."""
    labels = np.repeat(np.arange(num_classes), stream.randint(low, high + 1, num_classes))
    stream.shuffle(labels)
    return [(f'{label}/{name + str(i)}.png', int(label))
            for i, label in enumerate(labels)]


def make_split(folder, train, test, num_classes, pool, seed=1993):
    train_list = lists.read_list(write_list(folder / 'train.txt', train), num_classes)
    test_list = lists.read_list(write_list(folder / 'val.txt', test), num_classes)
    found = lists.split(train_list, test_list, num_classes, pool, seed)

    def names(image_list, by_class):
        return [[path.decode() for path in image_list.paths[images]] for images in by_class]
    return found, names(train_list, found.train), names(train_list, found.validation), (
        names(test_list, found.test))


@pytest.mark.parametrize('seed, pool', [(1993, 4), (1993, 1), (1993, 0), (5, 4)])
def test_split_image_for_image(tmp_path, seed, pool):
    stream = np.random.RandomState(8)
    train = mixed_lines(30, stream)
    test = mixed_lines(30, stream, 1, 3, 'test')
    found, training, validation, testing = make_split(tmp_path, train, test, 30, pool, seed)
    expected, pools = oracles.split(train, 30, pool, seed)
    assert training == expected
    assert validation == pools
    order = oracles.class_order(30, seed)[0]
    assert testing == [[path for path, label in test if label == order[c]] for c in range(30)]
    assert found.test_classes.tolist() == [order.index(label) for _, label in test]


def test_a_given_class_order_replaces_the_streams(tmp_path):
    """The split still follows from the seed: its stream draws an order all the same."""
    train = mixed_lines(12, np.random.RandomState(8))
    given = tuple(range(11, -1, -1))
    files = [lists.read_list(write_list(tmp_path / name, train), 12)
             for name in ('train.txt', 'val.txt')]
    found = lists.split(files[0], files[1], 12, 3, 1993, given)
    training, pools = oracles.split(train, 12, 3, 1993, given)
    names = [[[train[i][0] for i in images] for images in part]
             for part in (found.train, found.validation)]
    assert names == [training, pools]
    assert tuple(found.order) == given and training[0][0].startswith('11/')
    assert found.test_classes.tolist() == [11 - label for _, label in train]
    # The order that the seed gives, from a file, changes nothing.
    seeds = tuple(oracles.class_order(12)[0])
    assert oracles.split(train, 12, 3, 1993, seeds) == oracles.split(train, 12, 3)
    same = lists.split(files[0], files[1], 12, 3, 1993, seeds)
    assert [images.tolist() for images in same.train] == [
        images.tolist() for images in lists.split(files[0], files[1], 12, 3, 1993).train]


def test_stored_exemplars_are_found_again(tmp_path):
    train = mixed_lines(6, np.random.RandomState(4))
    found, training, _, _ = make_split(tmp_path, train, train, 6, 4)
    paths = [[training[0][1], training[0][0]], []]
    images = lists.find_images(found, paths)
    assert [[train[i][0] for i in own] for own in images] == paths
    with pytest.raises(UserError, match='gone.png'):
        lists.find_images(found, [['gone.png']])


@pytest.mark.parametrize('content', [
    b'a.png 0\nb.png 1\n', b'a.png 0\nb.png 1', b'a.png 0\r\nb.png 1\r\n\r\n',
    b'\xef\xbb\xbfa.png 0\nb.png 1\n\n\n', b'a.png\t0\nb.png   1 \n',
    b'./a.png 0\n.//b.png 1\n'])
def test_list_file_forms(tmp_path, content):
    (tmp_path / 'train.txt').write_bytes(content)
    found = lists.read_list(str(tmp_path / 'train.txt'), 2)
    assert found.paths.tolist() == [b'a.png', b'b.png'] and found.labels.tolist() == [0, 1]


def test_a_detour_behind_a_link_is_left_as_it_is(tmp_path):
    """To the system link/.. is the folder that holds what the link leads to."""
    (tmp_path / 'train.txt').write_text('./a//b.png 0\n../c.png 0\nlink/../d.png 1\n')
    path = str(tmp_path / 'train.txt')
    assert lists.read_list(path, 2).paths.tolist() == [b'a/b.png', b'../c.png', b'link/../d.png']
    (tmp_path / 'train.txt').write_text('a/ 0\nb 1\na/ 0\n')
    with pytest.raises(UserError, match='line 3: .a/. .*line 1'):
        lists.read_list(path, 2)
    (tmp_path / 'train.txt').write_text('link/../d.png 1\nd.png 1\n')
    with pytest.raises(UserError, match='line 2: .d.png. .*line 1'):
        lists.read_list(path, 2)


def test_label_follows_the_last_space(tmp_path):
    (tmp_path / 'train.txt').write_bytes('my cats 1/été 2.png 1\n../x.png 0\n'.encode('utf-8'))
    found = lists.read_list(str(tmp_path / 'train.txt'), 2)
    assert found.paths.tolist() == ['my cats 1/été 2.png'.encode('utf-8'), b'../x.png']
    assert found.labels.tolist() == [1, 0]


@pytest.mark.parametrize('content, line', [
    (b'a.png 0\nb.png\n', 2), (b'a.png 0\nb.png 2\n', 2), (b'a.png 0\nb.png -1\n', 2),
    (b'a.png 0\nb.png 1.0\n', 2), (b'a.png 0\n\nb.png 1\n', 2), (b'a.png 0\nb.png 1\na.png 1\n', 3),
    (b'a.png 0\nb.png 1\n./a.png 0\n', 3), (b'a.png x\n', 1), (b'a\0.png 0\n', 1),
    (b'a.png 99999999999999999999\n', 1)])
def test_a_malformed_line_is_named(tmp_path, content, line):
    (tmp_path / 'train.txt').write_bytes(content)
    with pytest.raises(UserError) as error:
        lists.read_list(str(tmp_path / 'train.txt'), 2)
    assert f'train.txt, line {line}:' in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('content', [b'', b'\n\n', None])
def test_a_missing_or_empty_list_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / 'train.txt').write_bytes(content)
    with pytest.raises(UserError, match='train.txt'):
        lists.read_list(str(tmp_path / 'train.txt'), 2)


def test_a_class_without_enough_images_is_named(tmp_path):
    lines = [(f'{i}.png', i % 2) for i in range(8)]
    with pytest.raises(UserError, match='label 2'):
        make_split(tmp_path, lines, lines, 3, 1)
    with pytest.raises(UserError, match='4 images.*--memory=growing'):
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
        found = lists.read_list(str(path), 5)
        assert len(set(found.paths)) == len(found.paths) == len(found.labels) > 0
        assert 0 <= found.labels.min() and found.labels.max() < 5
        split = lists.split(found, found, 5, 1, 1993)
        assert sorted(np.concatenate(split.train + split.validation)) == list(
            range(len(found.paths)))
    except UserError as error:
        assert '\n' not in str(error) and len(str(error)) < 1500
