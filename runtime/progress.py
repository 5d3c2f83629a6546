"""How far a run is: the watch over a stage's updates, the time left, the lines that say so."""

import math
import os
import time

import tensorflow.compat.v1 as tf
from absl import flags

from runtime import LOG, run_log
from runtime.errors import GO_ON, UserError
from runtime.signals import STOP

FLAGS = flags.FLAGS
flags.DEFINE_integer('progress_every', 100, 'Updates between two progress lines. A line also '
                     'appears whenever a minute has passed since the last one.', lower_bound=1)

LINE_SECONDS = 60
WATCH_SECONDS = 10
BATCHES_AHEAD = 8  # more than a pipeline prefetches, on all devices together


def images_ahead(batch_size, num_parallel_calls):
    """How many images a pipeline may have begun to read beyond those of the updates done."""
    return BATCHES_AHEAD * batch_size + (num_parallel_calls or os.cpu_count())


class RunTime:
    """Time left, from the speed of stage 1; once a whole step was seen, with what steps do beside.

    Args:
        images: images that stage 1 of each step goes through, all epochs, as planned.
    """

    def __init__(self, images):
        self._images = images
        self._trained, self._seconds, self._began = 0, 0., None

    def trained(self, images, seconds):
        """Counts images that stage 1 went through in the `seconds` before now."""
        if self._began is None:
            self._began = time.monotonic() - seconds
        self._trained += images
        self._seconds += seconds

    def left(self, step, images_left, seconds_left):
        """(seconds left in this step, in the whole run; None before stage 1 was measured).

        `images_left`: of stage 1; `seconds_left`: of another stage.
        """
        if self._began is None:
            return seconds_left, None
        whole_step = self._trained >= max(self._images)
        an_image = (time.monotonic() - self._began if whole_step else self._seconds) / self._trained
        in_step = seconds_left + an_image * images_left
        return in_step, in_step + an_image * sum(self._images[step + 1:])


class Watch:
    """Says how far a long pass is, a line every `seconds`, and ends it where a stop is asked for.

    `total`: how much of `what` there is to do, in `unit`; `ends`: with a line at the end, too.
    """

    def __init__(self, what, total, unit='images', seconds=WATCH_SECONDS, ends=False):
        self._what, self._total, self._unit = what, total, unit
        self._seconds, self._ends = seconds, ends
        self._started = self._said = time.monotonic()

    def __call__(self, done):
        """`done`: how much of it is done; raises Stopped."""
        STOP.check()
        now = time.monotonic()
        if now - self._said > self._seconds or self._ends and done == self._total:
            self._said = now
            rate = done / max(now - self._started, 1e-9)
            LOG.info('%s: %d of %d %s, %.0f/s, %s left', self._what, done, self._total, self._unit,
                     rate, run_log.duration((self._total - done) / rate if rate else None))


class Progress:
    """The watch over the updates of a stage: stop requests, losses, lines, TensorBoard's curves.

    Args:
        run: has settings, run_time and machine.
        step, stage, schedule: counted from 0; its name; its Schedule.
        directory: of TensorBoard's curves.
        batch_files: of stage 1, from which RunTime takes the speed: function from an update,
            counted from 0, to the files of its batch.
    """

    def __init__(self, run, step, stage, schedule, directory, batch_files=None):
        self.update = 0  # updates done
        self._step, self._num_steps, self._stage = step, run.settings.num_steps, stage
        self._schedule = schedule
        self._run_time = run.run_time
        self._machine = run.machine
        self._directory = directory if run.machine.writes else None
        self._batch_files = batch_files
        self._trains = batch_files is not None
        self._started = self._last = self._said = time.monotonic()  # stage, update before, line
        # (updates done, time) from which speed is measured; the first update waits for its graph.
        self._since = None

    def files_read(self):
        """The files that may be read just now."""
        size = self._schedule.batch_size
        ahead = math.ceil(images_ahead(size, self._machine.num_parallel_calls) / size)
        updates = range(self.update, min(self.update + ahead, self._schedule.num_updates))
        return [file for update in updates for file in self._batch_files(update)]

    def warn(self, texts):
        """A line for each of `texts`."""
        run_log.warn('step {} of {}: {}'.format(self._step + 1, self._num_steps, text)
                     for text in texts)

    def _at(self, update):
        """Where in the run update number `update`, counted from 1, is."""
        schedule = self._schedule
        epoch = min(schedule.epochs, (update * schedule.batch_size - 1) // schedule.num_images + 1)
        return 'step {} of {}, {}, epoch {} of {}, update {} of {}'.format(
            self._step + 1, self._num_steps, self._stage, epoch, schedule.epochs, update,
            schedule.num_updates)

    def updated(self, update, loss, values=()):
        """To be called after each update: how many are done, the loss of this one.

        `values`: what else there is of it: triples of curve, name in the line, and number.

        Raises:
            UserError: the loss is no number.
        """
        self.update, schedule = update, self._schedule
        if not math.isfinite(loss):
            for file in self._batch_files(update - 1) if self._trains else ():
                LOG.info('image of the last batch: %s', os.fsdecode(file))
            listed = ' The images of this batch are listed above.' * self._trains
            rate = schedule.learning_rate(update - 1)
            raise UserError(f'Training diverged: the loss is {loss} at {self._at(update)} '
                            f'(learning rate {rate:g}).{listed} Restart with a lower '
                            '--learning_rate in a new --model_dir.')
        now = time.monotonic()
        # Also where the next update, if it takes as long as this one, would end too late.
        due = (update == schedule.num_updates or now + now - self._last - self._said > LINE_SECONDS
               or self._since is not None and update % FLAGS.progress_every == 0)
        self._last = now
        if not due and self._since is not None:
            return
        rate = schedule.learning_rate(update - 1)
        values = [('losses/total', 'loss', loss)] + list(values)
        curves = [(curve, value) for curve, _, value in values] + [('monitors/lr', rate)]
        if due:
            done, started = self._since or (update - 1, self._started)
            seconds, images = now - started, (update - done) * schedule.batch_size
            if self._trains:
                self._run_time.trained(images, seconds)
            speed = images / max(seconds, 1e-9)
            to_do = (schedule.num_updates - update) * schedule.batch_size
            left = (to_do, 0) if self._trains else (0, to_do / max(speed, 1e-9))
            # No images are read by the bias-correction stage.
            spoken_speed = ', {:.0f} images/s'.format(speed) if self._trains else ''
            LOG.info('progress: %s, %s, learning rate %g%s, step left %s, run left %s',
                     self._at(update), run_log.values_text(values), rate, spoken_speed,
                     *map(run_log.duration, self._run_time.left(self._step, *left)))
            if self._trains:
                curves.append(('monitors/images_per_second', speed))
            self._said = now
        if self._directory is not None:
            run_log.add_scalars(self._directory, update, curves)
        self._since = update, now


class Hook(tf.train.SessionRunHook):
    """Tells a Progress of each update of stage 1, and ends the loop if a stop is asked for.

    Args:
        progress: the Progress.
        watched: pairs of curve and name in the line, the loss first; tensors are named
            `watched/` and the curve.
        done: updates done already, at which the session must start, as the input does.
        alone: whether no other process takes part, so that a stop need not wait for an update in
            which all hear of it.
    """

    STOP_ASKED, STOP_ANYWHERE = 'stop:0', 'watched/stop:0'

    def __init__(self, progress, watched, done, alone):
        self._progress = progress
        self._names = watched
        self._done = done
        self._alone = alone
        self._update = None  # updates done

    def begin(self):
        self._global_step = tf.train.get_global_step()
        graph = tf.get_default_graph()
        self._watched = [graph.get_tensor_by_name('watched/{}:0'.format(curve))
                         for curve, _ in self._names]
        self._stop_asked = graph.get_tensor_by_name(self.STOP_ASKED)
        self._stop_anywhere = graph.get_tensor_by_name(self.STOP_ANYWHERE)

    def after_create_session(self, session, coord):
        if self._update is not None:
            # TensorFlow would go back to its last checkpoint, but not to that checkpoint's images.
            raise UserError('TensorFlow lost its session, for example because a network file '
                            f'system failed; {GO_ON}')
        self._update = self._progress.update = session.run(self._global_step)
        if self._update != self._done:
            raise UserError(f'the session starts at update {self._update} and its input at '
                            f'{self._done}: another checkpoint showed up in --model_dir meanwhile. '
                            'Rerun the same command on all machines to resume.')

    def before_run(self, run_context):
        return tf.train.SessionRunArgs([self._watched, self._stop_anywhere],
                                       {self._stop_asked: float(STOP.asked())})

    def after_run(self, run_context, run_values):
        self._update += 1
        values, stop = run_values.results
        self._progress.updated(self._update, values[0], [
            names + (value,) for names, value in zip(self._names[1:], values[1:])])
        if stop > 0 or self._alone and STOP.asked():
            STOP.follow()
            run_context.request_stop()
