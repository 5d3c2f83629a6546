"""Files in model_dir: written completely or not at all, and checked when they are read."""
import json
import os
import shutil

import pytest
from made_checkpoints import damage

from runtime import files, state
from runtime.errors import UserError


@pytest.mark.parametrize('function', ['fsync', 'replace'])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, function):
    path = str(tmp_path / 'file')
    state.write_atomically(path, b'old')

    def full(*_):
        raise OSError(28, 'No space left on device', path)

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match='No space'):
        state.write_atomically(path, b'new')
    monkeypatch.undo()
    assert os.listdir(str(tmp_path)) == ['file']
    assert (tmp_path / 'file').read_bytes() == b'old'


def test_a_file_gets_its_name_after_its_content_is_on_disk(tmp_path, monkeypatch):
    calls, functions = [], {'fsync': os.fsync, 'replace': os.replace}
    for name in functions:
        def call(*arguments, name=name):
            calls.append(name)
            return functions[name](*arguments)
        monkeypatch.setattr(os, name, call)
    state.write_atomically(str(tmp_path / 'file'), b'x')
    assert calls == ['fsync', 'replace', 'fsync']  # the last one: the folder with the name


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
