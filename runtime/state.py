"""What is on disk under model_dir: the only thing that passes from one step to the next.

README.md beside this file lists what is there. Every file is written under a temporary name,
flushed to disk and renamed, so that what a name shows is always complete. TensorFlow writes its
checkpoints otherwise: they are flushed before anything relies on them, and read back before they
are used.
"""

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import re
import shutil

import numpy as np
from absl import flags

from runtime import LOG, files
from runtime.errors import GO_ON, UserError

FLAGS = flags.FLAGS
flags.DEFINE_bool('overwrite', False, 'delete another experiment found in model_dir')
flags.DEFINE_bool('keep_checkpoints', None, 'keep the classifiers that no later step needs; holds '
                  'for later starts too, until --nokeep_checkpoints')
flags.DEFINE_bool('store_last', False, 'store exemplars after the last step too, for uses of your '
                  'own; in a finished run, evaluates its last step again for that')

VERSION = 1
_EXPERIMENT = 'experiment.json'
_LOCK = 'lock'
LOG_FILE = 'run.log'
CLUSTER = 'cluster.json'  # where the workers of a job of several machines find its chief
_OWN_NAMES = re.compile(
    r'((experiment\.json|cluster\.json|results\.csv|classes\.txt|predictions_\d+\.csv|'
    r'\d+_step\.json|(group_accuracy|confusion)\w*\.npy)(\.tmp)?|lock|run\.log|summary|'
    r'\d+_(classifier|bias))$')
_held = {}  # absolute model_dir -> the lock file that this process holds open there


def check_held(model_dir):
    """Raises UserError where `model_dir` was deleted or moved since this process took hold of it.

    What is written then would end up in a folder that nothing can go on from.
    """
    lock = _held.get(os.path.abspath(model_dir))
    if lock is None:
        return
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if os.path.samestat(os.stat(os.path.join(model_dir, _LOCK)), os.fstat(lock.fileno())):
            return
    raise UserError('--model_dir={}: was deleted or moved while the run went on; put it back and '
                    '{}, or start anew'.format(model_dir, GO_ON))


def write_atomically(path, content, mode=0o666):
    """Writes bytes so that `path` holds either what it held before or all of `content`.

    Raises:
        OSError: of the file system. UserError: as check_held does.
    """
    check_held(os.path.dirname(path))
    files.write(path, content, path + '.tmp', mode=mode)
    files.flush(os.path.dirname(path) or '.')


def write_array(model_dir, name, array):
    """Writes a NumPy array as .npy, atomically."""
    content = io.BytesIO()
    np.save(content, array)
    write_atomically(os.path.join(model_dir, name), content.getvalue())


def _json_bytes(value):
    return (json.dumps(value, indent=1) + '\n').encode('utf-8')  # in the order of results.csv


def _checksum(value):
    return hashlib.sha256(_json_bytes(value)).hexdigest()


def _write_checked(path, value):
    write_atomically(path, _json_bytes(dict(value, checksum=_checksum(value))))


def _read_checked(path):
    """The dict that _write_checked wrote; None where the file is damaged."""
    with open(path, 'rb') as file:
        content = file.read()
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        value = json.loads(content.decode('utf-8'))
        if value.pop('checksum') == _checksum(value):
            return value
    return None


def _plain(settings):
    return json.loads(json.dumps(settings._asdict()))


def identity(settings, digests):
    """What an experiment is, as a dict: its Settings, its list files' digests, this layout."""
    return {'state_version': VERSION, 'settings': _plain(settings), 'lists': digests}


def differences(there, here):
    """'seed is 1 there and 2 here, ...' between two identities (nested dicts)."""
    found = []
    for name in sorted(set(there) | set(here)):
        old, new = there.get(name), here.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found.append(differences(old, new))
        elif old != new:
            found.append('{} is {} there and {} here'.format(
                name, *(str(value)[:40] for value in (old, new))))
    return ', '.join(filter(None, found))


def read_experiment(model_dir):
    """The identity of the experiment in `model_dir`; None where there is none.

    Raises:
        UserError: its file is damaged, or another version's.
    """
    path = os.path.join(model_dir, _EXPERIMENT)
    if not os.path.isdir(model_dir):
        raise UserError('--model_dir={}: no such folder'.format(model_dir))
    if not os.path.exists(path):
        return None
    found = _read_checked(path)
    if found is None:
        raise UserError('{}: is damaged; put it back, or name another --model_dir'.format(path))
    if found.get('state_version') != VERSION:
        raise UserError('{}: was written by another version of this program, and only that one '
                        'reads it; name another --model_dir'.format(path))
    return found


def check_lists(found, digests, model_dir, data_dir):
    """Raises UserError where an experiment was made on other lists than these."""
    if found['lists'] != digests:
        raise UserError('--data_dir={}: other lists than those of --model_dir={}: {}. The classes '
                        'and images of an experiment are fixed at its start.'.format(
                            data_dir, model_dir, differences(found['lists'], digests)))


def _claim(model_dir, settings, digests, overwrite, keep_checkpoints, skip_bad_images):
    """Makes `model_dir` this experiment's, or finds that it is; raises UserError if it is not.

    Returns:
        Whether checkpoints are to be kept from now on.
    """
    path, wanted = os.path.join(model_dir, _EXPERIMENT), identity(settings, digests)
    asked = {'keep_checkpoints': keep_checkpoints, 'skip_bad_images': skip_bad_images}

    def write(remembered):
        _write_checked(path, dict(wanted, **{name: True for name in remembered
                                             if remembered[name]}))

    delete(path + '.tmp')  # of a process killed while it wrote
    others = [name for name in os.listdir(model_dir) if name not in (_EXPERIMENT, _LOCK, CLUSTER)]
    if os.path.exists(path):
        found = _read_checked(path) or {}
        before = {name: found.pop(name, False) for name in asked}
        with contextlib.suppress(KeyError, TypeError):  # damaged; a later version's
            found['settings'] = _plain(settings.from_dict(found['settings']))
        if found == wanted:
            if before['skip_bad_images'] and not skip_bad_images:
                raise UserError('{}: images were left out of this experiment: add '
                                '--skip_bad_images'.format(path))
            now = {name: before[name] if asked[name] is None else asked[name] for name in asked}
            if before['keep_checkpoints'] and not now['keep_checkpoints']:
                LOG.info('--nokeep_checkpoints: the classifiers kept so far are deleted')
            if now != before:
                write(now)
            return now['keep_checkpoints']
        if not overwrite:
            why = 'is damaged'
            if found:
                why = 'another experiment was made here: ' + differences(found, wanted)
                if found.get('lists') != wanted['lists']:
                    why += ' (classes and images are fixed at the start; --pretrained starts a '
                    why += 'new experiment from this network)'
            raise UserError('{}: {}; choose another --model_dir, or --overwrite to delete what is '
                            'there'.format(path, why))
    foreign = [name for name in others if not _OWN_NAMES.match(name)]
    if foreign or (others and not os.path.exists(path)):
        lock = os.path.join(model_dir, _LOCK)
        if not os.path.exists(path) and not os.path.getsize(lock):  # nothing of ours stays there
            delete(lock)
        raise UserError('{}: holds {}, which no experiment made here; choose another '
                        '--model_dir'.format(model_dir, (foreign or others)[0]))
    for name in others:
        delete(os.path.join(model_dir, name))
    write(asked)
    return bool(keep_checkpoints)


def make(model_dir):
    """Makes the folder where it is missing; returns its lock file, open.

    Raises:
        UserError: it cannot be made or written.
    """
    files.check_path(model_dir, '--model_dir={}'.format(model_dir))
    try:
        os.makedirs(model_dir, exist_ok=True)
        return open(os.path.join(model_dir, _LOCK), 'a')
    except OSError as error:
        raise UserError('--model_dir={}: cannot be written: {}'.format(
            model_dir, error.strerror)) from None


@contextlib.contextmanager
def experiment(model_dir, settings, digests, overwrite, keep_checkpoints=None,
               skip_bad_images=False):
    """Holds `model_dir` for one process; the experiment in it is the one described, or new.

    Args:
        settings, digests: as for identity.
        overwrite: bool, deletes an experiment with other settings or lists.
        keep_checkpoints: bool, from now on; None: as before.
        skip_bad_images: bool, whether images may be left out; once they may, they have to be.

    Yields:
        bool, whether checkpoints are kept from now on.

    Raises:
        UserError: the folder is another experiment's, in use, or cannot be written.
    """
    with make(model_dir) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError('--model_dir={}: another process is running this experiment; wait for '
                            'it or choose another folder'.format(model_dir)) from None
        keeps = _claim(model_dir, settings, digests, overwrite, keep_checkpoints, skip_bad_images)
        _remove_leftovers(model_dir)
        _held[os.path.abspath(model_dir)] = lock
        try:
            yield keeps
        finally:
            del _held[os.path.abspath(model_dir)]


def _remove_leftovers(model_dir):
    """Deletes what processes that were killed left half written."""
    for name in os.listdir(model_dir):
        path = os.path.join(model_dir, name)
        if name.endswith('.tmp') and _OWN_NAMES.match(name):
            os.remove(path)
        elif re.match(r'\d+_(classifier|bias)$', name) and os.path.isdir(path):
            for entry in os.listdir(path):
                # TensorFlow's temporary names: model.ckpt-12_temp_5c0f/, checkpoint.tmp5c0f, ...
                if re.search(r'\.tmp[0-9a-f]+$|_temp(_[0-9a-f]+)?$|\.tempstate\d+$', entry):
                    delete(os.path.join(path, entry))


def delete(path):
    """Deletes a file or a folder, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


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
    _write_checked(_record_path(model_dir, step), record)
    return record


def finished_steps(model_dir, num_steps=None):
    """The records of the finished steps from 0 on, dicts as save_step wrote them.

    A damaged one counts as not finished: the step's evaluation and selection are done again. So
    does the last of `num_steps` where --store_last asks for exemplars that it did not store.

    Raises:
        UserError: a record is damaged or missing and a later one is there. What the step could be
            evaluated with is deleted by then.
    """
    records, path = [], _record_path(model_dir, 0)
    while os.path.exists(path):
        record = _read_checked(path)
        if record is None or record.get('step') != len(records):
            break
        records.append(record)
        path = _record_path(model_dir, len(records))
    damaged = os.path.exists(path)
    later = [name for name in os.listdir(model_dir) if re.match(r'\d+_step\.json$', name)
             and int(name.split('_')[0]) > len(records)]
    if later:
        raise UserError('{}: is {}, but a later step is finished ({}); put it back, or start anew '
                        'with another --model_dir'.format(
                            path, 'damaged' if damaged else 'missing', min(later)))
    if damaged:
        LOG.info('warning: %s is damaged; its step counts as not finished', path)
    if len(records) == num_steps and FLAGS.store_last and not records[-1]['exemplars']:
        records.pop()
    return records


def bias_of(record):
    """(beta, gamma) of a finished step."""
    return record['results']['beta'], record['results']['gamma']


def write_table(model_dir, name, columns, rows):
    """Writes a CSV file, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(os.path.join(model_dir, name),
                     text.getvalue().encode('utf-8', 'surrogateescape'))


def write_results(model_dir, num_steps, records):
    """Writes results.csv, a row a finished step, and the accuracies by group, a row a step."""
    rows = [record['results'] for record in records]
    if not rows:
        return
    columns = [name for name, value in rows[0].items() if not isinstance(value, (list, dict))]
    write_table(model_dir, 'results.csv', columns,
                [[row[name] for name in columns] for row in rows])
    for suffix in ('', '_before'):
        accuracy = np.full([num_steps] * 2, np.nan)
        for step, row in enumerate(rows):
            accuracy[step, :step + 1] = row['group_top1' + suffix]
        write_array(model_dir, 'group_accuracy{}.npy'.format(suffix), accuracy)
