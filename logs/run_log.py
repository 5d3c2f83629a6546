"""What a run says: the log on the console and in a file, progress, the final table, TensorBoard."""

import contextlib
import json
import logging.handlers
import os
import re
import sys
import time

import numpy as np
import tensorflow.compat.v1 as tf

from data import state
from data.errors import UserError

LOG = logging.getLogger('bic')
IMAGES_PER_SECOND = 'monitors/images_per_second'  # TensorBoard's tag


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


def check_log(path, settings):
    """Raises UserError where the last settings in the log `path` are not these."""
    found = wanted = json.loads(json.dumps(settings._asdict()))
    with contextlib.suppress(FileNotFoundError), open(path, 'rb') as file:
        for line in file:
            if line.startswith(b'settings: '):
                with contextlib.suppress(ValueError):  # cut off
                    found = json.loads(line[len(b'settings: '):])
    if found != wanted:
        raise UserError('--log_file={}: is the log of another experiment; choose another'.format(
            path))


def last_line(line):
    """The line that ends a program: to stderr, and to the log where it is open."""
    print(line, file=sys.stderr)
    if LOG.handlers:
        with contextlib.suppress(OSError, UserError):
            LOG.error('%s', line)


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
    return what + ', then start again with the same flags to go on'


def duration(seconds):
    """h:mm:ss; None is unknown."""
    if seconds is None:
        return 'unknown'
    minutes, seconds = divmod(int(round(seconds)), 60)
    return '{}:{:02}:{:02}'.format(minutes // 60, minutes % 60, seconds)


def settings_line(settings):
    """The settings as one JSON object in one line."""
    LOG.info('settings: %s', json.dumps(settings._asdict()))


def result_line(row):
    """A step's results as one JSON object in one line, for logs/log_reader.py."""
    LOG.info('result: %s', json.dumps(row))


def counts_lines(step, training, validation, test):
    """The two lines that open a step, as the original's log has them."""
    LOG.info('Batch of classes number %d arrives ...', step + 1)
    LOG.info('%s, #training: %d, #val: %d, #test: %d',
             'first itera' if step == 0 else 'incremental iteras', training, validation, test)


def original_lines(rows):
    """beta, gamma and accuracy of all finished steps, as the original's log has them."""
    for name, key in (('beta    : ', 'beta'), ('gamma   : ', 'gamma'), ('accuracy: ', 'top5')):
        # float32 values printed with eight digits.
        LOG.info('%s %s', name, ' '.join(
            str(np.array([np.float32(row[key])], np.float64)) for row in rows))


def accuracy_lines(step, num_steps, row):
    """Top-5 and top-1 with and without the correction, on validation and test set."""
    for name, prefix in (('validation', 'val_'), ('test', '')):
        if row[prefix + 'top5'] == '':  # no validation at the first step
            continue
        LOG.info('%s: step %d of %d, top-5 %.4f, top-5 before %.4f, top-1 %.4f, top-1 before %.4f, '
                 'cross-entropy %.4f', name, step + 1, num_steps,
                 *(row[prefix + key] for key in ('top5', 'top5_before', 'top1', 'top1_before',
                                                 'cross_entropy')))


def group_line(step, num_steps, top1, top1_before):
    """Top-1 on the test set for each group of classes, oldest first."""
    LOG.info('test by group: step %d of %d, top-1 %s, top-1 before %s', step + 1, num_steps,
             *(' '.join('{:.4f}'.format(value) for value in values)
               for values in (top1, top1_before)))


def table(rows):
    """The whole run, one line a step."""
    columns = (('step', 'step', '{}'), ('classes', 'classes', '{}'),
               ('training', 'training_samples', '{}'), ('val', 'val_samples', '{}'),
               ('test', 'test_samples', '{}'), ('beta', 'beta', '{:.4f}'),
               ('gamma', 'gamma', '{:.4f}'), ('top-5', 'top5', '{:.4f}'),
               ('before', 'top5_before', '{:.4f}'), ('top-1', 'top1', '{:.4f}'),
               ('before', 'top1_before', '{:.4f}'))
    cells = [[title for title, _, _ in columns]]
    cells += [[form.format(row[key]) for _, key, form in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        LOG.info(' '.join(cell.rjust(width + 1) for cell, width in zip(line, widths)))


class RunTime:
    """Time left, from measured speed: images a second of stage 1, and what the rest of a step took.

    Args:
        images: images that stage 1 of each step goes through, all epochs, as planned.
    """

    def __init__(self, images):
        self._images = images
        self._trained, self.training_seconds = 0, 0.
        self._other_seconds, self._finished = 0., 0

    def trained(self, images, seconds):
        """Counts images that stage 1 went through."""
        self._trained += images
        self.training_seconds += seconds

    def finished_step(self, other_seconds):
        """Counts a finished step and what it took beside stage 1's updates."""
        self._other_seconds += other_seconds
        self._finished += 1

    def left(self, step, images_left):
        """(seconds left in this step, in the whole run), None before anything was measured."""
        if not self._trained:
            return None, None
        speed = self._trained / max(self.training_seconds, 1e-9)
        other = self._other_seconds / self._finished if self._finished else 0.
        in_step = images_left / max(speed, 1e-9) + other
        later = self._images[step + 1:]
        return in_step, in_step + sum(later) / max(speed, 1e-9) + other * len(later)


def progress_line(step, num_steps, stage, schedule, update, values, learning_rate,
                  images_per_second, left):
    """One line on how far the run is; `values`: pairs of name and number, `left` of seconds."""
    epoch = min(schedule.epochs, (update * schedule.batch_size - 1) // schedule.num_images + 1)
    LOG.info('progress: step %d of %d, %s, epoch %d of %d, update %d of %d, %s, learning rate %g, '
             '%.0f images/s, step left %s, run left %s', step + 1, num_steps, stage, epoch,
             schedule.epochs, update, schedule.num_updates,
             ', '.join('{} {:.4f}'.format(name, value) for name, value in values), learning_rate,
             images_per_second, *map(duration, left))


class ProgressHook(tf.train.SessionRunHook):
    """Stage 1: a progress line every `interval` updates, a stop where one is asked for.

    Args:
        every_update: function called after each update with (updates done, its loss, whether any
            process of the run is asked to stop, the SessionRunContext).
        interval: updates between two lines.
        report: function called with (updates done, dict of the watched values, images, seconds).
        batch_size: images an update.
        summary_dir: of TensorBoard's curve of images/s, or None for no curve.
        stop: function without arguments, whether this process is asked to stop.
    """

    WATCHED = (('loss', 'watched/losses/total'), ('cross-entropy', 'watched/losses/xe'),
               ('distillation', 'watched/losses/kd'), ('weight decay', 'watched/losses/wd'))

    def __init__(self, every_update, interval, report, batch_size, summary_dir, stop):
        self._every_update = every_update
        self._interval = interval
        self._report = report
        self._batch_size = batch_size
        self._summary_dir = summary_dir
        self._stop = stop
        self._since = None  # (updates done, time) of the last line
        self._update = None  # updates done

    def begin(self):
        self._global_step = tf.train.get_global_step()
        graph = tf.get_default_graph()
        self._watched = {title: graph.get_tensor_by_name(name + ':0')
                         for title, name in self.WATCHED}
        self._stop_asked = graph.get_tensor_by_name('stop:0')
        self._stop_anywhere = graph.get_tensor_by_name('watched/stop:0')

    def after_create_session(self, session, coord):
        if self._update is not None:
            # TensorFlow would go back to its last checkpoint, but not to that checkpoint's images.
            raise UserError('TensorFlow lost its session (a network file system that failed, for '
                            'one); start again with the same flags to go on')
        self._update = session.run(self._global_step)

    def before_run(self, run_context):
        return tf.train.SessionRunArgs([self._watched, self._stop_anywhere],
                                       {self._stop_asked: float(self._stop())})

    def after_run(self, run_context, run_values):
        self._update += 1
        now = time.time()
        values, stop = run_values.results
        self._every_update(self._update, values['loss'], stop > 0, run_context)
        due = self._update % self._interval == 0
        if due and self._since is not None:
            updates, seconds = self._update - self._since[0], now - self._since[1]
            speed = updates * self._batch_size / seconds
            self._report(self._update, values, updates * self._batch_size, seconds)
            if self._summary_dir is not None:
                add_scalars(self._summary_dir, self._update, [(IMAGES_PER_SECOND, speed)])
        if due or self._since is None:
            self._since = self._update, now


def add_scalars(directory, position, values):
    """One point on curves of TensorBoard's; `values`: pairs of tag and number."""
    writer = tf.summary.FileWriterCache.get(directory)
    writer.add_summary(tf.Summary(value=[
        tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values]), position)
    writer.flush()


def write_summary(directory, row):
    """The headline curves for TensorBoard, against classes seen: the point of one finished step."""
    curves = (('accuracy/top5', 'top5'), ('accuracy/top5_before', 'top5_before'),
              ('accuracy/top1', 'top1'), ('accuracy/top1_before', 'top1_before'),
              ('bias/beta', 'beta'), ('bias/gamma', 'gamma'))
    add_scalars(directory, row['classes'], [(tag, row[key]) for tag, key in curves])
