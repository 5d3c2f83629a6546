"""What a run says: the log on the console and in a file, the lines of a step, TensorBoard."""

import contextlib
import json
import logging.handlers
import os
import re
import socket
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf
from absl import flags

from runtime import LOG, state
from runtime.errors import GO_ON, UserError

FLAGS = flags.FLAGS
OPEN_EVENTS = 3  # the summary's, and those of the stages that may still be written
_events = {}  # folder -> the writer of its events


class _PathParser(flags.ArgumentParser):
    """Of flags that name a file or folder: absolute, with the home folder for `~`."""

    def parse(self, argument):
        if not argument:  # an empty variable of the shell; not the current folder
            raise ValueError('names no path')
        return os.path.abspath(os.path.expanduser(argument))


def define_path(name, text):
    """A flag for a file or a folder."""
    flags.DEFINE(_PathParser(), name, None, text)


define_path('log_file', 'the log (default: run.log in model_dir)')


class _LogFile(logging.handlers.WatchedFileHandler):
    """Made anew where it was deleted or moved away, so that nothing is said to nobody."""

    def _open(self):
        state.check_held(os.path.dirname(self.baseFilename))
        return open(self.baseFilename, self.mode, encoding='utf-8', errors='backslashreplace')

    def handleError(self, record):
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            error.filename = self.baseFilename
        raise error  # a full disk must not pass unseen


def open_log(path):
    """Sends the same plain lines to the console and to the end of the file `path`."""
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    if sys.stdout is not None:
        sys.stdout.reconfigure(errors='backslashreplace')  # names of files may be any bytes
    console = logging.StreamHandler(sys.stdout)
    console.addFilter(lambda record: record.levelno < logging.ERROR)  # those go to stderr
    console.handleError = lambda record: None  # a run outlives its terminal
    handlers = [console]
    if path is not None:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        handlers.append(_LogFile(path))
    for handler in handlers:
        handler.setFormatter(logging.Formatter('%(message)s'))
        LOG.addHandler(handler)


def _began(value, settings, digests):
    """Whether an experiment began with this value of its settings line."""
    try:
        # Once, the lists were not in it.
        return value.pop('lists', digests) == digests and settings.from_dict(value) == settings
    except (AttributeError, KeyError, TypeError):  # another program's
        return False


def check_log(path, settings, digests):
    """Raises UserError where the log `path` (None: no log) is another experiment's, by its end.

    `digests`: of the lists.
    """
    same = True
    with contextlib.suppress(FileNotFoundError), open(path or os.devnull, 'rb') as file:
        for line in file:
            if line.startswith(b'settings: '):
                with contextlib.suppress(ValueError):  # cut off
                    same = _began(json.loads(line[len(b'settings: '):]), settings, digests)
    if not same:
        raise UserError('--log_file={}: is the log of another experiment; choose another'.format(
            path))


def last_line(line):
    """The line that ends a program: to stderr, and to the log where it is open."""
    if LOG.handlers:
        with contextlib.suppress(OSError, UserError):
            LOG.error('%s', line)
    with contextlib.suppress(OSError):  # the terminal is closed
        os.write(2, '{}\n'.format(line).encode('utf-8', 'backslashreplace'))


def failure(error):
    """One line on what ended a run, UserError, OSError, MemoryError or OpError, and the way out."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        what = 'out of memory; free some or lower --batch_size'
    elif isinstance(error, OSError):
        what = '{}: {}; mend it'.format(error.filename or 'the system', error.strerror or error)
    else:
        # Neither TensorFlow's stack nor the names of its nodes.
        text = getattr(error, 'message', None) or repr(error)
        line = re.sub(r'Graph execution error:.*\nNode: [^\n]*\n|\d+ root error.s. found\.\s*\(0\)'
                      r'|\{\{function_node \S+\}\}', '', text, flags=re.DOTALL)
        line = line.strip().split('\n')[0]
        what = ('out of memory or disk space ({}); free some' if isinstance(
            error, tf.errors.ResourceExhaustedError) else '{}; mend it').format(line)
    return '{}, then {}'.format(what, GO_ON)


def duration(seconds):
    """h:mm:ss; None is unknown."""
    if seconds is None:
        return 'unknown'
    minutes, seconds = divmod(int(round(seconds)), 60)
    return '{}:{:02}:{:02}'.format(minutes // 60, minutes % 60, seconds)


def settings_line(settings, digests):
    """The settings, and the digests of the lists, as one JSON object in one line."""
    LOG.info('settings: %s', json.dumps(dict(settings._asdict(), lists=digests)))


def counts_lines(step, training, validation, test):
    """The two lines that open a step, as the original's log has them."""
    LOG.info('Batch of classes number %d arrives ...', step + 1)
    LOG.info('%s, #training: %d, #val: %d, #test: %d',
             'first itera' if step == 0 else 'incremental iteras', training, validation, test)


def updates_line(stage1, stage2):
    """How many updates the stages of a step have; `stage2` is None where there is none."""
    LOG.info('updates: %d of the classifier, %d of the bias correction', stage1.num_updates,
             stage2.num_updates if stage2 else 0)


def warn(texts):
    """A line for each of `texts`."""
    for text in texts:
        LOG.info('warning: %s', text)


def _accuracies(results, prefix=''):
    """The accuracies in `results` as text; those that are None are left out."""
    return ', '.join('{} {:.4f}'.format(text, results[prefix + key]) for key, text in (
        ('top5', 'top-5'), ('top5_before', 'top-5 before'), ('top1', 'top-1'),
        ('top1_before', 'top-1 before')) if results[prefix + key] is not None)


def step_lines(num_steps, rows):
    """The lines of the step that has just been finished; `rows`: the results of all so far."""
    row = rows[-1]
    step = 'step {} of {}'.format(row['step'], num_steps)
    LOG.info('result: %s', json.dumps(row))  # for logs/log_reader.py
    for name, prefix in (('validation', 'val_'), ('test', '')):
        if row[prefix + 'top1'] == '':  # no validation at the first step
            continue
        LOG.info('%s: %s, %s, cross-entropy %.4f', name, step, _accuracies(row, prefix),
                 row[prefix + 'cross_entropy'])
    if 'class_means' in row:
        LOG.info('test, mean over classes: %s, %s', step, _accuracies(row['class_means']))
    LOG.info('test by group: %s, top-1 %s, top-1 before %s', step,
             *(' '.join('{:.4f}'.format(value) for value in row[name])
               for name in ('group_top1', 'group_top1_before')))
    # As the original's log has them: all steps so far, float32 printed with eight digits.
    for name, key in (('beta    : ', 'beta'), ('gamma   : ', 'gamma'), ('accuracy: ', 'top5')):
        LOG.info('%s %s', name, ' '.join(
            str(np.array([np.float32(each[key])], np.float64)) for each in rows))


def table(rows):
    """The whole run, one line a step."""
    columns = (('step', 'step', '{}'), ('classes', 'classes', '{}'),
               ('training', 'training_samples', '{}'), ('val', 'val_samples', '{}'),
               ('test', 'test_samples', '{}'), ('beta', 'beta', '{:.4f}'),
               ('gamma', 'gamma', '{:.4f}'), ('top-5', 'top5', '{:.4f}'),
               ('before', 'top5_before', '{:.4f}'), ('top-1', 'top1', '{:.4f}'),
               ('before', 'top1_before', '{:.4f}'))
    cells = [[title for title, _, _ in columns]]
    cells += [['-' if row[key] is None else form.format(row[key]) for _, key, form in columns]
              for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        LOG.info(' '.join(cell.rjust(width + 1) for cell, width in zip(line, widths)))


def _write_event(directory, **fields):
    """Writes an event for TensorBoard; raises OpError where that fails.

    TensorFlow's own writer has a thread, which prints what is wrong with the disk.
    """
    if directory not in _events:
        os.makedirs(directory, exist_ok=True)
        _events[directory] = tf.python_io.TFRecordWriter(os.path.join(
            directory, 'events.out.tfevents.{:.0f}.{}.{}'.format(
                time.time(), socket.gethostname(), os.getpid())))
        _write_event(directory, file_version='brain.Event:2')
    _events[directory] = _events.pop(directory)  # the last used comes last
    if len(_events) > OPEN_EVENTS:
        _events.pop(next(iter(_events))).close()
    _events[directory].write(tf.Event(wall_time=time.time(), **fields).SerializeToString())
    _events[directory].flush()


def add_scalars(directory, position, values):
    """One point on curves of TensorBoard's; `values`: pairs of tag and number."""
    _write_event(directory, step=position, summary=tf.Summary(value=[
        tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values]))


def add_graph(directory, graph):
    """A graph for TensorBoard."""
    _write_event(directory, graph_def=graph.as_graph_def(add_shapes=True).SerializeToString())


def write_summary(directory, row):
    """The headline curves for TensorBoard, against classes seen: the point of one finished step."""
    curves = (('accuracy/top5', 'top5'), ('accuracy/top5_before', 'top5_before'),
              ('accuracy/top1', 'top1'), ('accuracy/top1_before', 'top1_before'),
              ('bias/beta', 'beta'), ('bias/gamma', 'gamma'))
    add_scalars(directory, row['classes'], [(tag, row[key]) for tag, key in curves
                                            if row[key] is not None])
