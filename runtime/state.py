"""Files in model_dir: written atomically, checked when they are read, one record per step.

README.md in this folder lists the files. Those written here get a temporary name, are flushed and
renamed, so they are always complete. The log and the event files grow during a run. Checkpoints are
written by TensorFlow: runtime/checkpoints.py flushes those of the classifier stage, and reads them
back before they are used.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil

import numpy as np
from absl import flags

from runtime import LOG, files
from runtime.errors import UserError

FLAGS = flags.FLAGS
flags.DEFINE_bool('store_last', False, 'Choose exemplars after the last step, too. In a '
                  'finished run, this evaluates the last step again.')

LOG_FILE = 'run.log'
MAX_CONFUSION_CLASSES = 1000  # with more, the confusion matrices count groups


def write_atomically(path, content):
    """Write bytes to `path` as files.write does, and flush its folder. Raises OSError."""
    files.write(path, content, path + '.tmp')
    files.flush(os.path.dirname(path) or '.')


def write_array(model_dir, name, array):
    """Write a NumPy array as .npy, atomically."""
    content = io.BytesIO()
    np.save(content, array)
    write_atomically(os.path.join(model_dir, name), content.getvalue())


def write_table(model_dir, name, columns, rows):
    """Write a CSV file, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(os.path.join(model_dir, name),
                     text.getvalue().encode('utf-8', 'surrogateescape'))


def delete(path):
    """Delete a file or a folder, if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def json_bytes(value):
    """Return `value` as the bytes of a JSON file."""
    return (json.dumps(value, indent=1) + '\n').encode('utf-8')  # keys in the order of results.csv


def _checksum(value):
    return hashlib.sha256(json_bytes(value)).hexdigest()


def write_checked(path, value):
    """Write a dict as JSON with its checksum, atomically."""
    write_atomically(path, json_bytes(dict(value, checksum=_checksum(value))))


def read_checked(path):
    """Return the dict that write_checked wrote; None if the file is corrupt."""
    with open(path, 'rb') as file:
        content = file.read()
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        value = json.loads(content.decode('utf-8'))
        if value.pop('checksum') == _checksum(value):
            return value
    return None


def record_path(model_dir, step):
    """Return the file that marks `step` as finished."""
    return os.path.join(model_dir, f'{step}_step.json')


def save_step(model_dir, step, results, exemplars):
    """Mark `step` as finished.

    Args:
        results: the dict from results.compute_results. A missing number is None. In the file it is
            '', as in results.csv.
        exemplars: one list of image paths (str) per seen class, in the order chosen; [] if none
            were chosen.

    Returns:
        The record, as finished_steps returns it.
    """
    record = {'step': step, 'results': results, 'exemplars': exemplars}
    write_checked(record_path(model_dir, step), dict(record, results={
        name: '' if value is None else value for name, value in results.items()}))
    return record


def finished_steps(model_dir, num_steps=None):
    """Return the records of the finished steps from 0 on, dicts as save_step returned them.

    A step with a corrupt record counts as unfinished, and its evaluation and selection are
    repeated. So does the last of `num_steps` if --store_last is set and it stored no exemplars.

    Raises:
        UserError: a record is corrupt or missing, but a later one exists. The checkpoint needed to
            repeat the step is usually deleted by then.
    """
    records, path = [], record_path(model_dir, 0)
    while os.path.exists(path):
        record = read_checked(path)
        if record is None or record.get('step') != len(records):
            break
        record['results'] = {name: None if value == '' else value
                             for name, value in record['results'].items()}
        records.append(record)
        path = record_path(model_dir, len(records))
    damaged = os.path.exists(path)
    matches = [re.match(r'(\d+)_step\.json$', name) for name in os.listdir(model_dir)]
    later = [int(match.group(1)) for match in matches
             if match and int(match.group(1)) > len(records)]
    if later:
        raise UserError(f'{path} is {"corrupt" if damaged else "missing"} although a later step '
                        f'is finished ({min(later)}_step.json). Restore it from a backup, or start '
                        'over in a new --model_dir.')
    if damaged:
        LOG.info('warning: %s is corrupt. Its step counts as not finished.', path)
    if len(records) == num_steps and FLAGS.store_last and not records[-1]['exemplars']:
        records.pop()
    return records


def bias_of(record):
    """Return (beta, gamma) of a finished step."""
    return record['results']['beta'], record['results']['gamma']
