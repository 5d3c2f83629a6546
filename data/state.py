"""What is on disk under model_dir: the only thing that passes from one step to the next.

    experiment.json      what this experiment is: settings, list digests, version of this layout
    <t>_classifier/      stage 1: checkpoints of TensorFlow's estimator
    <t>_bias/            stage 2: a checkpoint with beta and gamma
    <t>_step.json        written last: the step is finished; its results and the exemplars chosen
    results.csv          all finished steps, made from the records
    *.npy                accuracy by group, confusion matrices

Every file is written under a temporary name, flushed to disk and renamed, so that what a name
shows is always complete.
"""

import contextlib
import csv
import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import re
import shutil

import numpy as np
import tensorflow.compat.v1 as tf

from data.errors import UserError

VERSION = 1
_EXPERIMENT = 'experiment.json'
_LOCK = 'lock'
_RESULTS = 'results.csv'
_OWN_NAMES = re.compile(
    r'(experiment\.json|results\.csv|lock|summary|\d+_(classifier|bias|step\.json)'
    r'|(group_accuracy|confusion)\w*\.npy|.*\.tmp)$')


def write_atomically(path, content):
    """Writes bytes so that `path` holds either what it held before or all of `content`."""
    temporary = path + '.tmp'
    try:
        with open(temporary, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise
    directory = os.open(os.path.dirname(path) or '.', os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_array(path, array):
    """Writes a NumPy array as .npy, atomically."""
    content = io.BytesIO()
    np.save(content, array)
    write_atomically(path, content.getvalue())


def _json_bytes(value):
    return (json.dumps(value, indent=1, sort_keys=True) + '\n').encode('utf-8')


def _with_checksum(value):
    return dict(value, checksum=hashlib.sha256(_json_bytes(value)).hexdigest())


def _read_checked(path):
    """The dict of a file that _with_checksum made; raises ValueError where it is damaged."""
    with open(path, 'rb') as file:
        content = file.read()
    try:
        value = json.loads(content.decode('utf-8'))
    except RecursionError:
        raise ValueError('nested too deeply') from None
    if not isinstance(value, dict) or _with_checksum(
            {name: item for name, item in value.items() if name != 'checksum'}) != value:
        raise ValueError('checksum does not fit')
    return value


def _differences(old, new):
    """'settings.seed is 1 there and 2 here, ...' between two nested dicts."""
    found = []
    for name in sorted(set(old) | set(new)):
        there, here = old.get(name), new.get(name)
        if isinstance(there, dict) and isinstance(here, dict):
            found.extend(_differences(there, here))
        elif there != here:
            found.append('{} is {} there and {} here'.format(
                name, *(str(value)[:40] for value in (there, here))))
    return found


def _claim(model_dir, identity, overwrite):
    """Makes `model_dir` this experiment's, or finds that it is; raises UserError if it is not."""
    path = os.path.join(model_dir, _EXPERIMENT)
    others = [name for name in os.listdir(model_dir) if name not in (_EXPERIMENT, _LOCK)]
    if os.path.exists(path):
        try:
            found = _read_checked(path)
            found.pop('checksum')
        except ValueError:
            found = None
        if found == identity:
            return
        if not overwrite:
            raise UserError('{}: {}; choose another --model_dir, or --overwrite to delete what is '
                            'there'.format(path, 'is damaged' if found is None else
                                           'another experiment was made here: '
                                           + ', '.join(_differences(found, identity))))
    foreign = [name for name in others if not _OWN_NAMES.match(name)]
    if foreign or (others and not os.path.exists(path)):
        raise UserError('{}: holds {}, which no experiment made here; choose another '
                        '--model_dir'.format(model_dir, (foreign or others)[0]))
    for name in others:
        entry = os.path.join(model_dir, name)
        if os.path.isdir(entry) and not os.path.islink(entry):
            shutil.rmtree(entry)
        else:
            os.remove(entry)
    write_atomically(path, _json_bytes(_with_checksum(identity)))


@contextlib.contextmanager
def experiment(model_dir, settings, digests, overwrite):
    """Holds `model_dir` for one process; the experiment in it is the one described, or new.

    Args:
        model_dir: folder, made where it is missing.
        settings: the experiment's Settings.
        digests: dict of the list files' digests.
        overwrite: bool, deletes an experiment with other settings or lists.

    Raises:
        UserError: the folder is another experiment's, in use, or cannot be written.
    """
    identity = json.loads(json.dumps({
        'state_version': VERSION, 'settings': settings._asdict(), 'lists': digests}))
    try:
        os.makedirs(model_dir, exist_ok=True)
        lock = open(os.path.join(model_dir, _LOCK), 'a')
    except OSError as error:
        raise UserError('--model_dir={}: cannot be written: {}'.format(
            model_dir, error.strerror)) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise UserError('--model_dir={}: another process is running this experiment; wait for '
                            'it or choose another folder'.format(model_dir)) from None
        _claim(model_dir, identity, overwrite)
        yield


def classifier_dir(model_dir, step):
    """Where stage 1 of `step` keeps its checkpoints."""
    return os.path.join(model_dir, '{}_classifier'.format(step))


def bias_dir(model_dir, step):
    """Where stage 2 of `step` keeps beta and gamma."""
    return os.path.join(model_dir, '{}_bias'.format(step))


def _record_path(model_dir, step):
    return os.path.join(model_dir, '{}_step.json'.format(step))


def save_step(model_dir, step, results, exemplars):
    """Marks `step` as finished.

    Args:
        results: dict of numbers and lists of numbers.
        exemplars: one list of image paths (str) a seen class, in herding order.

    Returns:
        The record, as finished_steps returns it.
    """
    record = {'step': step, 'results': results, 'exemplars': exemplars}
    write_atomically(_record_path(model_dir, step), _json_bytes(_with_checksum(record)))
    return record


def finished_steps(model_dir):
    """(records, damaged): the finished steps from 0 on, and the first file that was unreadable.

    A record is a dict with 'step', 'results', 'exemplars', as save_step wrote it; a damaged one
    counts as not finished: the step's evaluation and selection are done again.
    """
    records = []
    while True:
        path = _record_path(model_dir, len(records))
        if not os.path.exists(path):
            return records, None
        try:
            record = _read_checked(path)
            if record.get('step') != len(records):
                raise ValueError('another step')
        except ValueError:
            return records, path
        records.append(record)


def write_results(model_dir, rows):
    """Writes results.csv: one dict a step, all with the same keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(os.path.join(model_dir, _RESULTS), text.getvalue().encode('utf-8'))


def _readable(prefix):
    """Whether every tensor of a checkpoint can be read (its checksums are verified on the way)."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
        return True
    except (ValueError, tf.errors.OpError, MemoryError):
        return False


def checkpoint_update(prefix):
    """The number of updates done at a checkpoint, from its name: .../model.ckpt-5632."""
    return int(prefix.rsplit('-', 1)[1])


def latest_checkpoint(directory):
    """(prefix, damaged): the newest readable checkpoint or None, and the damaged ones set aside.

    Damaged checkpoints get `.damaged` behind their names, and TensorFlow's own note of the latest
    one is written anew, so that the estimator goes on from the same checkpoint.
    """
    names = glob.glob(os.path.join(glob.escape(directory), 'model.ckpt-*.index'))
    prefixes = sorted((name[:-len('.index')] for name in names
                       if re.search(r'-\d+\.index$', name)), key=checkpoint_update)
    damaged = []
    while prefixes and not _readable(prefixes[-1]):
        damaged.append(prefixes.pop())
        for path in glob.glob(glob.escape(damaged[-1]) + '.*'):
            os.replace(path, path + '.damaged')
    note = os.path.join(directory, 'checkpoint')
    if not prefixes:
        with contextlib.suppress(FileNotFoundError):
            os.remove(note)
        return None, damaged
    if damaged or tf.train.latest_checkpoint(directory) != prefixes[-1]:
        with contextlib.suppress(FileNotFoundError):
            os.remove(note)
        tf.train.update_checkpoint_state(directory, prefixes[-1],
                                         [os.path.basename(prefix) for prefix in prefixes])
    return prefixes[-1], damaged


def prune(directory):
    """Deletes the checkpoints of a stage that no later step needs; its event files stay."""
    for path in (glob.glob(os.path.join(glob.escape(directory), 'model.ckpt-*'))
                 + [os.path.join(directory, name) for name in ('checkpoint', 'graph.pbtxt')]):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)
