"""Untrusted archives, folders with loops, and incomplete images."""
import gzip
import io
import os
import stat
import tarfile
import zipfile

import pytest
from miniatures import CMYK_JPEG, GRAY_JPEG, JPEG, PNG, refused, tar, write, zipped

from data import archives

FILES = {'a/one.JPEG': JPEG, 'a/two.JPEG': PNG, 'b/empty': b'', 'b/block': b'x' * 512,
         'c/' + 'long' * 60 + '/name.JPEG': GRAY_JPEG, 'umläut/ß.JPEG': CMYK_JPEG}


def contents(path):
    return {member.name: member.read() for member in archives.members(path)}


def test_odd_members_of_a_tar_are_skipped_and_counted(tmp_path, capsys):
    members = dict.fromkeys(('a.JPEG', '../out.JPEG', 'a/../../out.JPEG', 'a/..', 'a\nb.JPEG',
                             '..\\out.JPEG'), JPEG)
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b'V'):
        members[kind] = tarfile.TarInfo('a/odd.JPEG')
        members[kind].type, members[kind].linkname = kind, '/etc/passwd'
    members['b.JPEG'] = PNG
    assert contents(write(tmp_path / 'faces.tar', tar(members))) == {'a.JPEG': JPEG, 'b.JPEG': PNG}
    output = capsys.readouterr().err
    assert 'faces.tar' in output and 'skipped 10 ' in output and output.count('\n') == 1


def test_odd_members_of_a_zip_are_skipped_and_counted(tmp_path, capsys):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as file:
        for name, kind in (('link.JPEG', stat.S_IFLNK), ('../up.JPEG', stat.S_IFREG),
                           ('m.1\\made on Windows.JPEG', 0), ('m.1/', stat.S_IFDIR)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            file.writestr(info, b'' if name[-1] == '/' else JPEG)
    assert contents(write(tmp_path / 'a.zip', out.getvalue())) == {'m.1/made on Windows.JPEG': JPEG}
    assert 'skipped 2 ' in capsys.readouterr().err
    for changed in (b'\1\0\b', b'\0\0\t'):  # encrypted; compressed with Deflate64
        with refused('b.zip: .*Unpack it'):
            contents(write(tmp_path / 'b.zip', zipped({'a': b''}).replace(b'\0\0\b', changed)))


@pytest.mark.parametrize('whole', [
    tar(FILES, format=tarfile.GNU_FORMAT), tar(FILES, 'w:gz', format=tarfile.PAX_FORMAT),
    zipped(FILES)], ids=['tar', 'tar.gz', 'zip'])
def test_an_archive_is_read_in_order_and_refused_if_truncated_anywhere(tmp_path, whole):
    assert list(contents(write(tmp_path / 'a', whole)).items()) == list(FILES.items())
    end = len(whole.rstrip(b'\0'))  # before the end mark of a tar
    for length in [*range(0, end, 101), end - 1]:
        with refused('cut: '):
            contents(write(tmp_path / 'cut', whole[:length]))


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1:]


def with_size(size):
    """Return a tar whose only member claims this size."""
    header = bytearray(tar({'a': b'x'})[:512])
    header[124:136] = size
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header)
    return bytes(header) + bytes(2048)


TWO_BLOCKS = tar({'a': b'x' * 512, 'b': b'y' * 512})


@pytest.mark.parametrize('data', [
    b'', b'<html>not found</html>', gzip.compress(b'text' * 500),
    # The standard library takes both for the end: a damaged header, and a cut between two members.
    flipped(TWO_BLOCKS, 1027), TWO_BLOCKS[:1024],
    flipped(gzip.compress(TWO_BLOCKS), 40), flipped(gzip.compress(TWO_BLOCKS), -5),
    with_size(b'77777777777\0'), with_size(b'-0000000001\0'), with_size(b'\xff' * 12),
    # An inner tar that claims 2,000 bytes and has 512 must not read what comes after it.
    tar({'in.tar': tar({'one': b'x' * 2000})[:1024], 'secret': b's' * 4096})],
    ids=['empty', 'HTML', 'gzip of text', 'header', 'end missing', 'gzip', 'checksum',
         'size beyond the end', 'negative size', 'size of -1', 'inner tar'])
def test_a_damaged_archive_is_named(tmp_path, data):
    with refused('page.tar: .*damaged or truncated'):
        contents(write(tmp_path / 'page.tar', data))


@pytest.mark.parametrize('half', [JPEG[:50], bytes(len(JPEG)), JPEG[:-4] + bytes(4)],
                         ids=['short', 'zeros', 'zeros at the end'])
def test_an_image_that_a_crash_cut_off_is_written_again(tmp_path, half):
    image = tmp_path / 'train' / 'n' / 'one.JPEG'
    write(image, half)
    for member in archives.members(write(tmp_path / 'a.tar', tar({'n/one.JPEG': JPEG}))):
        archives.extract(member, str(tmp_path), 'train/n', 'one.JPEG', {})
    assert image.read_bytes() == JPEG


def test_linked_folders_are_walked_once(tmp_path):
    for name in ('top/a/1.png', 'top/b/2.png', 'top/.hidden/3.png', 'top/target/4.png',
                 'top/a/._1.png', 'disk/n1/5.png'):
        write(tmp_path / name, PNG)
    top = tmp_path / 'top'
    for name in ('Data', 'CLS-LOC', 'a/up', 'b/up', 'zz'):
        (top / name).symlink_to(top)
    (top / 'A').symlink_to('b')  # is sorted before it, and still b is called b
    (top / 'train').symlink_to(tmp_path / 'disk')
    (top / 'gone').symlink_to(tmp_path / 'nowhere')
    paths = [os.path.relpath(os.path.join(where, name), str(top)) for where, names
             in archives.walk_once(str(top), [str(top / 'target')]) for name in names]
    assert paths == ['gone', 'a/1.png', 'b/2.png', 'train/n1/5.png']
