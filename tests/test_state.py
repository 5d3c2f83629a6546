"""What is on disk under model_dir: written whole, verified, kept from others, cleaned up."""
import json
import os

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

import bic_layer
from data import settings as settings_lib
from runtime import state
from runtime.errors import UserError

SETTINGS = settings_lib.DATASETS['glyphs100']
DIGESTS = {'train.txt': 'a' * 64, 'val.txt': 'b' * 64}


def hold(folder, settings=SETTINGS, digests=DIGESTS, overwrite=False, **keep):
    return state.experiment(str(folder), settings, digests, overwrite, **keep)


def refused(folder, *expected, **arguments):
    """The experiment is refused in one line with all that is expected in it."""
    with pytest.raises(UserError) as error, hold(folder, **arguments):
        pass
    message = str(error.value)
    assert '\n' not in message and all(text in message for text in expected), message


def save_checkpoint(folder, update, value=1., keep=2):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('resnet/kernel', initializer=np.full([50, 3], value, np.float32))
        tf.get_variable('global_step', initializer=np.int64(update))
        session.run(tf.global_variables_initializer())
        return tf.train.Saver(max_to_keep=keep).save(
            session, os.path.join(str(folder), 'model.ckpt'), update)


def damage(path, how, place=None):
    with open(path, 'rb') as file:
        content = bytearray(file.read())
    place = len(content) // 2 if place is None else place
    if how == 'cut':
        content = content[:place]
    elif how == 'empty':
        content = b''
    else:
        content[place] ^= 1
    with open(path, 'wb') as file:
        file.write(content)


def checkpoint_file(prefix, suffix):
    return prefix + {'index': '.index', 'data': '.data-00000-of-00001'}[suffix]


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


def test_a_name_appears_after_its_content_is_on_disk(tmp_path, monkeypatch):
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
    write_steps(tmp_path, 2)
    results = {'step': 3, 'classes': 6, 'val_top5': '', 'top5': 1 / 3,
               'group': [float('nan'), 1e-9]}
    saved = state.save_step(str(tmp_path), 2, results, [['caf\udce9.png'], []])
    records, damaged = state.finished_steps(str(tmp_path))
    assert damaged is None and [record['step'] for record in records] == [0, 1, 2]
    assert list(records[2]['results']) == list(results)  # the order of the columns
    assert records[2]['exemplars'] == saved['exemplars']
    assert records[2]['results']['top5'] == 1 / 3


@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped'])
def test_a_damaged_newest_record_counts_as_not_finished(tmp_path, how):
    write_steps(tmp_path, 3)
    path = str(tmp_path / '2_step.json')
    damage(path, how)
    records, damaged = state.finished_steps(str(tmp_path))
    assert len(records) == 2 and damaged == path


@pytest.mark.parametrize('how', ['cut', 'missing'])
def test_a_record_lost_before_a_later_one_is_an_error(tmp_path, how):
    """Its checkpoints are pruned: it can be neither evaluated again nor left out of the table."""
    write_steps(tmp_path, 3)
    path = str(tmp_path / '0_step.json')
    os.remove(path) if how == 'missing' else damage(path, how)
    with pytest.raises(UserError, match='0_step.json: is (damaged|missing), .*1_step.json'):
        state.finished_steps(str(tmp_path))


def test_the_record_of_another_step_is_not_taken(tmp_path):
    write_steps(tmp_path, 2)
    os.replace(str(tmp_path / '0_step.json'), str(tmp_path / '1_step.json'))
    write_steps(tmp_path, 1)
    records, damaged = state.finished_steps(str(tmp_path))
    assert len(records) == 1 and damaged == str(tmp_path / '1_step.json')


def test_the_same_experiment_goes_on_and_another_is_refused(tmp_path):
    with hold(tmp_path):
        write_steps(tmp_path, 1)
    with hold(tmp_path):
        assert len(state.finished_steps(str(tmp_path))[0]) == 1
    refused(tmp_path, 'seed is 1993 there and 7 here', '--overwrite',
            settings=SETTINGS._replace(seed=7))
    refused(tmp_path, 'train.txt is aaaa', digests=dict(DIGESTS, **{'train.txt': 'c' * 64}))
    assert len(state.finished_steps(str(tmp_path))[0]) == 1


@pytest.mark.parametrize('version', [0, 2, None, 'x' * 500])
def test_state_of_another_version_is_refused(tmp_path, monkeypatch, version):
    with monkeypatch.context() as patch:
        patch.setattr(state, 'VERSION', version)
        with hold(tmp_path):
            pass
    refused(tmp_path, 'another version of this program', 'state version {}, here 1'.format(
        str(version)[:40]))


@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped'])
def test_a_damaged_identity_is_refused(tmp_path, how):
    with hold(tmp_path):
        write_steps(tmp_path, 1)
    damage(str(tmp_path / 'experiment.json'), how)
    refused(tmp_path, 'experiment.json: is damaged')
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


def test_deleting_that_was_interrupted_is_finished_and_nothing_of_it_used(tmp_path, monkeypatch):
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
    with hold(tmp_path):  # the old one, again and without --overwrite
        assert state.finished_steps(str(tmp_path)) == ([], None)


def test_whether_checkpoints_are_kept_is_remembered_and_no_part_of_the_identity(tmp_path):
    def held(**arguments):
        with hold(tmp_path, **arguments) as kept:
            return kept, (tmp_path / 'experiment.json').read_bytes()

    assert held(keep_checkpoints=None)[0] is False
    without = held()[1]
    assert b'keep' not in without  # as it was written before there was such a choice
    assert held(keep_checkpoints=True)[0] is False
    assert held()[0] is held(keep_checkpoints=True)[0] is True
    refused(tmp_path, 'made here: seed is 1993 there and 7 here;',
            settings=SETTINGS._replace(seed=7))
    assert held(keep_checkpoints=False)[0] is True
    assert held() == (False, without)
    assert held(keep_checkpoints=True)[0] is False
    assert held(settings=SETTINGS._replace(seed=7), overwrite=True)[0] is False
    assert held(settings=SETTINGS._replace(seed=7))[0] is False


def test_a_folder_of_something_else_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / 'notes.tmp').write_text('mine')
    refused(tmp_path, 'notes.tmp', overwrite=True)
    assert (tmp_path / 'notes.tmp').read_text() == 'mine'


def test_a_second_process_is_refused(tmp_path):
    with hold(tmp_path):
        refused(tmp_path, 'another process')
    with hold(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / 'file').write_text('')
    refused(tmp_path / 'file', '--model_dir', 'cannot be written')


def test_what_killed_processes_left_is_removed(tmp_path):
    (tmp_path / 'experiment.json.tmp').write_text('{')  # killed in the very first write
    with hold(tmp_path):
        write_steps(tmp_path, 1)
    stage = tmp_path / '1_classifier'
    stage.mkdir()
    whole = save_checkpoint(stage, 7)
    for name in ('results.csv.tmp', '1_step.json.tmp', 'confusion_before_2.npy.tmp',
                 '1_classifier/checkpoint.tmp0a1b2c', '1_classifier/graph.pbtxt.tmp9f',
                 '1_classifier/model.ckpt-9.data-00000-of-00001', '1_classifier/model.ckpt-9.meta'):
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


@pytest.mark.parametrize('suffix', ['index', 'data'])
@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped'])
def test_a_damaged_newest_checkpoint_falls_back(tmp_path, suffix, how):
    first, second = save_checkpoint(tmp_path, 5, 1.), save_checkpoint(tmp_path, 10, 2.)
    damage(checkpoint_file(second, suffix), how)
    assert state.latest_checkpoint(str(tmp_path)) == (first, [second])
    # The estimator goes by TensorFlow's own note.
    assert tf.train.latest_checkpoint(str(tmp_path)) == first
    assert tf.train.load_checkpoint(first).get_tensor('resnet/kernel')[0, 0] == 1
    assert state.latest_checkpoint(str(tmp_path)) == (first, [])
    damage(checkpoint_file(first, suffix), how)
    assert state.latest_checkpoint(str(tmp_path)) == (None, [first])
    assert tf.train.latest_checkpoint(str(tmp_path)) is None


def test_weights_that_are_no_numbers_are_not_gone_on_from(tmp_path):
    first, second = save_checkpoint(tmp_path, 5), save_checkpoint(tmp_path, 10, float('nan'))
    assert state.latest_checkpoint(str(tmp_path)) == (first, [second])


@pytest.mark.parametrize('note', [None, b'', b'\xff\xfe\0', b'model_checkpoint_path: "gone"\n'])
def test_the_checkpoints_themselves_count_and_not_the_note(tmp_path, note):
    prefixes = [save_checkpoint(tmp_path, update, keep=None) for update in (900, 1000)]
    os.remove(str(tmp_path / 'checkpoint'))
    if note is not None:
        (tmp_path / 'checkpoint').write_bytes(note)
    assert state.latest_checkpoint(str(tmp_path)) == (prefixes[1], [])
    found = tf.train.get_checkpoint_state(str(tmp_path))
    assert list(found.all_model_checkpoint_paths) == prefixes
    assert state.checkpoint_update(prefixes[1]) == 1000


def test_checkpoints_in_a_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint('stage', 5)
    for _ in range(2):
        assert state.latest_checkpoint('stage') == (os.path.join('stage', 'model.ckpt-5'), [])
    assert tf.train.latest_checkpoint('stage') == os.path.join('stage', 'model.ckpt-5')


def test_no_checkpoint(tmp_path):
    assert state.latest_checkpoint(str(tmp_path / 'missing')) == (None, [])


def test_checkpoints_are_flushed_when_they_are_saved(tmp_path, monkeypatch):
    prefix = save_checkpoint(tmp_path, 5)
    flushed = []
    monkeypatch.setattr(state, '_flush', flushed.append)
    state.FlushCheckpoints(str(tmp_path)).after_save(None, np.int64(5))
    assert set(flushed) == {str(tmp_path)} | {
        prefix + suffix for suffix in ('.index', '.meta', '.data-00000-of-00001')}
    assert flushed[-1] == str(tmp_path)


def test_prune_leaves_the_curves_alone(tmp_path):
    save_checkpoint(tmp_path, 5)
    for name in ('events.out.tfevents.1.host', 'graph.pbtxt', 'model.ckpt-4.index.damaged'):
        (tmp_path / name).write_text('')
    (tmp_path / 'model.ckpt-6_temp').mkdir()
    state.prune(str(tmp_path))
    assert os.listdir(str(tmp_path)) == ['events.out.tfevents.1.host']
    state.prune(str(tmp_path / 'missing'))


@pytest.mark.parametrize('suffix', ['index', 'data'])
@pytest.mark.parametrize('how', ['cut', 'empty', 'flipped', 'missing'])
def test_a_damaged_bias_is_learnt_again(tmp_path, suffix, how):
    directory = str(tmp_path / '1_bias')
    stored = {'logits': np.random.RandomState(0).randn(8, 3).astype(np.float32),
              'label': np.arange(8, dtype=np.int32) % 3, 'constant': np.zeros(8, np.float32)}
    schedule = settings_lib.Schedule(8, 2, 8, 2, [1], [.1, .01])
    fitted = bic_layer.fit(stored, schedule, 'moving', directory)
    assert bic_layer.load(directory) == fitted
    path = checkpoint_file(os.path.join(directory, 'model.ckpt-2'), suffix)
    os.remove(path) if how == 'missing' else damage(path, how, place=3)  # in beta
    assert bic_layer.load(directory) is None
    assert bic_layer.fit(stored, schedule, 'moving', directory) == fitted
    assert bic_layer.load(directory) == fitted


def test_the_identity_is_readable_by_people(tmp_path):
    with hold(tmp_path):
        found = json.loads((tmp_path / 'experiment.json').read_text())
    assert found['settings']['num_classes'] == 100 and found['lists'] == DIGESTS


def test_nothing_is_written_to_a_folder_that_took_the_place_of_the_one_held(tmp_path):
    folder, moved = tmp_path / 'model', tmp_path / 'moved'
    with hold(str(folder) + '/'):
        write_steps(folder, 1)
        folder.rename(moved)
        folder.mkdir()
        for lock in (False, True):  # gone, or another process's
            if lock:
                (folder / 'lock').write_text('')
            for write in (lambda: write_steps(folder, 2), lambda: state.FlushCheckpoints(
                    str(folder / '1_classifier')).before_save(None, 5)):
                with pytest.raises(UserError, match='deleted or moved'):
                    write()
        assert os.listdir(str(folder)) == ['lock']
    with hold(moved):
        assert len(state.finished_steps(str(moved))[0]) == 1
    write_steps(folder, 1)  # nobody's
