"""data/imagenet/prepare.py on miniature archives with the published structures."""
import io
import os

import miniatures
import numpy as np
import pytest
from miniatures import JPEG, lines, numbered, refused, tar, tree, write, write_all, zipped

from data import lists as list_files
from data.imagenet import prepare

CLS_LOC = 'ILSVRC/Data/CLS-LOC/'
SYNSETS = ['n01440764', 'n01443537', 'n02105855', 'n15075141']  # sorted: labels 0, 1, 2, 3
KIT_ORDER = ['n02105855', 'n15075141', 'n01440764', 'n01443537']  # ids 1, 2, 3, 4
TRAIN = {f'{wnid}/{wnid}_{number}.JPEG': numbered(JPEG, index * 100 + number)
         for index, wnid in enumerate(SYNSETS) for number in (2, 10, 33)[:2 + index % 2]}
# ImageNet's own oddities.
TRAIN['n02105855/n02105855_2933.JPEG'] = miniatures.PNG
TRAIN['n01440764/n01440764_10.JPEG'] = miniatures.CMYK_JPEG
TRAIN['n01443537/n01443537_2.JPEG'] = miniatures.GRAY_JPEG
VAL_CLASSES = [SYNSETS[index] for index in (3, 0, 2, 1, 1, 0, 3, 2)]  # of images 1, 2, ...
VAL_CLASS = {f'ILSVRC2012_val_{number:08d}': wnid for number, wnid in enumerate(VAL_CLASSES, 1)}
VAL = {name + '.JPEG': numbered(JPEG, 1001 + i) for i, name in enumerate(VAL_CLASS)}

IMAGES = {'train/' + path: data for path, data in TRAIN.items()}
IMAGES.update((f'val/{wnid}/{name}.JPEG', VAL[name + '.JPEG']) for name, wnid in VAL_CLASS.items())
TRAIN_LIST, VAL_LIST = (
    [f'{path} {SYNSETS.index(path.split("/")[1])}' for path in sorted(IMAGES)
     if path.startswith(split)] for split in ('train/', 'val/'))

# -- the sources ------------------------------------------------------------------------------

def meta_mat():
    """Return the bytes of a meta.mat: the classes in the order of their ids, then inner nodes."""
    from scipy import io as scipy_io
    rows = [[(float(number), wnid, 'some words')]
            for number, wnid in enumerate(KIT_ORDER + ['n00001740'], 1)]
    out = io.BytesIO()
    scipy_io.savemat(out, {'synsets': np.array(
        rows, [('ILSVRC2012_ID', 'O'), ('WNID', 'O'), ('words', 'O')])})
    return out.getvalue()


def devkit(folder):
    truth = ''.join(f'{KIT_ORDER.index(wnid) + 1}\n' for wnid in VAL_CLASSES).encode()
    return write(folder / 'ILSVRC2012_devkit_t12.tar.gz', tar({
        'ILSVRC2012_devkit_t12/COPYING': b'terms',
        'ILSVRC2012_devkit_t12/data/meta.mat': meta_mat(),
        'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt': truth}, 'w:gz'))


def class_tars():
    return {wnid + '.tar': tar({os.path.basename(path): data for path, data in TRAIN.items()
                                if path.startswith(wnid)}) for wnid in reversed(SYNSETS)}


def three_archives(folder):
    return [write(folder / 'ILSVRC2012_img_train.tar', tar(class_tars())),
            write(folder / 'ILSVRC2012_img_val.tar', tar(VAL)), devkit(folder)]


def annotations():
    box = '\t<object>\n\t\t<name>{}</name>\n\t\t<bndbox></bndbox>\n\t</object>\n'
    return {f'ILSVRC/Annotations/CLS-LOC/val/{name}.xml':
            f'<annotation>\n\t<folder>val</folder>\n{box.format(wnid) * 2}</annotation>\n'.encode()
            for name, wnid in VAL_CLASS.items()}


def flat(folder=''):
    """Return {path: bytes} of the images, with those for validation in one folder."""
    files = {f'{folder}train/{path}': TRAIN[path] for path in sorted(TRAIN, reverse=True)}
    return dict(files, **{f'{folder}val/{name}': data for name, data in VAL.items()})


def cls_loc(annotations_first=True):
    """Return {path: bytes} of ILSVRC2016_CLS-LOC.tar.gz and similar archives."""
    xml = dict(annotations(), **{
        'ILSVRC/Annotations/CLS-LOC/train/n01440764/n01440764_2.xml': b'<annotation/>'})
    images = dict(flat(CLS_LOC), **{CLS_LOC + 'test/ILSVRC2012_test_00000001.JPEG': JPEG})
    sets = {'ILSVRC/ImageSets/CLS-LOC/val.txt': b'ILSVRC2012_val_00000001 1\n'}
    return {**xml, **images, **sets} if annotations_first else {**sets, **images, **xml}


def kaggle():
    """Return {path: bytes}, with the classes of the validation images in a table."""
    rows = [f'{name},{wnid} 85 1 499 272 {wnid} 1 1 2 2 \n'
            for name, wnid in sorted(VAL_CLASS.items(), reverse=True)]
    return dict(flat(CLS_LOC), **{
        'LOC_val_solution.csv': ''.join(['ImageId,PredictionString\n', *rows]).encode()})


def hugging_face():
    """Return {folder: {name: bytes}} of the Hugging Face copy. Each name ends in its class."""
    train = [(f'{path[10:-5]}_{path[:9]}.JPEG', data) for path, data in TRAIN.items()]
    return {'train_images_0': dict(train[::2]), 'train_images_1': dict(train[1::2]),
            'val_images': {f'{name}_{wnid}.JPEG': VAL[name + '.JPEG']
                           for name, wnid in VAL_CLASS.items()},
            'test_images': {'ILSVRC2012_test_00000001.JPEG': JPEG}}


SOURCES = {  # functions that write them under a folder and return their paths
    'CLS-LOC': lambda folder: [write(folder / 'CLS-LOC.tar.gz', tar(cls_loc(), 'w:gz'))],
    'annotations last': lambda folder: [write(folder / 'a.tgz', tar(cls_loc(False), 'w:gz'))],
    'Kaggle': lambda folder: [write(folder / 'kaggle.zip', zipped(kaggle()))],
    'three archives': three_archives,
    'folder of archives': lambda folder: [os.path.dirname(three_archives(folder)[0])],
    'folder of class tars': lambda folder: [
        write_all(folder / 'train', class_tars()), devkit(folder),
        write(folder / 'val.tar', tar({'./' + name: data for name, data in VAL.items()}))],
    'class folders': lambda folder: [write_all(folder, dict(IMAGES, **{'old.tar': b'not read'}))],
    'two folders': lambda folder: [os.path.join(write_all(folder, IMAGES), split)
                                   for split in ('train', 'val')],
    'flat folder and annotations': lambda folder: [
        write_all(folder, dict(flat(CLS_LOC), **annotations()))],
    'flat folder and development kit': lambda folder: [
        write_all(folder / 'images', flat()), devkit(folder)],
    'Hugging Face archives': lambda folder: [write_all(folder, {
        f'{part}.tar.gz': tar(files, 'w:gz') for part, files in hugging_face().items()})],
    'Hugging Face folder': lambda folder: [write_all(folder, {
        f'{part}/{name}': data for part, files in hugging_face().items()
        for name, data in files.items()})]}

# -- images and lists -------------------------------------------------------------------------

def run(sources, target, **options):
    return prepare.prepare(sources, str(target), SYNSETS, train_images=None,
                           val_per_class=len(VAL) // len(SYNSETS), **options)


def has_lists(target):
    return any(os.path.exists(os.path.join(str(target), name)) for name in ('train.txt', 'val.txt'))


def images_of(target):
    """Return {path: (bytes, inode, time)} of the images under the target."""
    return {path: status for path, status in tree(target).items() if not path.endswith('.txt')}


def check_complete(target):
    assert lines(target / 'train.txt') == TRAIN_LIST
    assert lines(target / 'val.txt') == VAL_LIST
    assert lines(target / 'classes.txt') == SYNSETS
    assert {path: status[0] for path, status in images_of(target).items()} == IMAGES
    assert sorted(os.listdir(str(target))) == [
        '.lock', '.prepared.json', 'classes.txt', 'train', 'train.txt', 'val', 'val.txt']


@pytest.mark.parametrize('kind', sorted(SOURCES))
def test_every_source_gives_the_same_images_and_lists_and_again_writes_no_image(tmp_path, kind):
    sources, target = SOURCES[kind](tmp_path / 'sources'), tmp_path / 'images'
    run(sources, target)
    check_complete(target)
    before = images_of(target)
    run(sources, target)
    check_complete(target)
    assert images_of(target) == before


@pytest.mark.parametrize('kind', ['class folders', 'flat folder and annotations'])
def test_folders_are_linked_not_copied_and_never_written_into(tmp_path, kind):
    """Links in a source that point to a parent folder are harmless."""
    folder, = SOURCES[kind](tmp_path / 'sources')
    before, target = tree(folder), tmp_path / 'images'
    loops = [tmp_path / 'sources' / name for name in ('Data', 'CLS-LOC', 'zz')]
    for loop in loops:
        loop.symlink_to(folder)
    run([folder], target)
    check_complete(target)
    for loop in loops:
        loop.unlink()
    assert {status[1] for status in images_of(target).values()} <= {
        status[1] for status in before.values()}
    with refused('is a link to'):
        run(three_archives(tmp_path / 'archives'), target)
    assert tree(folder) == before


@pytest.mark.parametrize('kind', ['annotations last', 'folder of archives'])
@pytest.mark.parametrize('stop_at', [1, len(TRAIN) + 4])
def test_an_interrupted_start_is_resumed(tmp_path, kind, stop_at):
    """A target inside the source folder, with the images of the first start, is not read."""
    sources, target = SOURCES[kind](tmp_path / 'sources'), tmp_path / 'sources' / 'images'
    miniatures.check_resumes(lambda: run(sources, target), target, stop_at)
    check_complete(target)


def test_archives_can_be_added_one_at_a_time(tmp_path):
    train, val, kit = three_archives(tmp_path / 'sources')
    for last in (kit, SOURCES['two folders'](tmp_path / 'sources')[1]):
        target = tmp_path / os.path.basename(last)
        for source in (val, train):
            with refused('class of 8 images is not known.*devkit'):
                run([source], target)
            assert not has_lists(target)
        run([last], target)
        check_complete(target)


def test_classes_outside_the_synsets_file_are_left_out(tmp_path):
    """Their bad images do not matter."""
    synsets = [SYNSETS[0], SYNSETS[2]]
    for name, sources in (
            ('1', [write(tmp_path / 'a.tgz', tar(with_bad_images(cls_loc(False)), 'w:gz'))]),
            ('2', three_archives(tmp_path / 'sources'))):
        target = tmp_path / name
        prepare.prepare(sources, str(target), synsets, None, 2)
        assert {path: status[0] for path, status in images_of(target).items()} == {
            path: data for path, data in IMAGES.items() if path.split('/')[1] in synsets}
        assert {line[-1] for line in lines(target / 'val.txt')} == {'0', '1'}


def test_subsets_of_100_classes_are_lists_over_the_same_images(tmp_path):
    """Both subsets share nine classes, as publications on imagenet100_random report."""
    synsets, target = prepare.read_synsets(prepare.SYNSETS), tmp_path / 'images'
    source = write_all(tmp_path / 'imagenet', {
        f'{split}/{wnid}/{wnid}_1.JPEG': JPEG for wnid in synsets for split in ('train', 'val')})
    prepare.prepare([source], str(target), synsets, 1000, 1)
    assert len(synsets) == 1000 and lines(target / 'classes.txt') == synsets == sorted(set(synsets))
    train, test = list_files.read_lists(str(target), 1000)
    order = list_files.make_split(train, test, 1000, 0, 1993).order  # of imagenet1000
    drawn = sorted(synsets[label] for label in order[:100])
    assert len(set(drawn) & set(synsets[:100])) == 9
    for name, expected in (('imagenet100', synsets[:100]), ('imagenet100_random', drawn)):
        folder = target / name
        assert lines(folder / 'classes.txt') == expected
        for split in ('train', 'val'):
            assert os.readlink(str(folder / split)) == os.path.join('..', split)
            assert lines(folder / (split + '.txt')) == [
                f'{split}/{wnid}/{wnid}_1.JPEG {label}' for label, wnid in enumerate(expected)]


def test_the_command_for_the_classes_of_a_subset_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, 'VAL_PER_CLASS', 1)
    synsets = prepare.read_synsets(prepare.SYNSETS)[:100]
    source = write_all(tmp_path / 'imagenet', {
        f'{split}/{wnid}/{wnid}_1.JPEG': JPEG for wnid in synsets for split in ('train', 'val')})
    for count, dataset in (
            (100, 'imagenet100'), (99, 'folder --num_classes=99 --num_increments=9')):
        file = write(tmp_path / 'synsets', '\n'.join(synsets[:count]).encode())
        prepare.main([source, '--synsets', file, '--target', str(tmp_path / str(count))])
        assert f' --dataset={dataset} --data_dir=' in capsys.readouterr().out


# -- what is missing or bad -------------------------------------------------------------------

def test_a_missing_scipy_is_named(monkeypatch):
    monkeypatch.setattr(prepare.runtime.environment, 'package_folder', lambda _: None)
    with refused('^kit: .*`python -m pip install scipy`'):
        prepare.read_meta(b'', 'kit')


def test_missing_images_are_counted_by_class_and_can_be_allowed(tmp_path, capsys):
    sources, target = three_archives(tmp_path), tmp_path / 'images'
    write(sources[1], tar({name: data for name, data in VAL.items() if '2.JPEG' not in name}))
    with refused('val: 7 of 8 images, missing or too many: n01440764 has 1.*--allow_missing'):
        run(sources, target)
    assert not has_lists(target)
    run(sources, target, allow_missing=True)
    assert lines(target / 'val.txt') == [line for line in VAL_LIST if '2.JPEG' not in line]
    assert 'val: 7 of 8 images' in capsys.readouterr().err
    write(sources[0], tar({name: data for name, data in class_tars().items()
                           if not name.startswith(SYNSETS[1])}))
    with refused(f'train: 8 images, missing or too many: {SYNSETS[1]} has 0'):
        run(sources, tmp_path / 'without a class')


def test_archives_next_to_images_are_named_if_images_are_missing(tmp_path):
    sources = three_archives(tmp_path / 'data')
    write_all(tmp_path / 'data', {path: data for path, data in IMAGES.items()
                                  if path.startswith('val/')})
    with refused(f'train: 0 images. Archives next to images .*: {sources[-1]}, .*{sources[0]}'):
        run([str(tmp_path / 'data')], tmp_path / 'images')
    with refused(f'names them: {sources[0]}, {sources[1]}. Add'):
        run([str(tmp_path / 'data'), sources[2]], tmp_path / 'images')


# Both of class SYNSETS[1].
BAD = {'n01443537_10.JPEG': miniatures.gif(2), 'ILSVRC2012_val_00000004.JPEG': JPEG[:-9]}


def with_bad_images(files):
    return {path: BAD.get(os.path.basename(path), data) for path, data in files.items()}


@pytest.mark.parametrize('make', [
    lambda path: write(path / 'a.tar.gz', tar(with_bad_images(cls_loc()), 'w:gz')),
    lambda path: write(path / 'a.tar.gz', tar(with_bad_images(cls_loc(False)), 'w:gz')),
    lambda path: write_all(path / 'imagenet', with_bad_images(IMAGES)),
    lambda path: write_all(path / 'images', with_bad_images(IMAGES))],
    ids=['archive', 'annotations last', 'folder', 'in place'])
def test_all_bad_images_are_named_and_can_be_left_out(tmp_path, capsys, make):
    source, target = make(tmp_path), tmp_path / 'images'
    with refused('bad images: 2 .*--skip_bad_images'):
        run([source], target)
    assert not has_lists(target)
    run([source], target, skip_bad_images=True)
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 5 and err[:2] == err[2:4] and err[4].startswith('left out: 2 images')
    assert any('n01443537_10.JPEG: animated GIF' in line for line in err)
    assert any('val_00000004.JPEG: cut off' in line for line in err)
    for name, expected in (('train.txt', TRAIN_LIST), ('val.txt', VAL_LIST)):
        assert lines(target / name) == [
            line for line in expected if 'n01443537_10.' not in line and '_00000004.' not in line]


@pytest.mark.parametrize('kind', ['CLS-LOC', 'three archives'])
def test_a_damaged_archive_gives_no_lists_and_loses_no_images(tmp_path, kind):
    sources, target = SOURCES[kind](tmp_path / 'sources'), tmp_path / 'images'
    with open(sources[0], 'rb') as file:
        whole = file.read()
    write(sources[0], whole[:len(whole.rstrip(b'\0')) // 2])
    with refused(os.path.basename(sources[0]) + '.*damaged or truncated'):
        run(sources, target)
    assert not has_lists(target)
    assert all(status[0] in IMAGES.values() for status in images_of(target).values())
    write(sources[0], whole)
    run(sources, target)
    before = tree(target)
    write(sources[0], b'not a tar' * 1000)
    with refused(os.path.basename(sources[0]) + '.*damaged or truncated'):
        run(sources, target)
    assert tree(target) == before


def test_tiny_imagenet_is_pointed_to_the_other_script(tmp_path):
    files = {'train/n01440764/images/n01440764_0.JPEG': JPEG, 'val/images/val_0.JPEG': JPEG,
             'val/val_annotations.txt': b'val_0.JPEG\tn01440764\t0\t0\t62\t62\n'}
    folder = write_all(tmp_path / 'train' / 'tiny-imagenet-200', files)
    archive = write(tmp_path / 'tiny.zip', zipped({'tiny/' + name: files[name] for name in files}))
    for source, place in ((folder, folder), (str(tmp_path), folder), (archive, archive)):
        with refused(place + '.*Tiny ImageNet.*data/folder/prepare.py'):
            run([source], tmp_path / 'images')
        assert os.listdir(str(tmp_path / 'images')) == ['.lock']


@pytest.mark.parametrize('files, message', [
    ({'readme': b'x'}, 'train: 0 images.*val: 0 of.*README.*kept.$'), (flat(), 'not known.*devkit'),
    (dict(cls_loc(), **{'ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml': b'<x/>'}),
     'val_00000001.xml: names 0 classes. Expected one class'),
    (dict(cls_loc(), **{'ILSVRC2012_devkit_t12/data/meta.mat': b'MATLAB 5.0 MAT-file'}),
     'meta.mat: damaged')], ids=['no images', 'no classes', 'annotation', 'meta.mat'])
def test_a_source_without_images_or_their_classes_is_refused(tmp_path, files, message):
    archive = write(tmp_path / 'a.tar.gz', tar(files, 'w:gz'))
    for target, source in (('1', archive), ('2', write_all(tmp_path / 'folder', files))):
        with refused(message):
            run([source], tmp_path / target)
        assert not has_lists(tmp_path / target)


@pytest.mark.parametrize('text, message', [
    (b'n01440764\nn0144', "line 2: 'n0144'"), (b'n01440764x', 'line 1'), (b'', 'line 1'),
    (b'n01440764\nT\xe4nzer', 'line 2')])
def test_a_wrong_line_of_a_synsets_file_is_named(tmp_path, text, message):
    with refused(message):
        prepare.read_synsets(write(tmp_path / 's', text))
