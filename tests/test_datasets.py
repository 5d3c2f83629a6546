"""From an archive through prepare.py to a run, for each data set."""

import test_prepare_celeb10000 as celeb10000
import test_prepare_cifar100 as cifar100
import test_prepare_imagenet as imagenet
import tiny_runs
from miniatures import write

from data.cifar100 import prepare as cifar100_prepare


def table(data_dir, model_dir, **flags):
    """Run a short experiment with a small network and memory; return its final table.

    Each row has the numbers of classes, and of training, validation and test images.
    """
    flags = dict({'preprocessing': None, 'memory_per_class': 1, 'val_share': 0.5, 'train_epochs': 1,
                  'batch_size': 32}, **flags)
    result = tiny_runs.run(data_dir, model_dir, status=0, **flags)
    return [list(map(int, line.split()[1:5])) for line in tiny_runs.table(result.out)[1:]]


def test_imagenet_archives_with_their_oddities(tmp_path):
    target = tmp_path / 'images'
    imagenet.run(imagenet.three_archives(tmp_path), target)
    first, second = table(target, tmp_path / 'model', dataset='imagenet1000', num_classes=4,
                          num_increments=2, image_size=16)
    # One image per class is held out; 8 test images.
    assert (first[0], *first[2:], second[0], *second[2:]) == (2, 2, 4, 4, 4, 8)
    assert first[1] + second[1] - 2 == len(imagenet.TRAIN) - 4


def test_cifar100_archive(tmp_path):
    cifar100_prepare.prepare(write(tmp_path / 'cifar.tar.gz', cifar100.binary_archive()),
                             str(tmp_path / 'images'), cifar100.PER_CLASS)
    assert table(tmp_path / 'images', tmp_path / 'model', dataset='cifar100', num_classes=None,
                 image_size=None) == [[50] * 4, [100] * 4]


def test_face_crops(tmp_path):
    _, test = celeb10000.run([celeb10000.faces(tmp_path / 'faces')], tmp_path / 'images')
    rows = table(tmp_path / 'images', tmp_path / 'model', dataset='celeb10000', num_classes=8,
                 image_size=16)
    assert [row[0] for row in rows] == [4, 8] and rows[1][3] == len(test)
