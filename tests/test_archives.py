"""Archives that are not trusted, folders with loops, full disks, images left half written."""

import errno
import gzip
import io
import os
import stat
import tarfile
import zipfile

import pytest
from miniatures import CMYK_JPEG, GRAY_JPEG, JPEG, PNG, refused, tar, write, write_all, zipped

from data import archives, scripts
from runtime import files

FILES = {'a/one.JPEG': JPEG, 'a/two.JPEG': PNG, 'b/empty': b'', 'b/block': b'x' * 512,
         'c/' + 'long' * 60 + '/name.JPEG': GRAY_JPEG, 'umläut/ß.JPEG': CMYK_JPEG}


def contents(path):
    return {member.name: member.read() for member in archives.members(path)}


@pytest.mark.parametrize('archive', [
    tar(FILES, format=tarfile.GNU_FORMAT), tar(FILES, 'w:gz', format=tarfile.PAX_FORMAT),
    zipped(FILES)], ids=['tar', 'tar.gz', 'zip'])
def test_archive_is_read_whole_and_in_order(tmp_path, archive):
    assert list(contents(write(tmp_path / 'a', archive)).items()) == list(FILES.items())


def test_tar_in_tar_skips_what_is_not_read(tmp_path):
    inner = tar(FILES)
    for mode in ('w', 'w:gz'):
        path = write(tmp_path / 'outer', tar({'1.tar': inner, '2.tar': inner, 'end': b'end'}, mode))
        expected = {tar_name + name: data for tar_name in ('1.tar/', '2.tar/')
                    for name, data in FILES.items()}
        expected['end'] = b'end'
        seen = []
        for position, member in enumerate(archives.members(path)):
            seen.append(member.name)
            if position % 2 == 0:
                assert member.read() == expected[member.name]
        assert seen == list(expected)


def test_odd_members_of_a_tar_are_skipped_and_counted(tmp_path, capsys):
    members = {'a.JPEG': JPEG}
    for name in ('../out.JPEG', 'a/../../out.JPEG', 'a/..', 'a\nb.JPEG', '..\\out.JPEG'):
        members[name] = JPEG
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b'V'):
        members[kind] = tarfile.TarInfo('a/odd.JPEG')
        members[kind].type, members[kind].linkname = kind, '/etc/passwd'
    members['b.JPEG'] = PNG
    path = write(tmp_path / 'faces.tar', tar(members))
    assert contents(path) == {'a.JPEG': JPEG, 'b.JPEG': PNG}
    said = capsys.readouterr().err
    assert 'faces.tar' in said and 'skipped 10 ' in said and said.count('\n') == 1


def test_odd_members_of_a_zip_are_skipped_and_counted(tmp_path, capsys):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as file:
        for name, kind in (('link.JPEG', stat.S_IFLNK), ('../up.JPEG', stat.S_IFREG),
                           ('m.1\\made on Windows.JPEG', 0), ('m.1/', stat.S_IFDIR)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o777) << 16
            file.writestr(info, b'' if name[-1] == '/' else JPEG)
    path = write(tmp_path / 'a.zip', out.getvalue())
    assert contents(path) == {'m.1/made on Windows.JPEG': JPEG}
    assert 'skipped 2 ' in capsys.readouterr().err


@pytest.mark.parametrize('whole', [
    tar(FILES).rstrip(b'\0') + b'\0' * 512, tar(FILES, 'w:gz'), zipped(FILES)],
    ids=['tar', 'gz', 'zip'])
def test_truncated_anywhere_is_an_error(tmp_path, whole):
    for length in list(range(0, len(whole) - 512, 101)) + [len(whole) - 513]:
        with refused('cut: '):
            contents(write(tmp_path / 'cut', whole[:length]))


def test_inner_tar_cannot_read_beyond_itself(tmp_path):
    inner = tar({'one': b'x' * 2000})[:1024]  # claims 2,000 bytes, has 512
    path = write(tmp_path / 'outer', tar({'in.tar': inner, 'secret': b's' * 4096}))
    with refused('in.tar/one.*(damaged|truncated)'):
        contents(path)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1:]


TWO_BLOCKS = tar({'a': b'x' * 512, 'b': b'y' * 512})


@pytest.mark.parametrize('data', [
    b'', b'<html>not found</html>', gzip.compress(b'text' * 500),
    flipped(TWO_BLOCKS, 1027),  # a header in the middle, which the standard library takes for
    TWO_BLOCKS[:1024],  # the end, as it takes the border between two members
    flipped(gzip.compress(TWO_BLOCKS), 40), flipped(gzip.compress(TWO_BLOCKS), -5)],
    ids=['empty', 'HTML', 'gzip of text', 'header', 'end missing', 'gzip', 'checksum'])
def test_damaged_archive_is_named(tmp_path, data):
    with refused('page.tar: damaged or truncated'):
        contents(write(tmp_path / 'page.tar', data))


@pytest.mark.parametrize('size', [b'77777777777\0', b'-0000000001\0', b'\xff' * 12])
def test_a_tar_with_a_false_size_is_refused(tmp_path, size):
    header = bytearray(tar({'a': b'x'})[:512])
    header[124:136] = size
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header)
    with refused('bad: '):
        contents(write(tmp_path / 'bad', bytes(header) + bytes(2048)))


@pytest.fixture
def member(tmp_path):
    members = archives.members(write(tmp_path / 'a.tar', tar({'n/one.JPEG': JPEG})))
    yield next(members)
    members.close()


def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, member):
    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:100])
            if len(data) > 100:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write(tmp_path / 'train.txt', b'old')
    monkeypatch.setattr(files, 'open', Full, raising=False)
    with pytest.raises(OSError, match='No space left'):
        archives.extract(member, str(tmp_path), 'out', 'one.JPEG', {})
    with pytest.raises(OSError, match='No space left'):
        scripts.write_file(path, b'x' * 200)
    assert {file for _, _, files in os.walk(str(tmp_path)) for file in files} == {
        'a.tar', 'train.txt'}
    assert (tmp_path / 'train.txt').read_bytes() == b'old'


@pytest.mark.parametrize('half', [JPEG[:50], bytes(len(JPEG)), JPEG[:-4] + bytes(4)],
                         ids=['short', 'zeros', 'zeros at the end'])
def test_what_a_crash_left_short_is_written_again(tmp_path, member, half):
    write(tmp_path / 'train' / 'n' / 'one.JPEG', half)
    archives.extract(member, str(tmp_path), 'train/n', 'one.JPEG', {})
    assert (tmp_path / 'train' / 'n' / 'one.JPEG').read_bytes() == JPEG


def test_bad_images_are_counted_by_kind(capsys):
    bad = {'a.jpg': 'x/a.jpg: animated GIF (2 frames, save one)', 'b.jpg': 'x/b.jpg: cut off',
           'c.jpg': 'x/c.jpg: animated GIF (9 frames, save one)'}
    with refused('3 .*2 animated GIF, 1 cut off.*x/a.jpg.*--skip_bad'):
        archives.report_bad_images(bad, False)
    archives.report_bad_images(bad, True)
    assert 'left out: 3 images (2 animated GIF, 1 cut off)' in capsys.readouterr().err


def test_each_real_folder_is_walked_once(tmp_path):
    for name in ('a/1.png', 'b/2.png', '.hidden/3.png', 'target/4.png'):
        write(tmp_path / name, PNG)
    for name in ('Data', 'CLS-LOC', 'a/up', 'b/up', 'zz'):
        (tmp_path / name).symlink_to(tmp_path)
    (tmp_path / 'A').symlink_to('b')  # is sorted before it, and still b is called b
    found = [os.path.relpath(os.path.join(where, name), str(tmp_path)) for where, _, names
             in archives.walk_once(str(tmp_path), [str(tmp_path / 'target')]) for name in names]
    assert found == ['a/1.png', 'b/2.png']


def test_folder_outside_is_walked_through_its_link(tmp_path):
    write(tmp_path / 'disk' / 'n1' / '1.png', PNG)
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'train').symlink_to(tmp_path / 'disk')
    (tmp_path / 'data' / 'gone').symlink_to(tmp_path / 'nowhere')
    assert [(where, names) for where, _, names in archives.walk_once(str(tmp_path / 'data'))
            if names != ['gone']][-1] == (str(tmp_path / 'data/train/n1'), ['1.png'])


def test_names_are_sorted_by_code_point_and_hidden_ones_left_out(tmp_path):
    write_all(tmp_path, dict.fromkeys(
        ['b.JPEG', 'B.JPEG', 'a_10.png', 'a_9.png', '._b.JPEG', 'ä.png', 'folder.d/c.png'], PNG))
    # Without a known suffix, the content counts.
    write_all(tmp_path, {'one': JPEG, 'two.img': PNG, 'three': b'text', '.four': PNG})
    assert archives.image_names(str(tmp_path)) == [
        'B.JPEG', 'a_10.png', 'a_9.png', 'b.JPEG', 'one', 'two.img', 'ä.png']
