"""Messages about missing folders and lists."""
import os
import re

import pytest
from miniatures import refused
from tiny_runs import ROOT

from data import folders


@pytest.mark.parametrize('dataset', sorted(set(folders.DATA_DIRS) - {'glyphs100'}))
def test_the_script_and_page_that_a_message_names_exist(tmp_path, dataset):
    with refused('run ') as error:
        folders.ensure_data_dir(dataset, str(tmp_path))
    script = re.search(r'run (\S+) ', str(error.value)).group(1)
    assert os.path.isfile(os.path.join(ROOT, script))
    assert os.path.isfile(os.path.join(ROOT, os.path.dirname(script), 'README.md'))


@pytest.mark.parametrize('dataset, data_dir, message', [
    ('imagenet100', 'none', 'none: no such folder'),  # not: no list
    ('imagenet100', 'only train', 'no val.txt .the test list'),
    ('glyphs100', 'none', 'no such folder.* --data_dir: .*embedded'),
    ('folder', None, '--dataset=folder needs --data_dir'),
    ('folder', 'my file', 'my file: is a file, not a folder. Use the folder with train.txt'),
    ('folder', 'my images', "prepare.py '.*my images'")])
def test_a_missing_folder_or_list_is_named(tmp_path, dataset, data_dir, message):
    (tmp_path / 'my file').write_text('')
    (tmp_path / 'my images').mkdir()
    (tmp_path / 'only train').mkdir()
    (tmp_path / 'only train' / 'train.txt').write_text('a.png 0')
    with refused(message):
        folders.ensure_data_dir(dataset, data_dir and str(tmp_path / data_dir))


@pytest.mark.parametrize('other, missing, action', [
    ('test.txt', 'val.txt', 'rename it'), ('Validation.TXT', 'val.txt', 'rename it'),
    ('test_list.txt', 'val.txt', 'rename it'), ('valid.csv', 'val.txt', 'path label'),
    ('Train.txt', 'train.txt', 'rename it'), ('train.lst', 'train.txt', 'rename it')])
def test_a_list_under_another_name_is_named(tmp_path, logged, other, missing, action):
    for name in {'train.txt', 'val.txt', other} - {missing}:
        (tmp_path / name).write_text('a.png 0')
    with refused(f'no {missing}.*{other} exists: .*{action}') as error:
        folders.ensure_data_dir('folder', str(tmp_path))
    assert 'prepare.py' not in str(error.value)  # it would make other lists
    (tmp_path / missing).write_text('a.png 0')
    folders.ensure_data_dir('folder', str(tmp_path))
    assert ('/test.txt is not used. ' in ''.join(logged)) == (other == 'test.txt')
