"""Find the folder with the images and lists of a data set."""

import os
import re
import shlex

from data import lists
from data.glyphs100 import prepare as glyphs100
from runtime import LOG, ROOT
from runtime.errors import UserError

# Defaults of --data_dir. The folders hold train.txt, val.txt (the test list) and their images.
DATA_DIRS = {
    'imagenet1000': 'data/imagenet/images',
    'imagenet100': 'data/imagenet/images/imagenet100',
    'imagenet100_random': 'data/imagenet/images/imagenet100_random',
    'cifar100': 'data/cifar100/images',
    'celeb10000': 'data/celeb10000/images',
    'glyphs100': 'data/glyphs100/images',
}
# What other programs call the two lists.
_OTHER_NAMES = {
    lists.TRAIN_LIST: r'(train|training)([_-]?list)?\.(txt|lst|list|csv|tsv)$',
    lists.TEST_LIST: r'(val|valid|validation|test|testing)([_-]?list)?\.(txt|lst|list|csv|tsv)$',
}
_MEANING = {lists.TRAIN_LIST: 'the training list', lists.TEST_LIST: 'the test list'}


def ensure_data_dir(dataset, data_dir):
    """Return the data folder: `data_dir`, or the default of the data set if that is None.

    Writes the images of glyphs100 to the default folder if they are not there yet. Raises
    UserError, with advice, if the folder or its lists do not exist. Warns of an unused test.txt.
    """
    if data_dir is None:
        if dataset not in DATA_DIRS:
            raise UserError(f'--dataset={dataset} needs --data_dir.')
        data_dir = os.path.join(ROOT, DATA_DIRS[dataset])
        if dataset == 'glyphs100':
            glyphs100.write_images(data_dir)
    if not os.path.isdir(data_dir):
        fault = 'is a file, not a folder' if os.path.exists(data_dir) else 'no such folder'
        raise UserError(f'{data_dir}: {fault}. {_advice(dataset, data_dir)}')
    missing = [name for name in _OTHER_NAMES if not os.path.isfile(os.path.join(data_dir, name))]
    if missing:
        what = ' and '.join(f'no {name} ({_MEANING[name]})' for name in missing)
        hints = []
        for name in missing:
            others = [other for other in sorted(os.listdir(data_dir))
                      if re.match(_OTHER_NAMES[name], other, re.IGNORECASE)]
            if others:
                hints.append(_rename(others[0], name))
        if not hints and len(missing) == 1 and dataset == 'folder':
            hints = ['Write it with one `relative/path label` per line, or move the other list '
                     f'away. {_advice(dataset, data_dir)}']
        raise UserError(f'{data_dir}: {what}. {" ".join(hints) or _advice(dataset, data_dir)}')
    if os.path.exists(os.path.join(data_dir, 'test.txt')):
        LOG.info('warning: %s/test.txt is not used. The test list is val.txt.', data_dir)
    return data_dir


def _rename(other, name):
    if other.lower().endswith(('.csv', '.tsv')):
        return f'{other} exists: write {name} from it, one `relative/path label` per line.'
    return f'{other} exists: rename it to {name}.'


def _advice(dataset, data_dir):
    if dataset == 'glyphs100':
        return 'Omit --data_dir: the images are embedded.'
    if dataset in DATA_DIRS:
        folder = DATA_DIRS[dataset].split('/images')[0]
        return (f'To get the images, run {folder}/prepare.py (see {folder}/README.md), then the '
                'command that it prints. Or name another --data_dir, or try --dataset=glyphs100, '
                'which needs no download.')
    if not os.path.isdir(data_dir):  # prepare.py would refuse it
        return ('Use the folder with train.txt and val.txt (the test list). data/folder/prepare.py '
                'writes them for a folder of images.')
    return f'To write the lists, run: python data/folder/prepare.py {shlex.quote(data_dir)}'
