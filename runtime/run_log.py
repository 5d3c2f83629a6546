"""The log, on the console and in a file, and the event files for TensorBoard."""

import contextlib
import datetime
import errno
import json
import logging.handlers
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import time

import tensorflow.compat.v1 as tf
from absl import flags

from runtime import LOG, ROOT, VERSION, num_cores
from runtime.errors import DISK_FULL, RESUME, UserError

FLAGS = flags.FLAGS
MAX_OPEN_EVENT_FILES = 3  # those of summary/ and of the two stages of a step
ADVICE = {errno.EACCES: 'Change its permissions', errno.EPERM: 'Change its permissions',
          errno.EROFS: 'Make it writable', errno.EMFILE: 'Raise the limit of open files',
          **dict.fromkeys(DISK_FULL, 'Free some space')}
# Warnings from before the log file is open.
_early_warnings = logging.handlers.MemoryHandler(1000, flushLevel=logging.CRITICAL)
_early_warnings.addFilter(lambda record: record.getMessage().startswith('warning: '))
_events = {}  # folder -> the writer of its events
_began = {'run': time.monotonic(), 'step': time.monotonic()}


class _PathParser(flags.ArgumentParser):
    """Parses a flag that names a file or folder: expands `~` and makes the path absolute."""

    def parse(self, argument):
        if not argument:  # an empty variable of the shell, not the current folder
            raise ValueError('the path is empty')
        return os.path.abspath(os.path.expanduser(argument))


def define_path(name, text):
    """Define a flag for a file or a folder."""
    flags.DEFINE(_PathParser(), name, None, text)


define_path('log_file', 'File of the log. Modes that do not train write no log. (default: run.log '
            'in --model_dir)')


class _LogFile(logging.handlers.WatchedFileHandler):
    """A log file that is created again if it was deleted or moved away."""

    def _open(self):
        return open(self.baseFilename, self.mode, encoding='utf-8', errors='backslashreplace')

    def handleError(self, record):
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            error.filename = self.baseFilename
        raise error  # a full disk must not go unnoticed


def open_log(path):
    """Send plain lines to the console and to the end of the file `path`; None: console only.

    Lines for programs (LOG.debug) go to the file only.
    """
    LOG.setLevel(logging.DEBUG)
    LOG.propagate = False
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors='backslashreplace')  # file names may be any bytes
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    console.addFilter(lambda record: record.levelno < logging.ERROR)  # those go to stderr
    console.handleError = lambda record: None  # a run outlives its terminal
    if path is None:
        _early_warnings.buffer.clear()
        handlers = [console, _early_warnings]
    else:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        handlers = [console, _LogFile(path)]
    for handler in handlers:
        handler.setFormatter(logging.Formatter('%(message)s'))
        LOG.addHandler(handler)


def _is_log_of(value, settings, digests):
    """Return whether `value`, the JSON of a log's settings line, describes this experiment."""
    try:
        lists = value.pop('lists', digests)  # early logs do not have them
        return lists == digests and settings.from_dict(value) == settings
    except (AttributeError, KeyError, TypeError):  # from another program
        return False


def check_log(path, settings, digests):
    """Raise UserError if the log file `path` exists and ends with another experiment.

    `settings`, `digests`: as for experiment.identity.
    """
    same = True
    with contextlib.suppress(FileNotFoundError), open(path, 'rb') as file:
        for line in file:
            if line.startswith(b'settings: '):
                with contextlib.suppress(ValueError):  # cut off
                    same = _is_log_of(json.loads(line[len(b'settings: '):]), settings, digests)
    if not same:
        raise UserError(f'--log_file={path} is the log of another experiment. Use another file.')


def write_last_line(line):
    """Write the line that ends a program to stderr, and to the log if it is open."""
    if LOG.handlers:
        with contextlib.suppress(OSError):
            LOG.error('%s', line)
    with contextlib.suppress(OSError):  # the terminal is closed
        os.write(2, f'{line}\n'.encode('utf-8', 'backslashreplace'))


def failure(error):
    """Return one line on what ended a run: UserError, OSError, MemoryError or OpError."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return _out_of_memory('')
    if isinstance(error, OSError):
        what = f'{error.filename}: ' if error.filename else ''
        advice = ADVICE.get(error.errno, 'Fix this')
        reason = str(error.strerror or error).rstrip('.')
        return f'{what}{reason[:1].lower()}{reason[1:]}. {advice}, then {RESUME}.'
    line = op_error_reason(error)
    # Too many open files and a full disk are ResourceExhaustedErrors, too.
    advice = next((ADVICE[number] for number in ADVICE
                   if os.strerror(number) in (error.message or '')), None)
    if advice is None and isinstance(error, tf.errors.ResourceExhaustedError):
        return _out_of_memory(f' ({line})')
    return f'{line}. {advice or "Fix this"}, then {RESUME}.'


def op_error_reason(error):
    """Return the reason of an OpError in one line, without TensorFlow's stack and node names."""
    text = re.sub(r'Graph execution error:.*\nNode: [^\n]*\n|\d+ root error.s. found\.\s*\(0\)'
                  r'|\{\{function_node \S+\}\}', '', error.message or repr(error), flags=re.DOTALL)
    return text.strip().split('\n')[0].rstrip('.')


def _out_of_memory(details):
    return (f'out of memory{details}. Free memory and rerun the same command, or start a new '
            '--model_dir with a smaller --batch_size.')


def duration(seconds):
    """Return h:mm:ss; for None 'unknown'."""
    if seconds is None:
        return 'unknown'
    minutes, seconds = divmod(int(round(seconds)), 60)
    return f'{minutes // 60}:{minutes % 60:02}:{seconds:02}'


def _revision():
    """Return the git revision of this program, or its version if there is none."""
    if os.path.exists(os.path.join(ROOT, '.git')):  # not that of a folder around an unpacked copy
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(  # with --git-dir, git also reads another user's checkout
                ['git', '--git-dir=.git', '--no-optional-locks', 'describe', '--always',
                 '--dirty'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                universal_newlines=True, timeout=10, check=True).stdout.strip()
    return VERSION


def log_start(data_dir):
    """Log the time, the versions, the command and the data folder."""
    _began['run'] = time.monotonic()
    now = datetime.datetime.now().astimezone().strftime('%Y-%m-%d %H:%M:%S %z')
    LOG.info('%s, BiC %s, Python %s, TensorFlow %s, %d CPU cores', now, _revision(),
             platform.python_version(), tf.__version__, num_cores())
    LOG.info('command: %s', ' '.join(map(shlex.quote, [os.path.basename(sys.executable)]
                                         + sys.argv)))
    LOG.info('data: %s', data_dir)
    for record in _early_warnings.buffer:  # they were on the console
        _log_file().handle(record)


def _log_file():
    log_file, = [handler for handler in LOG.handlers if isinstance(handler, _LogFile)]
    return log_file


def log_end():
    """Log the time since log_start and the command that makes a report."""
    paths = [os.path.join(ROOT, 'logs', 'report.py'), _log_file().baseFilename]
    short = [path if relative.startswith(os.pardir) else relative
             for path, relative in zip(paths, map(os.path.relpath, paths))]
    python = os.path.relpath(sys.executable)
    if python.startswith(os.pardir):
        python = os.path.basename(sys.executable)  # as in the line `command:`
    LOG.info('finished in %s; report: %s', duration(time.monotonic() - _began['run']),
             ' '.join(map(shlex.quote, [python] + short)))


def log_settings(settings, digests):
    """Log the settings and the digests of the lists as one line of JSON, for programs."""
    LOG.debug('settings: %s', json.dumps(dict(settings._asdict(), lists=digests)))


def log_counts(step, counts):
    """Log the lines that open a step in the authors' log; `counts`: training, val, test images."""
    _began['step'] = time.monotonic()
    LOG.info('Batch of classes number %d arrives ...', step + 1)
    LOG.info('%s, #training: %d, #val: %d, #test: %d',
             'first itera' if step == 0 else 'incremental iteras', *counts)


def log_updates(classifier, bias):
    """Log the updates of a step's stages; `classifier`, `bias`: Schedules, `bias` may be None."""
    LOG.info('updates: %d of the classifier, %d of the bias correction', classifier.num_updates,
             bias.num_updates if bias else 0)


def step_duration():
    """Return h:mm:ss since the lines that open the step."""
    return duration(time.monotonic() - _began['step'])


def warn(texts):
    """Log one line for each of `texts`."""
    for text in texts:
        LOG.info('warning: %s', text)


def percent(share):
    """Return '97.90%' for 0.979, '-' for a missing number."""
    return '-' if share is None else f'{100 * share:.2f}%'


def values_text(values):
    """Return 'loss 2.1070 = 0.2 · CE 0.3902 + ..., batch accuracy 87.50%' for a progress line.

    `values`: (curve, text before the number or None to leave it out, number).
    """
    def shown(curve, number):
        return percent(number) if curve.endswith('accuracy') else f'{number:.4f}'

    return ''.join(f'{text} {shown(curve, number)}' for curve, text, number in values if text)


def _write_event(directory, **fields):
    """Write an event for TensorBoard; raise OpError if that fails.

    tf.summary.FileWriter has a thread that prints errors of the disk and does not raise them.
    """
    if directory not in _events:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory)  # not its parents: a model_dir that was moved is not made again
        _events[directory] = tf.python_io.TFRecordWriter(os.path.join(
            directory, f'events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.'
            f'{os.getpid()}'))
        _write_event(directory, file_version='brain.Event:2')
    _events[directory] = _events.pop(directory)  # the most recently used comes last
    if len(_events) > MAX_OPEN_EVENT_FILES:
        _events.pop(next(iter(_events))).close()
    _events[directory].write(tf.Event(wall_time=time.time(), **fields).SerializeToString())
    _events[directory].flush()


def add_scalars(directory, position, values):
    """Add a point to curves for TensorBoard; `values`: pairs of tag and number."""
    _write_event(directory, step=position, summary=tf.Summary(value=[
        tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values]))
