"""Files in model_dir: written completely or not at all, and checked when they are read."""
import json
import os
import shutil
from unittest import mock

import pytest
from made_checkpoints import damage

from runtime import files, state
from runtime.errors import UserError


@pytest.mark.parametrize('function, write', [
    ('fsync', state.write_atomically), ('replace', state.write_atomically),
    ('fsync', lambda path, _: files.flush(path))])
def test_a_write_that_fails_names_the_file_and_leaves_it(tmp_path, monkeypatch, function, write):
    path = str(tmp_path / 'file')
    state.write_atomically(path, b'old')
    monkeypatch.setattr(os, function, mock.Mock(side_effect=OSError(28, 'No space left')))
    with pytest.raises(OSError, match=path):
        write(path, b'new')
    monkeypatch.undo()
    assert os.listdir(str(tmp_path)) == ['file']
    assert (tmp_path / 'file').read_bytes() == b'old'


def test_a_file_gets_its_name_after_its_content_is_on_disk(tmp_path, monkeypatch):
    calls = mock.Mock(**{'fsync.side_effect': os.fsync, 'replace.side_effect': os.replace})
    monkeypatch.setattr(os, 'fsync', calls.fsync)
    monkeypatch.setattr(os, 'replace', calls.replace)
    state.write_atomically(str(tmp_path / 'file'), b'x')
    # The last one: the folder with the name.
    assert [name for name, _, _ in calls.method_calls] == ['fsync', 'replace', 'fsync']


def write_steps(folder, count):
    for step in range(count):
        state.save_step(str(folder), step, {'top5': .5 + step, 'loss': .1}, [['a.png', 'b.png']])


def test_finished_steps_come_back_as_they_were_saved(tmp_path):
    """A missing number is None in memory and empty in the record."""
    write_steps(tmp_path, 2)
    results = {'step': 3, 'classes': 6, 'val_top5': None, 'top5': 1 / 3, 'group': [.5, 1e-9]}
    saved = state.save_step(str(tmp_path), 2, results, [['caf\udce9.png'], []])
    assert json.loads((tmp_path / '2_step.json').read_text())['results']['val_top5'] == ''
    records = state.finished_steps(str(tmp_path))
    assert [record['step'] for record in records] == [0, 1, 2] and records[2] == saved
    assert list(records[2]['results']) == list(results)  # the order of the columns


@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped', 'of another step', 'missing'])
def test_a_damaged_last_record_is_ignored_and_an_earlier_one_is_an_error(tmp_path, logged, how):
    """Checkpoints from before a later record are gone, so its step cannot be evaluated again."""
    write_steps(tmp_path, 3)
    for step in (2, 0):
        path = str(tmp_path / f'{step}_step.json')
        if how == 'of another step':
            shutil.copy(str(tmp_path / '1_step.json'), path)
        elif how == 'missing':
            os.remove(path)
        else:
            damage(path, how)
        if step == 2:
            assert len(state.finished_steps(str(tmp_path))) == 2
            assert how == 'missing' or len(logged) == 1 and path in logged[0]
    with pytest.raises(UserError, match='0_step.json is (corrupt|missing) .*1_step.json'):
        state.finished_steps(str(tmp_path))


def test_local_paths_with_colons_are_not_refused_as_remote():
    files.check_arguments(['--model_dir=a', '/b:/c', './gs:/d', 'C:/e', '--seed', '3', 'a:b'])
