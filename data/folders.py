"""Where the images of a data set are."""

import os

from data import lists
from data.glyphs100 import prepare as glyphs100
from runtime.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Where `--data_dir` is not given. The folders hold train.txt, val.txt and the images they list.
DATA_DIRS = {
    'imagenet1000': 'data/imagenet/images',
    'imagenet100': 'data/imagenet/images/imagenet100',
    'imagenet100_random': 'data/imagenet/images/imagenet100_random',
    'cifar100': 'data/cifar100/images',
    'celeb10000': 'data/celeb10000/images',
    'glyphs100': 'data/glyphs100/images',
}


def find(dataset, data_dir):
    """The data folder: `data_dir`, or where it is None the data set's own.

    Raises UserError where the lists are not there, with what to do.
    """
    if data_dir is None:
        if dataset not in DATA_DIRS:
            raise UserError('--dataset={} needs --data_dir'.format(dataset))
        data_dir = os.path.join(ROOT, DATA_DIRS[dataset])
        if dataset == 'glyphs100':
            glyphs100.write_images(data_dir)
    if not os.path.isdir(data_dir):
        missing = 'no such folder'
    else:
        missing = ' and '.join('no ' + name for name in (lists.TRAIN_LIST, lists.TEST_LIST)
                               if not os.path.isfile(os.path.join(data_dir, name)))
    if missing:
        way_out = 'python data/folder/prepare.py {} writes them'.format(data_dir)
        if dataset == 'glyphs100':
            way_out = 'leave --data_dir out: the images are embedded'
        elif dataset in DATA_DIRS:
            way_out = ('get the archive and run {}/prepare.py (README.md beside it), or name '
                       'another --data_dir, or try --dataset=glyphs100, which needs no '
                       'download'.format(DATA_DIRS[dataset].split('/images')[0]))
        raise UserError('{}: {}; {}'.format(data_dir, missing, way_out))
    return data_dir
