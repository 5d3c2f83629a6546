"""From an archive through prepare.py to a run, for each data set."""

import test_prepare_celeb10000 as celeb10000
import test_prepare_cifar100 as cifar100
import test_prepare_imagenet as imagenet
import tiny_runs
from miniatures import lines, write

from data.cifar100 import prepare as cifar100_prepare

# Replaces settings of the data set: a short schedule, a small network and memory.
SMALL = {'preprocessing': None, 'memory_per_class': 1, 'val_share': 0.5, 'train_epochs': 1,
         'batch_size': 32}


def table(result):
    """The final table of a run: one list of fields per step."""
    assert result.status == 0, result.err
    return [line.split() for line in tiny_runs.table(result.out)[1:]]


def test_imagenet_archives_with_their_oddities(tmp_path):
    target = tmp_path / 'images'
    imagenet.run(imagenet.three_archives(tmp_path), target)
    flags = dict(SMALL, num_classes=4, num_increments=2, image_size=16)
    rows = table(tiny_runs.run(target, tmp_path / 'model', dataset='imagenet1000', **flags))
    # One image per class is held out; 8 test images.
    assert [row[1] for row in rows] == ['2', '4']
    assert int(rows[0][2]) + int(rows[1][2]) - 2 == len(imagenet.TRAIN) - 4
    assert [row[3:5] for row in rows] == [['2', '4'], ['4', '8']]


def test_cifar100_archive(tmp_path):
    target = tmp_path / 'images'
    cifar100_prepare.prepare(write(tmp_path / 'cifar.tar.gz', cifar100.binary_archive()),
                             str(target), cifar100.PER_CLASS)
    rows = table(tiny_runs.run(
        target, tmp_path / 'model', **dict(SMALL, dataset='cifar100', num_classes=None,
                                           image_size=None)))
    assert [row[1:5] for row in rows] == [['50', '50', '50', '50'], ['100', '100', '100', '100']]


def test_face_crops(tmp_path):
    target = tmp_path / 'images'
    celeb10000.run([celeb10000.faces(tmp_path / 'faces')], target)
    rows = table(tiny_runs.run(
        target, tmp_path / 'model',
        **dict(SMALL, dataset='celeb10000', num_classes=8, image_size=16)))
    assert [row[1] for row in rows] == ['4', '8']
    assert int(rows[1][4]) == len(lines(target / 'val.txt'))
