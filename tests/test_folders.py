"""Where the images are: what is said where they are not there."""
import os
import re

import pytest

from data import folders
from runtime.errors import UserError


@pytest.mark.parametrize('dataset', sorted(set(folders.DATA_DIRS) - {'glyphs100'}))
def test_what_to_run_is_there(tmp_path, dataset):
    with pytest.raises(UserError) as error:
        folders.find(dataset, str(tmp_path))
    script = re.search(r'run (\S+) ', str(error.value)).group(1)
    assert os.path.isfile(os.path.join(folders.ROOT, script))
    assert os.path.isfile(os.path.join(folders.ROOT, os.path.dirname(script), 'README.md'))


def test_a_missing_folder_is_not_called_a_missing_list(tmp_path):
    with pytest.raises(UserError, match='none: no such folder; '):
        folders.find('imagenet100', str(tmp_path / 'none'))
    (tmp_path / 'train.txt').write_text('a.png 0')
    with pytest.raises(UserError, match=': no val.txt; '):
        folders.find('imagenet100', str(tmp_path))
    with pytest.raises(UserError, match='no such folder; leave --data_dir out: .* embedded$'):
        folders.find('glyphs100', str(tmp_path / 'none'))
    with pytest.raises(UserError, match='--dataset=folder needs --data_dir'):
        folders.find('folder', None)
