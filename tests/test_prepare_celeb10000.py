"""data/celeb10000/prepare.py on small folders and archives of faces."""
import os

import miniatures
import pytest
from miniatures import JPEG, PNG, lines, numbered, refused, tar, tree, write, write_all, zipped

from data.celeb10000 import prepare

# Person p has 4 + p % 4 faces: 12 of 16 people have at least 5.
FACES = {f'm.{person:03d}/{face}-FaceId-0.jpg': numbered(JPEG, person * 100 + face)
         for person in range(16) for face in range(4 + person % 4)}
OPTIONS = {'num_classes': 8, 'test_images': 2, 'min_images': 5}


def faces(folder, **changed):
    return write_all(folder, dict(FACES, **{'readme.txt': b'terms'}, **changed))


def run(sources, target, **options):
    prepare.prepare(sources, str(target), **dict(OPTIONS, **options))
    return lines(target / 'train.txt'), lines(target / 'val.txt')


def people(lists):
    return {line.split('/')[1]: int(line.rsplit(' ', 1)[1]) for part in lists for line in part}


def test_people_labels_and_split_of_a_linked_folder(tmp_path):
    source = faces(tmp_path / 'source')
    before = tree(source)
    train, test = lists = run([source], tmp_path / 'images')
    assert sorted(os.listdir(str(tmp_path / 'images'))) == [
        '.lock', '.prepared.json', 'classes.txt', 'faces', 'train.txt', 'val.txt']
    assert os.path.samefile(str(tmp_path / 'images' / 'faces'), source)
    assert tree(source) == before
    chosen = people(lists)
    assert len(chosen) == 8
    assert [chosen[person] for person in sorted(chosen)] == list(range(8))
    # Every face of the chosen is in one list, two of each in the test list; both are sorted.
    listed = [line.rsplit(' ', 1)[0] for line in train + test]
    assert sorted(listed) == sorted('faces/' + name for name in FACES
                                    if name.split('/')[0] in chosen)
    assert sorted(int(line.rsplit(' ', 1)[1]) for line in test) == sorted(list(range(8)) * 2)
    assert train == sorted(train) and test == sorted(test)
    assert lines(tmp_path / 'images' / 'classes.txt') == sorted(chosen)


def test_the_seed_decides_the_lists(tmp_path):
    """Another NumPy version or machine must choose the same people."""
    source = faces(tmp_path / 'faces')
    lists = [run([source], tmp_path / 'images', seed=seed) for seed in [prepare.SEED, *range(5)]]
    assert sorted(people(lists[0])) == [f'm.{person:03d}' for person in (1, 3, 5, 6, 7, 9, 10, 11)]
    assert lists[0][1][:4] == ['faces/m.001/0-FaceId-0.jpg 0', 'faces/m.001/2-FaceId-0.jpg 0',
                               'faces/m.003/2-FaceId-0.jpg 1', 'faces/m.003/4-FaceId-0.jpg 1']
    assert len({tuple(people(part)) for part in lists}) > 1
    assert len({tuple(test) for _, test in lists}) > 1


@pytest.mark.parametrize('make', [
    lambda: tar(FACES, 'w:gz'), lambda: zipped(FACES),
    lambda: zipped({name.replace('/', '\\'): FACES[name] for name in FACES}),
    lambda: tar({'./' + name: FACES[name] for name in sorted(FACES, reverse=True)})],
    ids=['tar.gz', 'zip', 'zip made on Windows', 'tar in another order'])
def test_an_archive_gives_the_lists_of_the_folder_and_only_their_images(tmp_path, make):
    first = run([faces(tmp_path / 'faces')], tmp_path / '1')
    assert run([write(tmp_path / 'faces.tar', make())], tmp_path / '2') == first
    chosen = people(first)
    assert {path: status[0] for path, status in tree(tmp_path / '2').items()
            if path.startswith('faces')} == {
        'faces/' + name: data for name, data in FACES.items() if name.split('/')[0] in chosen}


def test_several_sources_make_one_data_set(tmp_path):
    one = faces(tmp_path / 'one')
    two = write(tmp_path / 'two.tar', tar({f'test/n1/{face}.png': PNG + bytes([face])
                                           for face in range(9)}))
    (tmp_path / 'link').symlink_to(one)  # the same people as in `one`
    lists = run([one, two, str(tmp_path / 'link')], tmp_path / 'images', num_classes=13)
    assert people(lists)['test'] == 12  # faces2/ is sorted after faces/
    assert sum(line.startswith('faces2/test/n1/') for line in lists[0]) == 7
    assert all((tmp_path / 'images' / line.rsplit(' ', 1)[0]).is_file()
               for part in lists for line in part)
    assert lines(tmp_path / 'images' / 'classes.txt')[10:] == ['m.014', 'm.015', 'test/n1']
    assert prepare.class_names(['faces/a', 'faces2/a']) == ['faces/a', 'faces2/a']


def test_targets_hidden_folders_and_odd_members_are_not_people(tmp_path, capsys):
    expected = run([faces(tmp_path / 'faces')], tmp_path / 'images')
    for target in (tmp_path / 'faces' / 'lists', tmp_path / 'faces'):
        for _ in range(2):  # files and links of the first start are not faces
            assert run([str(tmp_path / 'faces')], target) == expected
    hidden = {f'.Trash-1/files/m.999/{number}.jpg': JPEG for number in range(9)}
    odd = {'../m.001/out.jpg': JPEG, 'm.001/out\\.jpg': JPEG, 'm.001/out\n.jpg': JPEG}
    assert run([faces(tmp_path / 'hidden', **hidden)], tmp_path / '1') == expected
    archive = write(tmp_path / 'faces.tar', tar({**FACES, **hidden, **odd}))
    assert run([archive], tmp_path / '2') == expected
    assert capsys.readouterr().err.count('skipped 3 ') == 1  # of two passes
    assert not [name for _, _, names in os.walk(str(tmp_path)) for name in names if 'out' in name]


def test_a_face_that_is_not_an_image_is_named_and_can_be_left_out(tmp_path):
    source = faces(tmp_path / 'faces')
    whole = run([source], tmp_path / 'whole')
    bad = whole[1][6].split(' ')[0][len('faces/'):]  # a test image of the fourth person
    archive = write(tmp_path / 'faces.tar', tar(dict(FACES, **{bad: b'<html>'})))
    (tmp_path / 'faces' / bad).unlink()
    (tmp_path / 'faces' / bad).symlink_to(tmp_path / 'nowhere')
    for path, why in ((source, 'No such file'), (archive, 'HTML')):
        target = tmp_path / why
        with refused(f'{bad}: {why}'):
            run([path], target)
        assert not (target / 'train.txt').exists()
        train, test = run([path], target, skip_bad_images=True)
        assert sorted(train + test) == sorted(line for line in whole[0] + whole[1]
                                              if bad not in line)
        for part in train, test:
            assert part == sorted(part, key=lambda line: line.split(' ')[::-1])  # label, path
        assert len(test) == 8 * 2 and len(set(whole[1]).difference(test)) == 1


def test_too_few_people_name_the_remedy(tmp_path):
    source = faces(tmp_path / 'faces')
    for options, message in (
            ({'num_classes': 10000, 'min_images': 13}, '0 of 16 people .* 13 images, 10000 are'),
            ({'num_classes': 10000, 'min_images': 12}, 'at least 13: 2 to test with, 10 to hold'),
            ({'num_classes': 12, 'min_images': 7}, 'another source, use --min_images=5 or'),
            ({'num_classes': 16, 'min_images': 7}, 'another source or'),
            ({'min_images': 4}, '--min_images=4 must be at least 5: 2 to test with, 2 to hold')):
        with refused(message):
            run([source], tmp_path / 'images', **options)
    with pytest.raises(FileNotFoundError):
        run([str(tmp_path / 'none')], tmp_path / 'images')


def test_the_printed_command_leaves_images_to_train_on(tmp_path, capsys):
    # Without the 5 test images and the bad ones, 3, 6, 4 and 0.
    for count, bad, steps in ((8, 0, 2), (11, 0, 4), (11, 2, 2), (8, 8, 2)):
        source = write_all(tmp_path / f'{count} faces, {bad} bad', {
            f'{person}/{face}.jpg': b'<html>' if face < bad else JPEG
            for person in range(8) for face in range(count)})
        prepare.main([source, '--num_classes=8', f'--min_images={count}', '--skip_bad_images',
                      '--target', str(tmp_path / f'{count}, {bad}')])
        assert f' --num_classes=8 --num_increments={steps} --data_dir=' in capsys.readouterr().out


def test_an_interrupted_start_is_resumed_and_what_decoding_ignores_is_counted(tmp_path, capsys):
    whole = run([faces(tmp_path / 'faces')], tmp_path / 'whole')
    rgba = PNG[:25] + b'\6' + PNG[26:]
    archive = write(tmp_path / 'faces.tar', tar(dict(FACES, **{
        f'{person}/0-FaceId-0.jpg': rgba for person in sorted(people(whole))[::3]})))
    target = tmp_path / 'images'
    miniatures.check_resumes(lambda: run([archive], target), target, 20)
    assert f'3 of {len(whole[0] + whole[1])} images have transparency' in capsys.readouterr().out
    assert run([archive], target) == whole
