"""data/imagenet/prepare.py on miniature archives with the published structures."""

import io
import os
import subprocess
import sys

import miniatures
import numpy as np
import pytest
from miniatures import CMYK_JPEG, GRAY_JPEG, JPEG, PNG, lines, numbered, tar, tree, write, zipped

from data import lists as list_files
from data.imagenet import prepare
from runtime.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SYNSETS = ['n01440764', 'n01443537', 'n02105855', 'n15075141']  # sorted: labels 0, 1, 2, 3
KIT_ORDER = ['n02105855', 'n15075141', 'n01440764', 'n01443537']  # ids 1, 2, 3, 4
TRAIN = {(wnid, f'{wnid}_{number}.JPEG'): numbered(JPEG, index * 100 + number)
         for index, wnid in enumerate(SYNSETS) for number in (2, 10, 33)[:2 + index % 2]}
# ImageNet's own oddities.
TRAIN['n02105855', 'n02105855_2933.JPEG'] = PNG
TRAIN['n01440764', 'n01440764_10.JPEG'] = CMYK_JPEG
TRAIN['n01443537', 'n01443537_2.JPEG'] = GRAY_JPEG
VAL_CLASSES = [SYNSETS[index] for index in (3, 0, 2, 1, 1, 0, 3, 2)]  # of images 1, 2, ...
VAL = {f'ILSVRC2012_val_{number:08d}.JPEG': numbered(JPEG, 1000 + number)
       for number in range(1, len(VAL_CLASSES) + 1)}
VAL_CLASS = dict(zip(sorted(VAL), VAL_CLASSES))

TRAIN_LIST = [f'train/{wnid}/{name} {SYNSETS.index(wnid)}'
              for wnid, name in sorted(TRAIN)]
VAL_LIST = [f'val/{wnid}/{name} {SYNSETS.index(wnid)}'
            for wnid, name in sorted((wnid, name) for name, wnid in VAL_CLASS.items())]
IMAGES = {f'train/{wnid}/{name}': data for (wnid, name), data in TRAIN.items()}
IMAGES.update((f'val/{VAL_CLASS[name]}/{name}', data) for name, data in VAL.items())


def meta_mat(counts=True):
    """The bytes of a meta.mat: the classes first, in the order of their ids, then inner nodes."""
    from scipy import io as scipy_io
    fields = [('ILSVRC2012_ID', 'O'), ('WNID', 'O'), ('words', 'O'), ('gloss', 'O'),
              ('num_children', 'O'), ('children', 'O'), ('wordnet_height', 'O'),
              ('num_train_images', 'O')]
    synsets = np.zeros((len(KIT_ORDER) + 1, 1), dtype=fields)
    for index, wnid in enumerate(KIT_ORDER + ['n00001740']):
        children = [[]] if wnid in SYNSETS else [[1.0, 2.0, 3.0, 4.0]]
        count = sum(key[0] == wnid for key in TRAIN) if counts else 0
        synsets[index, 0] = (float(index + 1), wnid, 'some words', 'a gloss',
                             float(len(children[0])), np.array(children), 0.0, float(count))
    out = io.BytesIO()
    scipy_io.savemat(out, {'synsets': synsets})
    return out.getvalue()


def devkit(counts=True):
    truth = ''.join(f'{KIT_ORDER.index(wnid) + 1}\n' for wnid in VAL_CLASSES)
    return tar({'ILSVRC2012_devkit_t12/COPYING': b'terms',
                'ILSVRC2012_devkit_t12/data/meta.mat': meta_mat(counts),
                'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt':
                    truth.encode(),
                'ILSVRC2012_devkit_t12/evaluation/demo_eval.m': b'%'}, 'w:gz')


def train_tar(images=TRAIN):
    return tar({wnid + '.tar': tar({name: data for (owner, name), data in images.items()
                                    if owner == wnid}) for wnid in reversed(SYNSETS)})


def annotation(name, wnid):
    box = (f'\t<object>\n\t\t<name>{wnid}</name>\n'
           '\t\t<bndbox>\n\t\t\t<xmin>1</xmin>\n\t\t</bndbox>\n\t</object>\n')
    return (f'<annotation>\n\t<folder>val</folder>\n\t<filename>{name}</filename>\n'
            f'{box * 2}</annotation>\n').encode()


def cls_loc(annotations_first=True):
    """{member: bytes} of ILSVRC2016_CLS-LOC.tar.gz and its like."""
    xml = {f'ILSVRC/Annotations/CLS-LOC/val/{name[:-5]}.xml': annotation(name[:-5], wnid)
           for name, wnid in VAL_CLASS.items()}
    xml['ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_2.xml'] = b'<annotation/>'
    data = {f'ILSVRC/Data/CLS-LOC/train/{wnid}/{name}': content
            for (wnid, name), content in sorted(TRAIN.items(), reverse=True)}
    data.update(('ILSVRC/Data/CLS-LOC/val/' + name, VAL[name]) for name in VAL)
    data['ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_00000001.JPEG'] = JPEG
    names = ''.join(f'{wnid}/{name[:-5]} {number}\n'
                    for number, (wnid, name) in enumerate(sorted(TRAIN), 1))
    sets = {'ILSVRC/ImageSets/CLS-LOC/train_cls.txt': names.encode(),
            'ILSVRC/ImageSets/CLS-LOC/val.txt': b'ILSVRC2012_val_00000001 1\n'}
    members = {}
    for part in (xml, data, sets) if annotations_first else (sets, data, xml):
        members.update(part)
    return members


def extracted(folder, prefix, class_folders):
    """Write train/ and val/ below `folder`/`prefix`; return `folder`."""
    for (wnid, name), data in TRAIN.items():
        write(folder / prefix / 'train' / wnid / name, data)
    for name, data in VAL.items():
        write(folder / prefix / 'val' / (VAL_CLASS[name] if class_folders else '') / name, data)
    return str(folder)


def give_cls_loc(tmp_path):
    return [write(tmp_path / 'ILSVRC2016_CLS-LOC.tar.gz', tar(cls_loc(), 'w:gz'))]


def give_cls_loc_annotations_last(tmp_path):
    return [write(tmp_path / 'ILSVRC2017_CLS-LOC.tar.gz', tar(cls_loc(False), 'w:gz'))]


def give_kaggle_zip(tmp_path):
    return [write(tmp_path / 'imagenet-object-localization-challenge.zip', zipped(cls_loc()))]


def give_three_archives(tmp_path):
    return [write(tmp_path / 'ILSVRC2012_img_train.tar', train_tar()),
            write(tmp_path / 'ILSVRC2012_img_val.tar', tar(VAL)),
            write(tmp_path / 'ILSVRC2012_devkit_t12.tar.gz', devkit())]


def give_class_folders(tmp_path):
    return [extracted(tmp_path / 'imagenet', '', class_folders=True)]


def give_flat_folder_and_annotations(tmp_path):
    for name, wnid in VAL_CLASS.items():
        write(tmp_path / 'i' / 'ILSVRC/Annotations/CLS-LOC/val' / (name[:-5] + '.xml'),
              annotation(name[:-5], wnid))
    return [extracted(tmp_path / 'i', 'ILSVRC/Data/CLS-LOC', class_folders=False)]


def give_flat_folder_and_devkit(tmp_path):
    return [extracted(tmp_path / 'i', '', class_folders=False),
            write(tmp_path / 'ILSVRC2012_devkit_t12.tar.gz', devkit())]


def give_kaggle_with_solution(tmp_path):
    members = {name: data for name, data in cls_loc().items() if '/Annotations/' not in name}
    rows = [f'{name[:-5]},{wnid} 85 1 499 272 {wnid} 1 1 2 2 \n'
            for name, wnid in sorted(VAL_CLASS.items(), reverse=True)]
    members['LOC_val_solution.csv'] = ''.join(['ImageId,PredictionString\n', *rows]).encode()
    return [write(tmp_path / 'imagenet-object-localization-challenge.zip', zipped(members))]


def give_folder_of_the_archives(tmp_path):
    give_three_archives(tmp_path / 'downloads')
    return [str(tmp_path / 'downloads')]


def give_folder_of_class_tars(tmp_path):
    for wnid in SYNSETS:
        write(tmp_path / 'i' / 'train' / (wnid + '.tar'), tar(
            {name: data for (owner, name), data in TRAIN.items() if owner == wnid}))
    write(tmp_path / 'i' / 'val.tar', tar({'./' + name: data for name, data in VAL.items()}))
    return [str(tmp_path / 'i'), write(tmp_path / 'devkit.tar.gz', devkit())]


def give_two_folders(tmp_path):
    folder = extracted(tmp_path / 'imagenet', '', class_folders=True)
    write(tmp_path / 'imagenet' / 'old.tar', b'files next to the two folders are ignored')
    return [os.path.join(folder, 'train'), os.path.join(folder, 'val')]


def hugging_face():
    """{path: bytes} of train_images_0.tar.gz and so on; each name ends in its class."""
    train = {f'{name[:-5]}_{wnid}.JPEG': data for (wnid, name), data in TRAIN.items()}
    val = {f'{name[:-5]}_{VAL_CLASS[name]}.JPEG': data for name, data in VAL.items()}
    half = len(train) // 2
    return {'train_images_0': dict(list(train.items())[:half]),
            'train_images_1': dict(list(train.items())[half:]), 'val_images': val,
            'test_images': {'ILSVRC2012_test_00000001.JPEG': JPEG}}


def give_hugging_face_archives(tmp_path):
    for name, members in hugging_face().items():
        write(tmp_path / 'data' / (name + '.tar.gz'), tar(members, 'w:gz'))
    return [str(tmp_path / 'data')]


def give_hugging_face_folder(tmp_path):
    for folder, members in hugging_face().items():
        for name, data in members.items():
            write(tmp_path / 'data' / folder / name, data)
    return [str(tmp_path / 'data')]


GIVE = [give_cls_loc, give_cls_loc_annotations_last, give_kaggle_zip, give_three_archives,
        give_class_folders, give_flat_folder_and_annotations, give_flat_folder_and_devkit,
        give_kaggle_with_solution, give_folder_of_the_archives, give_folder_of_class_tars,
        give_two_folders, give_hugging_face_archives, give_hugging_face_folder]


def run(sources, target, **options):
    return prepare.prepare(sources, str(target), SYNSETS, train_images=None,
                           val_per_class=len(VAL) // len(SYNSETS), **options)


def lists(target):
    return {name for name in ('train.txt', 'val.txt')
            if os.path.exists(os.path.join(str(target), name))}


def image_bytes(target):
    return {path: data for path, (data, _, _) in tree(target).items()
            if not path.endswith('.txt')}


def check_complete(target):
    assert lines(target / 'train.txt') == TRAIN_LIST
    assert lines(target / 'val.txt') == VAL_LIST
    assert lines(target / 'classes.txt') == SYNSETS
    assert image_bytes(target) == IMAGES


@pytest.mark.parametrize('give', GIVE)
def test_every_source_gives_the_same_images_and_lists_and_again_writes_no_image(tmp_path, give):
    sources, target = give(tmp_path / 'sources'), tmp_path / 'images'
    images = []
    for _ in range(2):
        run(sources, target)
        check_complete(target)
        images.append({path: status for path, status in tree(target).items()
                       if path.endswith('.JPEG')})
    assert images[0] == images[1]


@pytest.fixture(scope='module')
def thousand(tmp_path_factory):
    """A target of all 1,000 classes, one training and one validation image each."""
    folder = tmp_path_factory.mktemp('thousand')
    synsets = prepare.read_synsets(prepare.SYNSETS)
    for wnid in synsets:
        write(folder / 'imagenet' / 'train' / wnid / (wnid + '_1.JPEG'), JPEG)
        write(folder / 'imagenet' / 'val' / wnid / (wnid + '_2.JPEG'), JPEG)
    prepare.prepare([str(folder / 'imagenet')], str(folder / 'images'), synsets, 1000, 1)
    return folder / 'images'


def wnids(path):
    return [line.split('/')[1] for line in lines(path)]


def test_imagenet100_is_the_first_hundred_classes(thousand):
    assert lines(thousand / 'imagenet100' / 'train.txt') == lines(thousand / 'train.txt')[:100]
    assert lines(thousand / 'imagenet100' / 'val.txt') == lines(thousand / 'val.txt')[:100]


def test_imagenet100_random_has_nine_classes_in_common_with_the_first_hundred(thousand):
    """Published results on it say so. Labels are ranks among the ids."""
    drawn = wnids(thousand / 'imagenet100_random' / 'train.txt')
    assert len(drawn) == 100 and drawn == sorted(set(drawn))
    assert len(set(drawn) & set(wnids(thousand / 'train.txt')[:100])) == 9
    assert drawn == wnids(thousand / 'imagenet100_random' / 'val.txt')
    labels = [line.rsplit(' ', 1)[1] for line in lines(thousand / 'imagenet100_random/train.txt')]
    assert labels == [str(label) for label in range(100)]


def test_imagenet100_random_is_the_start_of_the_class_order_of_imagenet1000(thousand):
    train, test = list_files.read_lists(str(thousand), 1000)
    order = list_files.split(train, test, 1000, 0, 1993).order
    ids = wnids(thousand / 'train.txt')
    assert wnids(thousand / 'imagenet100_random' / 'train.txt') == sorted(
        ids[label] for label in order[:100])


@pytest.mark.parametrize('name', sorted(prepare.SUBSETS))
def test_subsets_are_lists_over_the_same_images(thousand, name):
    folder = thousand / name
    assert {split: os.readlink(str(folder / split)) for split in ('train', 'val')} == {
        'train': os.path.join('..', 'train'), 'val': os.path.join('..', 'val')}
    for line in lines(folder / 'val.txt'):
        assert (folder / line.rsplit(' ', 1)[0]).read_bytes() == JPEG


@pytest.mark.parametrize('give', [give_class_folders, give_flat_folder_and_annotations])
def test_folders_are_linked_not_copied(tmp_path, give):
    sources = give(tmp_path / 'sources')
    before = tree(sources[0])
    run(sources, tmp_path / 'images')
    for path, (_, inode, _) in tree(tmp_path / 'images').items():
        if path.endswith('.JPEG'):
            assert inode in [status[1] for status in before.values()]
    assert tree(sources[0]) == before


def test_nothing_but_images_and_lists_is_left(tmp_path):
    run(give_cls_loc_annotations_last(tmp_path / 'sources'), tmp_path / 'images')
    assert sorted(os.listdir(str(tmp_path / 'images'))) == [
        '.lock', '.prepared.json', 'classes.txt', 'train', 'train.txt', 'val', 'val.txt']


@pytest.mark.parametrize('give', GIVE[:4])
@pytest.mark.parametrize('stop_at', [1, len(TRAIN) + 4])
def test_interrupted_and_started_again(tmp_path, give, stop_at):
    sources, target = give(tmp_path / 'sources'), tmp_path / 'images'
    with miniatures.interrupted_after(stop_at):
        run(sources, target)
    before = set(tree(target).values())
    assert len(before) == stop_at and not lists(target)
    run(sources, target)
    check_complete(target)
    assert before <= set(tree(target).values())


def test_archives_one_after_the_other(tmp_path):
    train, val, kit = give_three_archives(tmp_path / 'sources')
    target = tmp_path / 'images'
    for source in (val, train):
        with pytest.raises(UserError, match='class of 8 images is not known.*devkit'):
            run([source], target)
        assert not lists(target)
    run([kit], target)
    check_complete(target)


def missing(tmp_path, sources, **options):
    with pytest.raises(UserError) as error:
        run(sources, tmp_path / 'images', **options)
    assert not lists(tmp_path / 'images')
    assert '\n' not in str(error.value)
    return str(error.value)


def test_missing_validation_image_is_counted_by_class(tmp_path):
    sources = give_three_archives(tmp_path)
    name = 'ILSVRC2012_val_00000002.JPEG'
    write(sources[1], tar({key: data for key, data in VAL.items() if key != name}))
    assert 'val: 7 of 8 images, missing or too many: n01440764 has 1' in missing(tmp_path, sources)
    write(sources[1], tar(VAL))
    write(sources[0], train_tar({key: data for key, data in TRAIN.items() if key[0] != SYNSETS[1]}))
    message = missing(tmp_path / 'without a class', sources)
    assert f'train: 8 of all images, missing or too many: {SYNSETS[1]} has 0' in message
    assert '--allow_missing' in message


def test_missing_images_can_be_allowed(tmp_path, capsys):
    sources = give_three_archives(tmp_path)
    write(sources[1], tar({name: data for name, data in VAL.items() if '2.JPEG' not in name}))
    run(sources, tmp_path / 'images', allow_missing=True)
    assert lines(tmp_path / 'images' / 'val.txt') == [
        line for line in VAL_LIST if '2.JPEG' not in line]
    assert 'val: 7 of 8 images' in capsys.readouterr().err


def test_published_counts_are_the_default(tmp_path):
    assert (prepare.TRAIN_IMAGES, prepare.VAL_PER_CLASS) == (1281167, 50)
    synsets = prepare.read_synsets(prepare.SYNSETS)
    assert len(synsets) == 1000 and synsets == sorted(set(synsets))
    ended = subprocess.run(
        [sys.executable, 'data/imagenet/prepare.py', '--target', str(tmp_path / 'images')]
        + give_three_archives(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith('error: train: 11 of 1281167 images') \
        and 'val: 8 of 50000 images' in ended.stderr and ended.stderr.count('\n') == 1
    assert not lists(tmp_path / 'images')


def test_script_says_what_to_type_next(tmp_path):
    write(tmp_path / 'synsets.txt', '\n'.join(reversed(SYNSETS)).encode())
    ended = subprocess.run(
        [sys.executable, 'data/imagenet/prepare.py', '--target', str(tmp_path / 'images'),
         '--synsets', str(tmp_path / 'synsets.txt'), '--allow_missing']
        + give_cls_loc(tmp_path), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True)
    assert ended.returncode == 0
    assert ended.stderr.startswith('warning: val: 8 of 200 images')
    said = ended.stdout.split('\n')
    assert said[0].startswith('images: 19, ')
    assert said[1].startswith('11 training and 8 test images')
    assert said[2].startswith('next: ') and said[2].endswith(
        ' imagenet_main.py --dataset=folder --num_classes=4 --num_increments=2 '
        f'--data_dir={tmp_path / "images"}')
    assert lines(tmp_path / 'images' / 'train.txt') == TRAIN_LIST


def test_other_classes_are_left_out(tmp_path):
    synsets = [SYNSETS[0], SYNSETS[2]]
    for number, give in enumerate((give_cls_loc_annotations_last, give_three_archives)):
        target = str(tmp_path / str(number))
        prepare.prepare(give(tmp_path / 'sources'), target, synsets, None, 2)
        assert {path.split('/')[1] for path in image_bytes(target)} == set(synsets)
        assert {line[-1] for line in lines(os.path.join(target, 'val.txt'))} == {'0', '1'}


def add_member(tmp_path, name, data):
    members = cls_loc()
    members[name] = data
    return [write(tmp_path / 'a.tar.gz', tar(members, 'w:gz'))]


@pytest.mark.parametrize('name, data, message', [
    ('ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_9.JPEG', JPEG[:-9], 'cut off'),
    ('ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml', b'<annotation/>', 'one class'),
    ('ILSVRC2012_devkit_t12/data/meta.mat', b'MATLAB 5.0 MAT-file', 'meta.mat: damaged')])
def test_member_that_cannot_be_used(tmp_path, name, data, message):
    with pytest.raises(UserError, match=message) as error:
        run(add_member(tmp_path / 'sources', name, data), tmp_path / 'images')
    assert 'a.tar.gz' in str(error.value) or 'meta.mat' in str(error.value) \
        or 'val_00000001.xml' in str(error.value)
    assert not lists(tmp_path / 'images')


def test_class_names_are_the_wordnet_ids_in_label_order(thousand):
    for folder in (thousand, thousand / 'imagenet100', thousand / 'imagenet100_random'):
        names = lines(folder / 'classes.txt')
        assert [names[int(line.rsplit(' ', 1)[1])] for line in lines(folder / 'train.txt')] == \
            wnids(folder / 'train.txt')


@pytest.mark.parametrize('links', [['Data', 'CLS-LOC'], ['train/up', 'zz']])
def test_links_that_lead_back_up(tmp_path, links):
    folder, = give_class_folders(tmp_path / 'sources')
    for name in links:
        os.symlink(folder, os.path.join(folder, name))
    run([folder], tmp_path / 'images')
    check_complete(tmp_path / 'images')


def tiny_imagenet():
    """{path: bytes} of the official layout."""
    found = {'wnids.txt': '\n'.join(SYNSETS).encode(), 'val/images/val_0.JPEG': JPEG,
             'val/val_annotations.txt': b'val_0.JPEG\tn01440764\t0\t0\t62\t62\n'}
    found.update((f'train/{wnid}/images/{wnid}_0.JPEG', JPEG) for wnid in SYNSETS)
    return {'tiny-imagenet-200/' + name: data for name, data in sorted(found.items())}


def test_tiny_imagenet_is_pointed_to_the_other_script(tmp_path):
    for name, data in tiny_imagenet().items():
        write(tmp_path / name, data)
    folder = str(tmp_path / 'tiny-imagenet-200')
    archive = write(tmp_path / 'tiny-imagenet-200.zip', zipped(tiny_imagenet()))
    for source, place in ((folder, folder), (str(tmp_path), folder), (archive, archive)):
        with pytest.raises(UserError, match=place + '.*Tiny ImageNet.*data/folder/prepare.py'):
            run([source], tmp_path / 'images')
        assert os.listdir(str(tmp_path / 'images')) == ['.lock']


def test_a_target_inside_a_folder_of_archives_is_not_a_source(tmp_path):
    folder, = give_folder_of_the_archives(tmp_path)
    target = os.path.join(folder, 'images')
    write(os.path.join(target, 'train', *sorted(TRAIN)[0]), JPEG)  # from an interrupted run
    run([folder], target)
    assert lines(os.path.join(target, 'train.txt')) == TRAIN_LIST


def with_bad_images(images):
    """Replace two images with unusable ones."""
    broken = {'n01443537_10.JPEG': b'oops', 'ILSVRC2012_val_00000003.JPEG': JPEG[:-9]}
    return {key: broken.get(os.path.basename(key), data) for key, data in images.items()}


def archive_with_bad_images(tmp_path, annotations_first):
    members = with_bad_images(cls_loc(annotations_first))
    return [write(tmp_path / 'a.tar.gz', tar(members, 'w:gz'))]


def folder_with_bad_images(tmp_path):
    folder = extracted(tmp_path / 'imagenet', '', class_folders=True)
    for path, data in with_bad_images(IMAGES).items():
        write(os.path.join(folder, path), data)
    return [folder]


@pytest.mark.parametrize('give', [
    lambda path: archive_with_bad_images(path, True),
    lambda path: archive_with_bad_images(path, False), folder_with_bad_images],
    ids=['archive', 'annotations last', 'folder'])
def test_all_bad_images_are_named_and_can_be_left_out(tmp_path, capsys, give):
    sources = give(tmp_path)
    with pytest.raises(UserError, match='bad images: 2 .*--skip_bad_images') as error:
        run(sources, tmp_path / 'images')
    assert '\n' not in str(error.value)
    assert not lists(tmp_path / 'images')
    run(sources, tmp_path / 'images', skip_bad_images=True)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 5 and said[:2] == said[2:4] and said[4].startswith('left out: 2 images')
    assert any('n01443537_10.JPEG: not JPEG, PNG or GIF' in line for line in said)
    assert any('val_00000003.JPEG: cut off' in line for line in said)
    for name, expected in (('train.txt', TRAIN_LIST), ('val.txt', VAL_LIST)):
        assert lines(tmp_path / 'images' / name) == [
            line for line in expected if 'n01443537_10.' not in line and '_00000003.' not in line]


def test_images_prepared_in_place_are_checked_too(tmp_path):
    folder, = folder_with_bad_images(tmp_path)
    with pytest.raises(UserError, match='bad images: 2 '):
        run([folder], folder)
    assert not lists(folder)
    run([folder], folder, skip_bad_images=True)
    assert len(lines(os.path.join(folder, 'train.txt'))) == len(TRAIN_LIST) - 1


@pytest.mark.parametrize('share', [0.5, 0.99])
def test_truncated_archives(tmp_path, share):
    for give in (give_cls_loc, give_three_archives):
        sources = give(tmp_path / 'sources')
        with open(sources[0], 'rb') as file:
            whole = file.read()
        whole = whole.rstrip(b'\0')
        write(sources[0], whole[:int(len(whole) * share)])
        target = tmp_path / give.__name__
        with pytest.raises(UserError, match='damaged or truncated'):
            run(sources, target)
        assert not lists(target)
        for path, data in image_bytes(target).items():  # all written images are complete
            assert data in IMAGES.values(), path


def test_bad_archive_loses_nothing(tmp_path):
    target = tmp_path / 'images'
    sources = give_three_archives(tmp_path / 'sources')
    run(sources, target)
    before = tree(target)
    write(sources[0], b'not a tar' * 1000)
    with pytest.raises(UserError, match='ILSVRC2012_img_train.tar: damaged or'):
        run(sources, target)
    assert tree(target) == before


def test_target_that_links_elsewhere_is_not_written_through(tmp_path):
    target = tmp_path / 'images'
    folder = give_class_folders(tmp_path / 'sources')
    run(folder, target)
    before = tree(folder[0])
    with pytest.raises(UserError, match='is a link to'):
        run(give_three_archives(tmp_path / 'archives'), target)
    assert tree(folder[0]) == before


def test_other_sources(tmp_path):
    for make, message in (
            (lambda path: str(path), 'No such file'),
            (lambda path: write(path / 'a.tar', tar({'readme': b'x'})), 'train: 0 of.*README.md'),
            (lambda path: os.path.dirname(write(path / 'readme', b'x')), 'val: 0 of.*README.md'),
            (lambda path: extracted(path, '', class_folders=False), 'not known.*devkit')):
        with pytest.raises((UserError, OSError), match=message):
            run([make(tmp_path / message[:5])], tmp_path / 'images')


@pytest.mark.parametrize('text, message', [
    (b'n01440764\nn0144', "line 2: 'n0144'"), (b'n01440764x', 'line 1'), (b'\n', 'line 1'),
    (b'', 'line 1'), (b'n01440764\nT\xe4nzer', 'line 2')])
def test_synsets_file(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        prepare.read_synsets(write(tmp_path / 's', text))
