"""What is on disk under model_dir: the only thing that passes from one step to the next.

    experiment.json      what this experiment is: settings, list digests, version of this layout;
                         and whether its checkpoints are kept
    <t>_classifier/      stage 1: checkpoints of TensorFlow's estimator
    <t>_bias/            stage 2: a checkpoint with beta and gamma
    <t>_step.json        written last: the step is finished; its results and the exemplars chosen
    classes.txt          which label, and name, is class 0, 1, ...
    results.csv          all finished steps, made from the records
    *.npy                accuracy by group, confusion matrices
    run.log              what was said, unless --log_file names another file

Every file is written under a temporary name, flushed to disk and renamed, so that what a name
shows is always complete. TensorFlow writes its checkpoints otherwise: they are flushed before
anything relies on them, and read back before they are used.
"""

import contextlib
import csv
import errno
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
flags.DEFINE_bool('store_last', False, 'store exemplars after the last step too, so that a further '
                  'one could have them; in a finished run, evaluates its last step again for that')

VERSION = 1
_EXPERIMENT = 'experiment.json'
_LOCK = 'lock'
_RESULTS = 'results.csv'
LOG_FILE = 'run.log'
CLUSTER = 'cluster.json'  # where the workers of a job of several machines find its chief
_OWN_NAMES = re.compile(
    r'((experiment\.json|cluster\.json|results\.csv|classes\.txt|predictions_\d+\.csv|'
    r'\d+_step\.json|(group_accuracy|confusion)\w*\.npy)(\.tmp)?|lock|run\.log|summary|'
    r'\d+_(classifier|bias))$')
_CHECKPOINT_FILE = re.compile(r'(model\.ckpt-\d+)\.(index|meta|data-\d+-of-\d+)$')
# Stands in experiment.json while what was there is being deleted.
_DELETING = {'deleting': True}
_held = {}  # absolute model_dir -> (device, inode) of the lock that this process holds there


def check_held(model_dir):
    """Raises UserError where `model_dir` was deleted or moved since this process took hold of it.

    What is written then would end up in a folder that nothing can go on from.
    """
    held, found = _held.get(os.path.abspath(model_dir)), None
    if held is not None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(os.path.join(model_dir, _LOCK))
        if found is None or (found.st_dev, found.st_ino) != held:
            raise UserError('--model_dir={}: was deleted or moved while the run went on; put it '
                            'back and {}, or start anew'.format(model_dir, GO_ON))


def write_atomically(path, content):
    """Writes bytes so that `path` holds either what it held before or all of `content`.

    Raises:
        OSError: of the file system. UserError: as check_held does.
    """
    check_held(os.path.dirname(path))
    files.write(path, content, path + '.tmp')
    files.flush(os.path.dirname(path) or '.')


def write_array(model_dir, name, array):
    """Writes a NumPy array as .npy, atomically."""
    content = io.BytesIO()
    np.save(content, array)
    write_atomically(os.path.join(model_dir, name), content.getvalue())


def _json_bytes(value):
    return (json.dumps(value, indent=1) + '\n').encode('utf-8')  # in the order of results.csv


def _with_checksum(value):
    return dict(value, checksum=hashlib.sha256(_json_bytes(value)).hexdigest())


def _read_checked(path):
    """The dict of a file that _with_checksum made; raises ValueError where it is damaged."""
    with open(path, 'rb') as file:
        content = file.read()
    try:
        value = json.loads(content.decode('utf-8'))
        if not isinstance(value, dict) or _with_checksum(
                {name: item for name, item in value.items() if name != 'checksum'}) != value:
            raise ValueError('checksum does not fit')
    except RecursionError:
        raise ValueError('nested too deeply') from None
    return value


def identity(settings, digests):
    """What an experiment is, as a dict: its Settings, its list files' digests, this layout."""
    return json.loads(json.dumps({
        'state_version': VERSION, 'settings': settings._asdict(), 'lists': digests}))


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


def _what_differs(found, wanted):
    """Why an experiment with another identity is not this one; None: damaged."""
    if found is None:
        return 'is damaged'
    if found.get('state_version') != wanted['state_version']:
        return ('was written by another version of this program (state version {}, here {})'.format(
            str(found.get('state_version'))[:40], wanted['state_version']))
    return 'another experiment was made here: ' + differences(found, wanted)


def read_experiment(model_dir):
    """The identity of the experiment in `model_dir`; None where there is none.

    Raises:
        UserError: its file is damaged or another version's.
    """
    path = os.path.join(model_dir, _EXPERIMENT)
    if not os.path.isdir(model_dir):
        raise UserError('--model_dir={}: no such folder'.format(model_dir))
    if not os.path.exists(path):
        return None
    try:
        found = _read_checked(path)
        if found['state_version'] != VERSION:
            raise ValueError('another version')
        return found
    except (ValueError, KeyError):
        raise UserError('{}: is damaged or another version\'s; put it back, or name another '
                        '--model_dir'.format(path)) from None


def check_lists(found, digests, model_dir, data_dir):
    """Raises UserError where an experiment was made on other lists than these."""
    if found['lists'] != digests:
        raise UserError('--data_dir={}: other lists than those of --model_dir={}: {}'.format(
            data_dir, model_dir, differences(found['lists'], digests)))


def _claim(model_dir, settings, digests, overwrite, keep_checkpoints):
    """Makes `model_dir` this experiment's, or finds that it is; raises UserError if it is not.

    Returns:
        Whether checkpoints were to be kept so far.
    """
    def write():
        write_atomically(path, _json_bytes(_with_checksum(
            dict(wanted, keep_checkpoints=True) if keep_checkpoints else wanted)))

    path, wanted = os.path.join(model_dir, _EXPERIMENT), identity(settings, digests)
    with contextlib.suppress(FileNotFoundError):
        os.remove(path + '.tmp')  # of a process killed while it wrote
    others = [name for name in os.listdir(model_dir) if name not in (_EXPERIMENT, _LOCK, CLUSTER)]
    if os.path.exists(path):
        try:
            found = _read_checked(path)
            found.pop('checksum')
            kept = found.pop('keep_checkpoints', False)
            if found != _DELETING and found['state_version'] == VERSION:
                found = identity(settings.from_dict(found['settings']), found['lists'])
        except (ValueError, KeyError, TypeError):
            found = None
        if found == wanted:
            if keep_checkpoints not in (None, kept):
                write()
            return kept
        if not overwrite and found != _DELETING:
            raise UserError('{}: {}; choose another --model_dir, or --overwrite to delete what is '
                            'there'.format(path, _what_differs(found, wanted)))
    foreign = [name for name in others if not _OWN_NAMES.match(name)]
    if foreign or (others and not os.path.exists(path)):
        raise UserError('{}: holds {}, which no experiment made here; choose another '
                        '--model_dir'.format(model_dir, (foreign or others)[0]))
    if others:
        write_atomically(path, _json_bytes(_with_checksum(_DELETING)))
    for name in others:
        delete(os.path.join(model_dir, name))
    write()
    return False


def _not_writable(model_dir, error):
    return UserError('--model_dir={}: cannot be written: {}'.format(model_dir, error.strerror))


def make(model_dir):
    """Makes the folder where it is missing; raises UserError where that fails."""
    try:
        model_dir.encode('utf-8')
    except UnicodeEncodeError:
        raise UserError('--model_dir={}: TensorFlow writes only where the path is UTF-8; choose '
                        'another'.format(model_dir)) from None
    try:
        os.makedirs(model_dir, exist_ok=True)
    except OSError as error:
        raise _not_writable(model_dir, error) from None


def _opened_lock(model_dir):
    try:
        return open(os.path.join(model_dir, _LOCK), 'a')
    except OSError as error:
        raise _not_writable(model_dir, error) from None


@contextlib.contextmanager
def experiment(model_dir, settings, digests, overwrite, keep_checkpoints=None):
    """Holds `model_dir` for one process; the experiment in it is the one described, or new.

    Args:
        model_dir: folder, made where it is missing.
        settings: the experiment's Settings.
        digests: dict of the list files' digests.
        overwrite: bool, deletes an experiment with other settings or lists.
        keep_checkpoints: bool, from now on; None: as before.

    Yields:
        bool, whether checkpoints are kept from now on.

    Raises:
        UserError: the folder is another experiment's, in use, or cannot be written.
    """
    make(model_dir)
    with _opened_lock(model_dir) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise UserError('--model_dir={}: another process is running this experiment; wait for '
                            'it or choose another folder'.format(model_dir)) from None
        keeps = kept = _claim(model_dir, settings, digests, overwrite, keep_checkpoints)
        if keep_checkpoints is not None:
            keeps = keep_checkpoints
            if kept and not keeps:
                LOG.info('--nokeep_checkpoints: the classifiers kept so far are deleted')
        _remove_leftovers(model_dir)
        status = os.fstat(lock.fileno())
        _held[os.path.abspath(model_dir)] = status.st_dev, status.st_ino
        try:
            yield keeps
        finally:
            del _held[os.path.abspath(model_dir)]


def _remove_leftovers(model_dir):
    """Deletes what processes that were killed left behind: half-written files, parts of them."""
    for name in os.listdir(model_dir):
        path = os.path.join(model_dir, name)
        if name.endswith('.tmp') and _OWN_NAMES.match(name):
            os.remove(path)
        elif re.match(r'\d+_(classifier|bias)$', name) and os.path.isdir(path):
            entries = os.listdir(path)
            for entry in entries:
                parts = _CHECKPOINT_FILE.match(entry)
                # TensorFlow's temporary names: model.ckpt-12_temp_5c0f/, checkpoint.tmp5c0f, ...;
                # its index is written last.
                if (re.search(r'\.tmp[0-9a-f]+$|_temp(_[0-9a-f]+)?$|\.tempstate\d+$', entry)
                        or parts and parts.group(1) + '.index' not in entries):
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
    write_atomically(_record_path(model_dir, step), _json_bytes(_with_checksum(record)))
    return record


def finished_steps(model_dir, num_steps=None):
    """The records of the finished steps from 0 on, dicts as save_step wrote them.

    A damaged one counts as not finished: the step's evaluation and selection are done again. So
    does the last of `num_steps` where --store_last asks for exemplars that it did not store.

    Raises:
        UserError: a record is damaged or missing and a later one is there. What the step could be
            evaluated with is deleted by then.
    """
    records, damaged = [], False
    while not damaged and os.path.exists(_record_path(model_dir, len(records))):
        path = _record_path(model_dir, len(records))
        try:
            record = _read_checked(path)
            if record.get('step') != len(records):
                raise ValueError('another step')
            records.append(record)
        except ValueError:
            damaged = True
            LOG.info('warning: %s is damaged; its step is evaluated again', path)
    later = [name for name in os.listdir(model_dir) if re.match(r'\d+_step\.json$', name)
             and int(name.split('_')[0]) > len(records)]
    if later:
        raise UserError('{}: is {}, but a later step is finished ({}); put it back, or start anew '
                        'with another --model_dir'.format(
                            _record_path(model_dir, len(records)),
                            'damaged' if damaged else 'missing', min(later)))
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
    columns = [name for name, value in rows[0].items() if not isinstance(value, list)]
    write_table(model_dir, _RESULTS, columns, [[row[name] for name in columns] for row in rows])
    for suffix in ('', '_before'):
        accuracy = np.full([num_steps] * 2, np.nan)
        for step, row in enumerate(rows):
            accuracy[step, :step + 1] = row['group_top1' + suffix]
        write_array(model_dir, 'group_accuracy{}.npy'.format(suffix), accuracy)
