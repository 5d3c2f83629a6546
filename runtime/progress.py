"""Progress of a run: checks of each update, time left, progress lines, TensorBoard curves."""

import math
import os
import time

import tensorflow.compat.v1 as tf
from absl import flags

from runtime import LOG, run_log
from runtime.errors import RESUME, UserError
from runtime.signals import STOP

FLAGS = flags.FLAGS
flags.DEFINE_integer('progress_every', 100, 'Updates between two progress lines. A line also '
                     'appears whenever a minute has passed since the last one.', lower_bound=1)

LINE_SECONDS = 60
WATCH_SECONDS = 10
BATCHES_AHEAD = 8  # more than a pipeline prefetches, on all devices together


def images_ahead(batch_size, num_parallel_calls):
    """Return how many images past the last finished update a pipeline may be reading."""
    return BATCHES_AHEAD * batch_size + (num_parallel_calls or os.cpu_count())


class TimeLeft:
    """Estimates the time left from the speed of the classifier stage.

    Once a whole step's worth of images is done, the estimate covers the other stages, too.

    Args:
        num_images: for each step, how many images the stage trains on, over all epochs.
    """

    def __init__(self, num_images):
        self._num_images = num_images
        self._num_trained, self._seconds, self._began = 0, 0., None

    def trained(self, num_images, seconds):
        """Record that the classifier stage trained on `num_images` images in the last `seconds`."""
        if self._began is None:
            self._began = time.monotonic() - seconds
        self._num_trained += num_images
        self._seconds += seconds

    def left(self, step, images_left, seconds_left):
        """Return the seconds left in `step` and in the whole run (None if not yet known).

        `images_left`: in the classifier stage; `seconds_left`: in another stage.
        """
        if self._began is None:
            return seconds_left, None
        seconds = self._seconds
        if self._num_trained >= max(self._num_images):  # a whole step was measured
            seconds = time.monotonic() - self._began
        per_image = seconds / self._num_trained
        in_step = seconds_left + per_image * images_left
        return in_step, in_step + per_image * sum(self._num_images[step + 1:])


class Watch:
    """Logs the progress of a long pass, and ends the pass if a stop was requested.

    Args:
        what: what the line is about; its first words.
        total: number of images.
        seconds: time between two lines.
        ends: bool, whether the end gets a line, too.
    """

    def __init__(self, what, total, seconds=WATCH_SECONDS, ends=False):
        self._what, self._total = what, total
        self._seconds, self._ends = seconds, ends
        self._started = self._last_line = time.monotonic()

    def __call__(self, done):
        """Report that `done` of the total is done. Raises Stopped if a stop was requested."""
        STOP.check()
        now = time.monotonic()
        if now - self._last_line > self._seconds or self._ends and done == self._total:
            self._last_line = now
            rate = done / max(now - self._started, 1e-9)
            LOG.info('%s: %d of %d images, %.0f/s, %s left', self._what, done, self._total, rate,
                     run_log.duration((self._total - done) / rate if rate else None))


class Progress:
    """Follows the updates of a stage: checks losses, logs lines, writes TensorBoard curves.

    Args:
        run: an object with settings, time_left and machine.
        step: counted from 0.
        stage: name of the stage.
        schedule: the stage's Schedule.
        directory: folder of the TensorBoard curves.
        batch_files: for the classifier stage, a function from an update, counted from 0, to the
            files of its batch; None for the bias-correction stage. TimeLeft learns its speed from
            the classifier stage.
    """

    def __init__(self, run, step, stage, schedule, directory, batch_files=None):
        self.update = 0  # updates done
        self._step, self._num_steps, self._stage = step, run.settings.num_steps, stage
        self._schedule = schedule
        self._time_left = run.time_left
        self._machine = run.machine
        self._directory = directory if run.machine.is_chief else None
        self._batch_files = batch_files
        self._trains = batch_files is not None
        self._started = self._last_update = self._last_line = time.monotonic()
        # (update, time) of the last point logged. None before this process's first update, whose
        # time includes building the graph.
        self._since = None

    def files_in_flight(self):
        """Return the files that the pipeline may be reading now."""
        size = self._schedule.batch_size
        ahead = math.ceil(images_ahead(size, self._machine.num_parallel_calls) / size)
        updates = range(self.update, min(self.update + ahead, self._schedule.num_updates))
        return [file for update in updates for file in self._batch_files(update)]

    def warn(self, texts):
        """Log a line for each of `texts`."""
        run_log.warn(f'step {self._step + 1} of {self._num_steps}: {text}' for text in texts)

    def _at(self, update):
        """Describe the position of `update`, counted from 1, in the run."""
        schedule = self._schedule
        epoch = min(schedule.epochs, (update * schedule.batch_size - 1) // schedule.num_images + 1)
        return (f'step {self._step + 1} of {self._num_steps}, {self._stage}, epoch {epoch} of '
                f'{schedule.epochs}, update {update} of {schedule.num_updates}')

    def updated(self, update, loss, values=()):
        """Check and report an update. To be called after each.

        Args:
            update: number of updates done.
            loss: float, the loss of this update.
            values: its other values: (curve, text before it in the line or None, float).

        Raises:
            UserError: the loss is not finite.
        """
        self.update = update
        if not math.isfinite(loss):
            raise self._divergence(update, loss)
        now = time.monotonic()
        is_first, is_line_due = self._since is None, self._is_line_due(update, now)
        self._last_update = now
        if not (is_first or is_line_due):
            return
        learning_rate = self._schedule.learning_rate(update - 1)
        values = [('losses/total', 'loss', loss), *values]
        curves = [(curve, value) for curve, _, value in values] + [('monitors/lr', learning_rate)]
        if is_line_due:
            curves += self._log_line(update, now, values, learning_rate)
        if self._directory is not None:
            run_log.add_scalars(self._directory, update, curves)
        self._since = update, now

    def _divergence(self, update, loss):
        """Return the UserError for a loss that is not finite; log the images of its batch."""
        listed = ''
        if self._trains:
            for file in self._batch_files(update - 1):
                LOG.info('image of the last batch: %s', os.fsdecode(file))
            listed = ' The images of this batch are listed above.'
        rate = self._schedule.learning_rate(update - 1)
        return UserError(f'Training diverged: the loss is {loss} at {self._at(update)} '
                         f'(learning rate {rate:g}).{listed} Restart with a lower '
                         '--learning_rate in a new --model_dir.')

    def _is_line_due(self, update, now):
        """Return whether `update` gets a line: the last one, every so many, and once a minute."""
        if update == self._schedule.num_updates:
            return True
        next_update = now + now - self._last_update  # its end, if it takes as long as this one
        if next_update - self._last_line > LINE_SECONDS:
            return True
        return self._since is not None and update % FLAGS.progress_every == 0

    def _log_line(self, update, now, values, learning_rate):
        """Log a progress line with speed and time left; return the curves that it adds."""
        schedule = self._schedule
        done, started = self._since or (update - 1, self._started)
        seconds, num_images = now - started, (update - done) * schedule.batch_size
        if self._trains:
            self._time_left.trained(num_images, seconds)
        speed = num_images / max(seconds, 1e-9)
        images_left = (schedule.num_updates - update) * schedule.batch_size
        left = (images_left, 0) if self._trains else (0, images_left / max(speed, 1e-9))
        # Updates of beta and gamma read stored logits, no images, so their line has no images/s.
        LOG.info('progress: %s, %s, learning rate %g%s, step left %s, run left %s',
                 self._at(update), run_log.values_text(values), learning_rate,
                 f', {speed:.0f} images/s' if self._trains else '',
                 *map(run_log.duration, self._time_left.left(self._step, *left)))
        self._last_line = now
        return [('monitors/images_per_second', speed)] if self._trains else []


class Hook(tf.train.SessionRunHook):
    """Reports each update of the classifier stage to a Progress; ends the loop on a stop request.

    Args:
        progress: the Progress.
        terms: (curve, text) of each value to report, as from resnet_model.progress_terms, the loss
            first. The tensor of a curve is watched/<curve>.
        done: number of updates already done. The session must start there, because the input does.
        alone: bool, whether this is the only process. Otherwise a stop waits for an update that
            tells all processes.
    """

    def __init__(self, progress, terms, done, alone):
        self._progress = progress
        self._terms = terms
        self._done = done
        self._alone = alone
        self._update = None  # updates done

    def begin(self):
        self._global_step = tf.train.get_global_step()

    def after_create_session(self, session, coord):
        if self._update is not None:
            # TensorFlow would return to its last checkpoint, but not to that checkpoint's images.
            raise UserError('TensorFlow lost its session, for example because a network file '
                            f'system failed. Fix this, then {RESUME}.')
        self._update = self._progress.update = session.run(self._global_step)
        if self._update != self._done:
            raise UserError(f'The session starts at update {self._update} and its input at '
                            f'{self._done}, because another checkpoint appeared in --model_dir. '
                            'Rerun the same command on all machines to resume.')

    def before_run(self, run_context):
        return tf.train.SessionRunArgs(
            [[f'watched/{curve}:0' for curve, _ in self._terms], 'watched/stop:0'],
            {'stop:0': float(STOP.asked())})

    def after_run(self, run_context, run_values):
        self._update += 1
        values, stop = run_values.results
        self._progress.updated(self._update, values[0], [
            (curve, text, value) for (curve, text), value in zip(self._terms[1:], values[1:])])
        if stop > 0 or self._alone and STOP.asked():
            STOP.follow()
            run_context.request_stop()
