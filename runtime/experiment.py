"""The experiment that owns a model_dir: its identity, its lock, and which files are its own."""

import contextlib
import json
import os
import re

from absl import flags

from runtime import LOG, files
from runtime.errors import UserError
from runtime.state import delete, read_checked, write_checked

flags.DEFINE_bool('overwrite', False,
                  'If --model_dir contains a different experiment, delete it and start over.')
flags.DEFINE_bool('keep_checkpoints', None, 'Keep the classifier of every step, for --eval_only '
                  'and --export_step. Later starts remember it until --nokeep_checkpoints. '
                  '(default: keep that of the last finished step)')

VERSION = 1
_EXPERIMENT = 'experiment.json'
_LOCK = 'lock'
_PROBE = 'probe.tmp'
_OWN_NAMES = re.compile(
    r'((experiment\.json|summary\.json|results\.csv|classes\.txt|'
    r'predictions_\d+\.csv|\d+_step\.json|(group_accuracy|confusion)\w*\.npy)'
    r'(\.tmp)?|probe(\.tmp){1,2}|lock|run\.log|summary|\d+_(classifier|bias))$')
_OWN_FILES = 'own_files'  # other paths in model_dir that this program made, in experiment.json
# What _decide returns.
NEW, SAME, OTHER, FOREIGN = 'new', 'same', 'other', 'foreign'


def _plain(settings):
    return json.loads(json.dumps(settings._asdict()))


def identity(settings, digests):
    """Return what an experiment is, as a dict: Settings, digests of its list files, this layout."""
    return {'state_version': VERSION, 'settings': _plain(settings), 'lists': digests}


def differences(there, now):
    """Return 'seed: 1 there, 2 now; ...' for two identities (nested dicts)."""
    found = []
    for name in sorted(set(there) | set(now)):
        old, new = there.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found.append(differences(old, new))
        elif old != new:
            found.append(f'{name}: {str(old)[:40]} there, {str(new)[:40]} now')
    return '; '.join(filter(None, found))


def read_experiment(model_dir):
    """Return the identity of the experiment in `model_dir`; None if there is none.

    Raises:
        UserError: its file is corrupt, or was written by an incompatible version.
    """
    path = os.path.join(model_dir, _EXPERIMENT)
    if not os.path.isdir(model_dir):
        raise UserError(f'--model_dir={model_dir}: no such folder.')
    if not os.path.exists(path):
        return None
    found = read_checked(path)
    if found is None:
        raise UserError(f'{path} is corrupt. Restore it from a backup, or use another '
                        '--model_dir.')
    if found.get('state_version') != VERSION:
        raise UserError(f'{path} was written by an incompatible version (state version '
                        f'{found.get("state_version")}). Use that version, or another --model_dir.')
    return found


def check_lists(found, digests, model_dir, data_dir):
    """Raise UserError if an experiment was made with other list files."""
    if found['lists'] != digests:
        raise UserError(
            f'--data_dir={data_dir}: the lists are not those of the experiment in '
            f'--model_dir={model_dir} ({differences(found["lists"], digests)}). Use its lists: '
            'the classes and images of an experiment are fixed at its start.')


def _claim(model_dir, settings, digests, overwrite, options, lock_is_new):
    """Make `model_dir` this experiment's; raise UserError if it belongs to anything else.

    Args:
        options: {'keep_checkpoints': bool or None, 'skip_bad_images': bool,
            _OWN_FILES: list of paths relative to model_dir}.
        lock_is_new: bool, whether this start created the lock file.

    Returns:
        The options from now on.
    """
    path, wanted = os.path.join(model_dir, _EXPERIMENT), identity(settings, digests)
    delete(path + '.tmp')  # of a process killed while it wrote
    stored, before = _read_claimed(path, settings, options)
    foreign = _first_foreign(model_dir, stored is not None, before[_OWN_FILES])
    decision = _decide(stored, wanted, foreign)
    if decision == SAME:
        now = _merge_options(path, before, options)
        if now != before:
            _write_claim(path, wanted, now)
        return now
    if decision == OTHER and not overwrite:
        raise UserError(_other_experiment(model_dir, stored, wanted, settings))
    if foreign:  # even --overwrite deletes nothing of the user's
        if lock_is_new and decision == FOREIGN:
            delete(os.path.join(model_dir, _LOCK))
        raise UserError(f'--model_dir={model_dir} contains files that this program did not create '
                        f'({foreign}). Use an empty folder.')
    for name in _names(model_dir):
        delete(os.path.join(model_dir, name))
    now = dict(options, keep_checkpoints=bool(options['keep_checkpoints']))
    _write_claim(path, wanted, now)
    return now


def _decide(stored, wanted, foreign):
    """Return what model_dir is to the experiment `wanted`: NEW, SAME, OTHER or FOREIGN.

    Args:
        stored: the identity found there, {} if its file is corrupt, None if there is none.
        wanted: this experiment's identity.
        foreign: a file that this program did not create, or None.
    """
    if stored == wanted:
        return SAME
    if stored is not None:
        return OTHER
    return FOREIGN if foreign else NEW


def _read_claimed(path, settings, options):
    """Return (stored, options): as in _decide; the options stored with it."""
    stored, before = None, {}
    if os.path.exists(path):
        stored = read_checked(path) or {}
        before = {name: stored.pop(name) for name in options if name in stored}
        with contextlib.suppress(KeyError, TypeError):  # corrupt; of a later version
            stored['settings'] = _plain(settings.from_dict(stored['settings']))
    return stored, dict({'keep_checkpoints': False, 'skip_bad_images': False, _OWN_FILES: []},
                        **before)


def _merge_options(path, before, options):
    """Return the options of an experiment that is resumed; raise UserError if they clash."""
    if before['skip_bad_images'] and not options['skip_bad_images']:
        raise UserError(f'{path}: images were left out of this experiment. Add '
                        '--skip_bad_images.')
    now = {name: before[name] if value is None else value for name, value in options.items()}
    now[_OWN_FILES] = sorted(set(before[_OWN_FILES]).union(now[_OWN_FILES]))
    if before['keep_checkpoints'] and not now['keep_checkpoints']:
        LOG.info('--nokeep_checkpoints: deleting the classifiers kept so far')
    return now


def _write_claim(path, wanted, options):
    write_checked(path, dict(wanted, **{name: value for name, value in options.items() if value}))


def _names(model_dir):
    """Return the names in `model_dir`, without the files that outlive an experiment."""
    return [name for name in os.listdir(model_dir) if name not in (_EXPERIMENT, _LOCK)]


def _first_foreign(model_dir, claimed, own_files):
    """Return a name in `model_dir` that this program did not create; None if there is none.

    Args:
        claimed: bool, whether an experiment is there. Without one nothing is ours.
        own_files: relative paths that the program created besides its usual names.
    """
    for name in _names(model_dir):
        if claimed and _OWN_NAMES.match(name):
            continue
        found = [os.path.relpath(os.path.join(folder, file), model_dir)
                 for folder, _, names in os.walk(os.path.join(model_dir, name)) for file in names]
        if not claimed or not all(_is_in(file, own_files) for file in found or [name]):
            return name
    return None


def _is_in(path, own_files):
    return any(path == own or path.startswith(own + os.sep) for own in own_files)


def _other_experiment(model_dir, stored, wanted, settings):
    """Return the message that refuses a different experiment; it says what --overwrite deletes."""
    steps = sum(bool(re.match(r'\d+_step\.json$', name)) for name in os.listdir(model_dir))
    if not stored:
        return (f'{os.path.join(model_dir, _EXPERIMENT)} is corrupt. Restore it from a backup, or '
                f'use another --model_dir. (--overwrite would delete {steps} finished steps.)')
    different = differences(stored, wanted)
    total = None
    with contextlib.suppress(KeyError, TypeError, ValueError):
        total = settings.from_dict(stored['settings']).num_steps
    if steps == total:
        return (f'--model_dir={model_dir} contains a finished experiment with other settings '
                f'({different}). Use another --model_dir. (--overwrite would delete its results.)')
    done = f', with {steps} finished steps' if steps else ''
    return (f'--model_dir={model_dir} already contains a different experiment ({different}){done}. '
            'Use another --model_dir, or --overwrite to delete it.')


def remember_file(model_dir, path):
    """Note in experiment.json that the program made `path`, if that is inside `model_dir`.

    Only such files, and those with the usual names, are deleted by --overwrite.
    """
    own, claim = _inside(model_dir, path), os.path.join(model_dir, _EXPERIMENT)
    found = read_checked(claim) if own and os.path.exists(claim) else None
    if found is not None and own[0] not in found.get(_OWN_FILES, []):
        write_checked(claim, dict(found, **{_OWN_FILES: found.get(_OWN_FILES, []) + own}))


def _inside(model_dir, path):
    """Return [`path` relative to `model_dir`], or [] if it is not inside or has a usual name."""
    relative = os.path.relpath(os.path.realpath(path), os.path.realpath(model_dir))
    outside = relative.split(os.sep)[0] in (os.curdir, os.pardir)
    return [] if outside or _OWN_NAMES.match(relative) else [relative]


def _open_lock(model_dir):
    """Create the folder if it is missing; return (lock file, open; whether it is new).

    Raises:
        UserError: the folder cannot be created or written.
    """
    files.check_path(model_dir, f'--model_dir={model_dir}')
    path = os.path.join(model_dir, _LOCK)
    try:
        os.makedirs(model_dir, exist_ok=True)
        try:
            return open(path, 'x'), True
        except FileExistsError:
            return open(path, 'a'), False
    except OSError as error:
        raise UserError(_not_writable(model_dir, error.filename or path, error)) from None


def _not_writable(model_dir, path, error):
    return (f'--model_dir={model_dir}: cannot write {path} ({error.strerror}). Use a folder that '
            'you can write.')


def check_writable(model_dir):
    """Raise UserError now if what a run does after hours of work would fail: replace files."""
    path = os.path.join(model_dir, _PROBE)
    try:
        for content in (b'', b'replaced'):
            files.write(path, content, path + '.tmp')
        os.remove(path)
    except OSError as error:
        raise UserError(_not_writable(model_dir, path, error)) from None
    for name in filter(_OWN_NAMES.match, os.listdir(model_dir)):
        path = os.path.join(model_dir, name)
        if os.path.isdir(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(f'{path}: permission denied. Change the owner or the permissions of '
                            'this folder.')


@contextlib.contextmanager
def hold_model_dir(model_dir, settings, digests, overwrite, keep_checkpoints=None,
                   skip_bad_images=False, log_file=None):
    """Hold `model_dir` for one process; the experiment in it is the one described, or new.

    Args:
        settings, digests: as for identity.
        overwrite: bool, delete an experiment with other settings or lists.
        keep_checkpoints: bool, from now on; None: as before.
        skip_bad_images: bool, whether images may be left out; from then on they must be.
        log_file: path of the log, or None for the usual one.

    Yields:
        bool, whether checkpoints are kept from now on.

    Raises:
        UserError: the folder belongs to something else, is in use, or cannot be written.
    """
    lock, lock_is_new = _open_lock(model_dir)
    with lock:
        try:
            if not files.lock(lock):
                LOG.info('warning: %s: this file system has no locks. Make sure that no other '
                         'process uses this --model_dir.', lock.name)
        except BlockingIOError:
            raise UserError(f'--model_dir={model_dir}: another process is running this experiment. '
                            'Wait for it, or use another --model_dir.') from None
        own = [] if log_file is None or os.path.exists(log_file) else _inside(model_dir, log_file)
        options = _claim(model_dir, settings, digests, overwrite, {
            'keep_checkpoints': keep_checkpoints, 'skip_bad_images': skip_bad_images,
            _OWN_FILES: own}, lock_is_new)
        check_writable(model_dir)
        _remove_leftovers(model_dir)
        yield options['keep_checkpoints']


def _remove_leftovers(model_dir):
    """Delete what killed processes left half written."""
    for name in os.listdir(model_dir):
        path = os.path.join(model_dir, name)
        if name.endswith('.tmp') and _OWN_NAMES.match(name):
            os.remove(path)
        elif re.match(r'\d+_(classifier|bias)$', name) and os.path.isdir(path):
            for entry in os.listdir(path):
                # TensorFlow's temporary names: model.ckpt-12_temp_5c0f/, checkpoint.tmp5c0f, ...
                if re.search(r'\.tmp[0-9a-f]+$|_temp(_[0-9a-f]+)?$|\.tempstate\d+$', entry):
                    delete(os.path.join(path, entry))
