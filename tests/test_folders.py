"""Messages about missing folders and lists."""
import os
import re

import pytest
from miniatures import refused

from data import folders


@pytest.mark.parametrize('dataset', sorted(set(folders.DATA_DIRS) - {'glyphs100'}))
def test_what_to_run_is_there(tmp_path, dataset):
    with refused('run ') as error:
        folders.find(dataset, str(tmp_path))
    script = re.search(r'run (\S+) ', str(error.value)).group(1)
    assert os.path.isfile(os.path.join(folders.ROOT, script))
    assert os.path.isfile(os.path.join(folders.ROOT, os.path.dirname(script), 'README.md'))


def test_a_missing_folder_is_not_called_a_missing_list(tmp_path):
    with refused('none: no such folder'):
        folders.find('imagenet100', str(tmp_path / 'none'))
    (tmp_path / 'train.txt').write_text('a.png 0')
    with refused(': no val.txt .the test list'):
        folders.find('imagenet100', str(tmp_path))
    with refused('no such folder.* --data_dir: .*embedded'):
        folders.find('glyphs100', str(tmp_path / 'none'))
    with refused('--dataset=folder needs --data_dir'):
        folders.find('folder', None)


@pytest.mark.parametrize('other, missing, action', [
    ('test.txt', 'val.txt', 'rename it'), ('Validation.TXT', 'val.txt', 'rename it'),
    ('test_list.txt', 'val.txt', 'rename it'), ('valid.csv', 'val.txt', 'path label'),
    ('Train.txt', 'train.txt', 'rename it'), ('train.lst', 'train.txt', 'rename it')])
def test_a_list_under_another_name_is_named(tmp_path, other, missing, action):
    for name in {'train.txt', 'val.txt', other} - {missing}:
        (tmp_path / name).write_text('a.png 0')
    with refused(f'no {missing}.*{other} exists: .*{action}') as error:
        folders.find('folder', str(tmp_path))
    assert 'prepare.py' not in str(error.value)  # it would make other lists


def test_a_file_and_a_name_with_spaces(tmp_path):
    (tmp_path / 'my file').write_text('')
    with refused("is a file, .*prepare.py '.*my file'"):
        folders.find('folder', str(tmp_path / 'my file'))
