"""Class orders from files."""
import pytest
from miniatures import refused

from runtime import label_files


def read_order(tmp_path, content):
    (tmp_path / 'order.txt').write_bytes(content)
    return label_files.read_class_order(str(tmp_path / 'order.txt'), 3)


@pytest.mark.parametrize('content', [
    b'2\n0\n1', b'2\r\n0\r\n1\r\n\r\n', b'\xef\xbb\xbf2\n 0 \n01\n\n'])
def test_class_order_from_a_file(tmp_path, monkeypatch, content):
    assert read_order(tmp_path, content) == (2, 0, 1)
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
    (b'\xff\xfe2\n', ", line 1: invalid label '\ufffd\ufffd2'")])
def test_a_wrong_class_order_names_file_and_line(tmp_path, content, expected):
    with refused(f'^--class_order={tmp_path / "order.txt"}{expected}'):
        read_order(tmp_path, content)


def test_no_file_with_a_class_order_is_an_error(tmp_path):
    with refused(f'--class_order={tmp_path}: Is a directory'):
        label_files.read_class_order(str(tmp_path), 3)
