"""A model_dir that belongs to one experiment: claimed, kept from others, cleaned up."""
import errno
import fcntl
import os

import pytest
from made_checkpoints import damage, save_checkpoint

from runtime import experiment, files, state
from runtime import settings as settings_lib
from runtime.errors import UserError

SETTINGS = settings_lib.DATASETS['glyphs100']
OTHER = SETTINGS._replace(seed=7)
DIGESTS = {'train.txt': 'a' * 64, 'val.txt': 'b' * 64}


def begin(folder, steps=0, settings=SETTINGS, digests=DIGESTS, overwrite=False):
    """Claim the folder and write records of `steps` steps."""
    with experiment.hold_model_dir(str(folder), settings, digests, overwrite):
        for step in range(steps):
            state.save_step(str(folder), step, {'top5': .5}, [['a.png', 'b.png']])


def refused(folder, *expected, **arguments):
    """Assert that an experiment is refused in one line that contains all of `expected`."""
    with pytest.raises(UserError) as error:
        begin(folder, **arguments)
    message = str(error.value)
    assert '\n' not in message and all(text in message for text in expected), message


def names(folder):
    return sorted(os.listdir(str(folder)))


def test_the_same_experiment_resumes_and_another_is_refused(tmp_path, logged):
    begin(tmp_path, 1)
    before = names(tmp_path)
    begin(tmp_path)
    begin(tmp_path, overwrite=True)
    assert logged == ['--overwrite: nothing is deleted, because --model_dir has this experiment.']
    refused(tmp_path, 'seed: 1993 there, 7 now', '--overwrite', '1 finished step', settings=OTHER)
    refused(tmp_path, 'train.txt: aaaa', digests=dict(DIGESTS, **{'train.txt': 'c' * 64}))
    begin(tmp_path, SETTINGS.num_steps)
    refused(tmp_path, 'finished experiment', 'seed: 1993 there, 7 now', settings=OTHER)
    damage(str(tmp_path / 'experiment.json'), 'flipped')
    refused(tmp_path, 'experiment.json is corrupt', f'{SETTINGS.num_steps} finished steps')
    refused(tmp_path / 'lock', '--model_dir', 'cannot write')  # a file
    assert set(before) < set(names(tmp_path))


@pytest.mark.parametrize('version', [0, None, 'x' * 500])
def test_state_of_another_version_is_refused(tmp_path, monkeypatch, version):
    with monkeypatch.context() as patch:
        patch.setattr(experiment, 'STATE_VERSION', version)
        begin(tmp_path)
    refused(tmp_path, f'state_version: {str(version)[:40]} there, 1 now')


def test_overwrite_deletes_the_other_experiment_and_no_foreign_file(tmp_path):
    begin(tmp_path, 1)
    save_checkpoint(tmp_path / '0_classifier', 5)
    (tmp_path / 'run.log').write_text('')
    (tmp_path / 'thesis.tex').write_text('')
    before = names(tmp_path)
    refused(tmp_path, 'thesis.tex', settings=OTHER, overwrite=True)
    assert names(tmp_path) == before
    (tmp_path / 'thesis.tex').unlink()
    begin(tmp_path, settings=OTHER, overwrite=True)
    assert names(tmp_path) == ['experiment.json', 'lock']


@pytest.mark.parametrize('lock', [None, 'of the door', ''])  # lock files are often empty
def test_a_folder_with_foreign_files_is_refused_and_unchanged(tmp_path, lock):
    (tmp_path / 'notes.tmp').write_text('mine')
    if lock is not None:
        (tmp_path / 'lock').write_text(lock)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    for overwrite in (False, True):
        refused(tmp_path, 'notes.tmp', overwrite=overwrite)
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_an_interrupted_overwrite_is_finished_by_the_next_start(tmp_path, monkeypatch):
    begin(tmp_path, 3)

    def remove(path, function=os.remove):
        if path.endswith('_step.json') and len(names(tmp_path)) < 5:
            raise KeyboardInterrupt
        function(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'remove', remove)
        with pytest.raises(KeyboardInterrupt):
            begin(tmp_path, settings=OTHER, overwrite=True)
    assert len(names(tmp_path)) == 4
    refused(tmp_path, 'seed: 1993 there, 7 now', settings=OTHER)
    begin(tmp_path, settings=OTHER, overwrite=True)
    assert names(tmp_path) == ['experiment.json', 'lock']


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / 'experiment.json.tmp').write_text('{')  # killed in the very first write
    begin(tmp_path, 1)
    stage = tmp_path / '1_classifier'
    save_checkpoint(stage, 7)
    (stage / 'events.out.tfevents.1.host').write_text('')
    kept = names(stage)
    for name in ('results.csv.tmp', '1_step.json.tmp', 'confusion_before_2.npy.tmp',
                 '1_classifier/checkpoint.tmp0a1b2c', '1_classifier/graph.pbtxt.tmp9f'):
        (tmp_path / name).write_text('')
    for name in ('model.ckpt-9_temp', 'model.ckpt-8_temp_0123456789abcdef0123456789abcdef'):
        (stage / name).mkdir()
        (stage / name / 'part-00000-of-00001.data-00000-of-00001').write_text('')
    begin(tmp_path)
    assert names(tmp_path) == ['0_step.json', '1_classifier', 'experiment.json', 'lock']
    assert names(stage) == kept


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))
    return fail


@pytest.mark.parametrize('number', [
    errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_without_locks_and_fsync_a_run_warns_once_and_works(tmp_path, monkeypatch, logged, number):
    monkeypatch.setattr(files, '_warned', set())
    monkeypatch.setattr(fcntl, 'flock', failing(number))
    monkeypatch.setattr(os, 'fsync', failing(number))
    begin(tmp_path, 2)
    assert len(state.finished_steps(str(tmp_path))) == 2
    lock, file, folder = logged
    assert str(tmp_path / 'lock') in lock and 'a file' in file and 'a folder' in folder


@pytest.mark.parametrize('module, function, replacement, expected', [
    # Some file systems report a held lock this way.
    (fcntl, 'flock', failing(errno.EACCES), 'another process'),
    (os, 'replace', failing(errno.ENOSYS), os.strerror(errno.ENOSYS)),
    # A folder of another user, for example after a run in a container, as root.
    (os, 'access', lambda path, _: False, '0_classifier: permission denied')])
def test_an_unusable_model_dir_is_refused(
        tmp_path, monkeypatch, module, function, replacement, expected):
    begin(tmp_path)
    (tmp_path / '0_classifier').mkdir()
    monkeypatch.setattr(module, function, replacement)
    refused(tmp_path, str(tmp_path), expected)
