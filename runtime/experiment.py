"""The experiment that owns a model_dir: its identity, its lock, and which files are its own."""

import contextlib
import json
import os
import re

from absl import flags

from runtime import LOG, files
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.state import delete, read_checked, write_checked

flags.DEFINE_bool('overwrite', False,
                  'If --model_dir contains a different experiment, delete it and start over.')
flags.DEFINE_bool('keep_checkpoints', None, 'Keep the classifier of every step, for --eval_only '
                  'and --export_step. Later starts remember it until --nokeep_checkpoints. '
                  '(default: keep that of the last finished step)')

STATE_VERSION = 1
_EXPERIMENT = 'experiment.json'
_LOCK = 'lock'
# Every name that a run writes into model_dir. --overwrite deletes no others.
_OWN_NAMES = re.compile(
    r'((experiment\.json|summary\.json|results\.csv|classes\.txt|'
    r'predictions_\d+\.csv|\d+_step\.json|(group_accuracy|confusion)\w*\.npy)'
    r'(\.tmp)?|probe\w*(\.tmp){1,2}|lock|run\.log|summary|\d+_(classifier|bias))$')
# The defaults of the options that experiment.json remembers.
_OPTIONS = {'keep_checkpoints': False, 'skip_bad_images': False}
_REMEDY = 'Use a writable folder.'


def _plain(settings):
    return json.loads(json.dumps(settings._asdict()))


def identity(settings, digests):
    """Return what identifies an experiment, as a dict: Settings, list digests, state version."""
    return {'state_version': STATE_VERSION, 'settings': _plain(settings), 'lists': digests}


def differences(stored, wanted):
    """Return 'seed: 1 there, 2 now; ...' for two identities (nested dicts)."""
    texts = []
    for name in sorted(set(stored) | set(wanted)):
        old, new = stored.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            texts.append(differences(old, new))
        elif old != new:
            texts.append(f'{name}: {str(old)[:40]} there, {str(new)[:40]} now')
    return '; '.join(filter(None, texts))


def has_begun(model_dir):
    """Return whether `model_dir` contains an experiment. Raises OSError if it cannot be read."""
    return os.path.isdir(model_dir) and _EXPERIMENT in os.listdir(model_dir)


def read_experiment(model_dir):
    """Return the identity of the experiment in `model_dir`; None if there is none.

    Raises UserError if the folder does not exist, or if its experiment.json is corrupt or was
    written by an incompatible version.
    """
    path = os.path.join(model_dir, _EXPERIMENT)
    if not os.path.isdir(model_dir):
        raise UserError(f'--model_dir={model_dir}: no such folder. Use the folder of a run.')
    if not has_begun(model_dir):
        return None
    stored = read_checked(path)
    if stored is None:
        raise UserError(f'{path} is corrupt. Restore it from a backup, or use another --model_dir.')
    if stored.get('state_version') != STATE_VERSION:
        raise UserError(f'{path} was written by an incompatible version (state version '
                        f'{stored.get("state_version")}). Use that version, or another '
                        '--model_dir.')
    return stored


def check_lists(stored, digests, model_dir, data_dir):
    """Raise UserError if an experiment was made with other list files."""
    if stored['lists'] != digests:
        raise UserError(
            f'--data_dir={data_dir}: the lists are not those of the experiment in '
            f'--model_dir={model_dir} ({differences(stored["lists"], digests)}). Use its lists: '
            'the classes and images of an experiment are fixed at its start.')


def _claim(model_dir, wanted, options, overwrite):
    """Create or resume the experiment `wanted` in `model_dir`; raise UserError if it has another.

    `options`: {name: bool} as in _OPTIONS, or None for keep_checkpoints to leave it unchanged.
    `overwrite`: whether to delete another experiment. Returns the options now in effect.
    """
    path = os.path.join(model_dir, _EXPERIMENT)
    delete(path + '.tmp')  # of a process killed while it wrote
    stored, before = _read_claim(path)
    if stored == wanted:
        if overwrite:
            LOG.info('--overwrite: nothing is deleted, because --model_dir has this experiment.')
        now = _merge_options(path, before, options)
        if now != before:
            _write_claim(path, wanted, now)
        return now
    if stored is not None and not overwrite:
        raise UserError(_other_experiment(model_dir, stored, wanted))
    names = [name for name in os.listdir(model_dir) if name not in (_EXPERIMENT, _LOCK)]
    foreign = [name for name in names if stored is None or not _OWN_NAMES.match(name)]
    if foreign:  # even --overwrite deletes nothing of the user's
        raise UserError(f'--model_dir={model_dir} contains files that are not part of an '
                        f'experiment ({foreign[0]}). Move them away, or use an empty folder.')
    for name in names:
        delete(os.path.join(model_dir, name))
    now = dict(options, keep_checkpoints=bool(options['keep_checkpoints']))
    _write_claim(path, wanted, now)
    return now


def _read_claim(path):
    """Return (identity, options) in experiment.json; the identity is {} if it is corrupt.

    Without the file the identity is None.
    """
    if not os.path.exists(path):
        return None, dict(_OPTIONS)
    stored = read_checked(path) or {}
    stored.pop('own_files', None)  # from an earlier version
    options = {name: stored.pop(name, default) for name, default in _OPTIONS.items()}
    with contextlib.suppress(KeyError, TypeError):  # corrupt, or from another version
        stored['settings'] = _plain(Settings.from_dict(stored['settings']))
    return stored, options


def _merge_options(path, before, options):
    """Return the options of an experiment that is resumed; raise UserError if they clash."""
    if before['skip_bad_images'] and not options['skip_bad_images']:
        raise UserError(f'{path}: this experiment uses --skip_bad_images. Add the flag.')
    if options['keep_checkpoints'] is None:
        return dict(options, keep_checkpoints=before['keep_checkpoints'])
    if before['keep_checkpoints'] and not options['keep_checkpoints']:
        LOG.info('--nokeep_checkpoints: deleting the classifiers kept so far')
    return options


def _write_claim(path, wanted, options):
    write_checked(path, dict(wanted, **{name: value for name, value in options.items() if value}))


def _other_experiment(model_dir, stored, wanted):
    """Return the message that refuses a different experiment; it says what --overwrite deletes."""
    steps = sum(bool(re.match(r'\d+_step\.json$', name)) for name in os.listdir(model_dir))
    if not stored:
        return (f'{os.path.join(model_dir, _EXPERIMENT)} is corrupt. Restore it from a backup, or '
                f'use another --model_dir. (--overwrite would delete {steps} finished steps.)')
    different = differences(stored, wanted)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        if steps == Settings.from_dict(stored['settings']).num_steps:
            return (f'--model_dir={model_dir} contains a different, finished experiment '
                    f'({different}). Use another --model_dir. (--overwrite would delete its '
                    'results.)')
    done = f', with {steps} finished steps' if steps else ''
    return (f'--model_dir={model_dir} already contains a different experiment ({different}){done}. '
            'Use another --model_dir, or --overwrite to delete it.')


def check_writable(model_dir):
    """Raise UserError if files in `model_dir` cannot be replaced, before hours of training."""
    files.check_writable(model_dir, f'--model_dir={model_dir}', _REMEDY)
    for name in filter(_OWN_NAMES.match, os.listdir(model_dir)):
        path = os.path.join(model_dir, name)
        if os.path.isdir(path) and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(f'{path}: permission denied. Change the owner or the permissions of '
                            'this folder.')


@contextlib.contextmanager
def hold_model_dir(model_dir, settings, digests, overwrite, keep_checkpoints=None,
                   skip_bad_images=False):
    """Lock `model_dir` for this process, and create the described experiment or resume it.

    Args:
        model_dir: folder of the experiment.
        settings, digests: as for identity.
        overwrite: bool, delete an experiment with other settings or lists.
        keep_checkpoints: bool, from now on; None: as before.
        skip_bad_images: bool, whether images may be left out; from then on they must be.

    Yields:
        bool, whether checkpoints are kept from now on.

    Raises:
        UserError: the folder belongs to something else, is in use, or cannot be written.
    """
    files.check_path(model_dir, f'--model_dir={model_dir}')
    path = os.path.join(model_dir, _LOCK)
    lock_is_new = not os.path.exists(path)
    with files.refused_if_unwritable(f'--model_dir={model_dir}', _REMEDY):
        os.makedirs(model_dir, exist_ok=True)
        lock = open(path, 'a')
    with lock:
        try:
            if not files.lock(lock):
                LOG.info('warning: %s: this file system has no locks. Make sure that no other '
                         'process uses this --model_dir.', path)
        except BlockingIOError:
            raise UserError(f'--model_dir={model_dir}: another process is using this folder. '
                            'Wait until it ends, or use another --model_dir for another '
                            'experiment.') from None
        try:
            options = _claim(model_dir, identity(settings, digests), dict(
                keep_checkpoints=keep_checkpoints, skip_bad_images=skip_bad_images), overwrite)
        except UserError:
            if lock_is_new:  # leave nothing in a folder of something else
                delete(path)
            raise
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
