"""A model_dir that belongs to one experiment: claimed, kept from others, cleaned up."""
import errno
import fcntl
import json
import os

import pytest
from made_checkpoints import damage, save_checkpoint

from runtime import experiment, files, run_log, state
from runtime import settings as settings_lib
from runtime.errors import UserError

SETTINGS = settings_lib.DATASETS['glyphs100']
DIGESTS = {'train.txt': 'a' * 64, 'val.txt': 'b' * 64}


def hold(folder, settings=SETTINGS, digests=DIGESTS, overwrite=False, **keep):
    return experiment.hold_model_dir(str(folder), settings, digests, overwrite, **keep)


def refused(folder, *expected, **arguments):
    """The experiment is refused in one line with all that is expected in it."""
    with pytest.raises(UserError) as error, hold(folder, **arguments):
        pass
    message = str(error.value)
    assert '\n' not in message and all(text in message for text in expected), message


def write_steps(folder, count):
    for step in range(count):
        state.save_step(str(folder), step, {'top5': .5 + step, 'loss': .1}, [['a.png', 'b.png']])


def test_the_same_experiment_resumes_and_another_is_refused(tmp_path):
    with hold(tmp_path):
        write_steps(tmp_path, 1)
    with hold(tmp_path):
        assert len(state.finished_steps(str(tmp_path))) == 1
    refused(tmp_path, 'seed: 1993 there, 7 now', '--overwrite', '1 finished step',
            settings=SETTINGS._replace(seed=7))
    refused(tmp_path, 'train.txt: aaaa', digests=dict(DIGESTS, **{'train.txt': 'c' * 64}))
    assert len(state.finished_steps(str(tmp_path))) == 1


@pytest.mark.parametrize('version', [0, 2, None, 'x' * 500])
def test_state_of_another_version_is_refused(tmp_path, monkeypatch, version):
    with monkeypatch.context() as patch:
        patch.setattr(experiment, 'VERSION', version)
        with hold(tmp_path):
            pass
    refused(tmp_path, f'state_version: {str(version)[:40]} there, 1 now')


@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped'])
def test_a_damaged_identity_is_refused(tmp_path, how):
    with hold(tmp_path):
        write_steps(tmp_path, 1)
    damage(str(tmp_path / 'experiment.json'), how)
    refused(tmp_path, 'experiment.json is corrupt', '1 finished step')
    assert (tmp_path / '0_step.json').exists()


def test_overwrite_deletes_the_other_experiment_and_no_foreign_file(tmp_path):
    other = SETTINGS._replace(seed=7)
    with hold(tmp_path):
        write_steps(tmp_path, 1)
        os.mkdir(str(tmp_path / '0_classifier'))
        save_checkpoint(tmp_path / '0_classifier', 5)
        (tmp_path / 'run.log').write_text('')
    with hold(tmp_path, overwrite=True):  # the same experiment: nothing is deleted
        assert (tmp_path / '0_step.json').exists()
    (tmp_path / 'thesis.tex').write_text('')
    refused(tmp_path, 'thesis.tex', settings=other, overwrite=True)
    assert (tmp_path / '0_step.json').exists()
    os.remove(str(tmp_path / 'thesis.tex'))
    with hold(tmp_path, settings=other, overwrite=True):
        assert sorted(os.listdir(str(tmp_path))) == ['experiment.json', 'lock']


def test_nothing_is_left_in_a_folder_of_something_else(tmp_path):
    (tmp_path / 'thesis.tex').write_text('')
    refused(tmp_path, 'thesis.tex')
    assert os.listdir(str(tmp_path)) == ['thesis.tex']
    for content in ('of the door', ''):  # lock files are often empty
        (tmp_path / 'lock').write_text(content)
        refused(tmp_path, 'thesis.tex')
        assert (tmp_path / 'lock').read_text() == content


def test_deleting_that_was_interrupted_is_finished(tmp_path, monkeypatch):
    other = SETTINGS._replace(seed=7)
    with hold(tmp_path):
        write_steps(tmp_path, 3)

    class Killed(BaseException):
        pass

    def remove(path, function=os.remove):
        if path.endswith('_step.json') and len(os.listdir(str(tmp_path))) < 5:
            raise Killed
        function(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'remove', remove)
        with pytest.raises(Killed), hold(tmp_path, settings=other, overwrite=True):
            pass
    assert any(name.endswith('_step.json') for name in os.listdir(str(tmp_path)))
    refused(tmp_path, 'seed: 1993 there, 7 now', settings=other)
    with hold(tmp_path, settings=other, overwrite=True):
        assert state.finished_steps(str(tmp_path)) == []


def test_keeping_checkpoints_is_remembered_but_not_part_of_the_identity(tmp_path, said):
    def held(**arguments):
        with hold(tmp_path, **arguments) as kept:
            return kept, (tmp_path / 'experiment.json').read_bytes()

    assert held(keep_checkpoints=None)[0] is False
    without = held()[1]
    assert b'keep' not in without  # as it was written before there was such a choice
    assert held(keep_checkpoints=True)[0] is held()[0] is True
    refused(tmp_path, '(seed: 1993 there, 7 now)',
            settings=SETTINGS._replace(seed=7))
    assert not said
    assert held(keep_checkpoints=False)[0] is False
    assert len(said) == 1 and '--nokeep_checkpoints' in said[0]
    assert held() == (False, without)
    assert held(keep_checkpoints=True)[0] is True
    assert held(settings=SETTINGS._replace(seed=7), overwrite=True)[0] is False
    assert held(settings=SETTINGS._replace(seed=7))[0] is False


def test_an_experiment_that_skips_bad_images_resumes_only_with_the_flag(tmp_path):
    for skips in (False, True):
        with hold(tmp_path, skip_bad_images=skips):
            pass
    refused(tmp_path, '--skip_bad_images')
    with hold(tmp_path, skip_bad_images=True, keep_checkpoints=True):
        pass
    with hold(tmp_path, skip_bad_images=True) as keeps:
        assert keeps


def test_a_folder_of_something_else_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / 'notes.tmp').write_text('mine')
    refused(tmp_path, 'notes.tmp', overwrite=True)
    assert (tmp_path / 'notes.tmp').read_text() == 'mine'


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / 'file').write_text('')
    refused(tmp_path / 'file', '--model_dir', 'cannot write')


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / 'experiment.json.tmp').write_text('{')  # killed in the very first write
    with hold(tmp_path):
        write_steps(tmp_path, 1)
    stage = tmp_path / '1_classifier'
    stage.mkdir()
    whole = save_checkpoint(stage, 7)
    for name in ('results.csv.tmp', '1_step.json.tmp', 'confusion_before_2.npy.tmp',
                 '1_classifier/checkpoint.tmp0a1b2c', '1_classifier/graph.pbtxt.tmp9f'):
        (tmp_path / name).write_text('')
    for name in ('model.ckpt-9_temp', 'model.ckpt-8_temp_0123456789abcdef0123456789abcdef'):
        (stage / name).mkdir()
        (stage / name / 'part-00000-of-00001.data-00000-of-00001').write_text('')
    kept = {'checkpoint', 'events.out.tfevents.1.host'} | {
        os.path.basename(whole) + suffix for suffix in ('.index', '.meta', '.data-00000-of-00001')}
    (stage / 'events.out.tfevents.1.host').write_text('')
    with hold(tmp_path):
        assert set(os.listdir(str(tmp_path))) == {'experiment.json', 'lock', '0_step.json',
                                                  '1_classifier'}
        assert set(os.listdir(str(stage))) == kept


def test_the_identity_is_readable_by_people(tmp_path):
    with hold(tmp_path):
        found = json.loads((tmp_path / 'experiment.json').read_text())
    assert found['settings']['num_classes'] == 100 and found['lists'] == DIGESTS


def test_a_finished_experiment_is_named_as_such_before_it_is_overwritten(tmp_path):
    with hold(tmp_path):
        write_steps(tmp_path, SETTINGS.num_steps)
    refused(tmp_path, 'finished experiment', 'seed: 1993 there, 7 now',
            settings=SETTINGS._replace(seed=7))
    assert len(state.finished_steps(str(tmp_path))) == SETTINGS.num_steps


def failing(number):
    def fail(*_):
        raise OSError(number, os.strerror(number))
    return fail


LACKING = pytest.mark.parametrize('number', [
    errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL])


@LACKING
def test_without_locks_a_run_warns_and_works(tmp_path, monkeypatch, said, number):
    monkeypatch.setattr(fcntl, 'flock', failing(number))
    with hold(tmp_path):
        write_steps(tmp_path, 1)
    assert len(said) == 1 and str(tmp_path / 'lock') in said[0]


def test_a_lock_of_another_process_is_one_on_every_file_system(tmp_path, monkeypatch):
    for number in (errno.EAGAIN, errno.EACCES):
        monkeypatch.setattr(fcntl, 'flock', failing(number))
        refused(tmp_path, '--model_dir', 'another process')


@LACKING
def test_without_fsync_a_run_warns_once_and_works(tmp_path, monkeypatch, said, number):
    monkeypatch.setattr(files, '_warned', set())
    monkeypatch.setattr(os, 'fsync', failing(number))
    with hold(tmp_path):
        write_steps(tmp_path, 2)
    assert len(state.finished_steps(str(tmp_path))) == 2
    assert len(said) == 2 and 'a file' in said[0] and 'a folder' in said[1]


def test_a_file_system_that_cannot_replace_files_is_refused_before_any_work(tmp_path, monkeypatch):
    with hold(tmp_path):
        pass
    monkeypatch.setattr(os, 'replace', failing(errno.ENOSYS))
    refused(tmp_path, '--model_dir', os.strerror(errno.ENOSYS))


def test_a_folder_in_model_dir_of_another_user_is_refused_before_any_work(tmp_path, monkeypatch):
    """For example after a run in a container, as root."""
    with hold(tmp_path):
        (tmp_path / '0_classifier').mkdir()
    monkeypatch.setattr(os, 'access', lambda path, _: False)
    refused(tmp_path, '0_classifier', 'permission')


def test_a_warning_from_before_the_log_is_open_is_in_it_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_log.LOG, 'handlers', [])
    run_log.open_log(None)
    run_log.LOG.info('warning: no locks')
    run_log.LOG.info('reading lists')
    run_log.open_log(str(tmp_path / 'run.log'))
    run_log.log_start('data')
    text = (tmp_path / 'run.log').read_text()
    assert text.count('warning: no locks') == 1 and 'reading lists' not in text
    assert capsys.readouterr().out.count('warning: no locks') == 1
