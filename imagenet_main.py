"""Large Scale Incremental Learning (BiC, Wu et al., CVPR 2019): the loop over incremental steps.

    python imagenet_main.py                        # ImageNet-1000, the paper's headline experiment
    python imagenet_main.py --dataset=imagenet100
    python imagenet_main.py --dataset=glyphs100    # embedded images, minutes on two CPU cores
"""

import logs.environment  # noqa: F401, I001 (before NumPy and TensorFlow)

import contextlib
import logging
import os
import signal
import sys
import time
import zlib

from absl import app, flags
import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import resnet_model
from data import checks, cluster, lists, machine, pipeline, state
from data import settings as settings_lib
from data.errors import UserError
from data.glyphs100 import prepare as glyphs100
from logs import run_log
from logs.run_log import LOG
from logs.stopping import STOP, Stopped

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(machine)  # --help lists them too
STOP_SECONDS = 60  # after which a run on several machines no longer waits for itself to stop
ROOT = os.path.dirname(os.path.abspath(__file__))


class PathParser(flags.ArgumentParser):
    """Of flags that name a file or folder: absolute, with the home folder for `~`."""

    def parse(self, argument):
        if not argument:  # an empty variable of the shell; not the current folder
            raise ValueError('names no path')
        return os.path.abspath(os.path.expanduser(argument))


# What to run, and where.
flags.DEFINE_enum('dataset', 'imagenet1000', sorted(settings_lib.DATASETS),
                  'the data set; its settings are the defaults of the flags below')
flags.DEFINE(PathParser(), 'data_dir', None,
             'folder with train.txt, val.txt and the images they list')
flags.DEFINE(PathParser(), 'model_dir', None,
             'folder of this experiment (default: logs/runs/<dataset>)')
flags.DEFINE(PathParser(), 'log_file', None, 'the log (default: run.log in model_dir)')
flags.DEFINE_bool('overwrite', False, 'delete another experiment found in model_dir')
flags.DEFINE_bool('dry_run', False, 'print what each step will train on, and stop')
flags.DEFINE_bool('check_data', False, 'decode every listed image, print the bad ones, and stop')
flags.DEFINE_bool('eval_only', False,
                  'evaluate the checkpoints in model_dir (also the original\'s), and stop')
flags.DEFINE_bool('skip_bad_images', False, 'leave out images that do not decode, and say which')

# The experiment: fields of data/settings.py. Where none is given, the data set's own value.
flags.DEFINE_integer('num_classes', None, 'C; needed for --dataset=folder')
flags.DEFINE_integer('num_increments', None, 'G, equal groups of classes')
flags.DEFINE_integer('memory_per_class', None, 'P: exemplars per class of the whole problem')
flags.DEFINE_float('val_share', None, 'r: share of the memory kept for the bias correction')
flags.DEFINE_integer('image_size', None, 'side of the network\'s input in pixels')
flags.DEFINE_enum('preprocessing', None, ['vgg', 'cifar'], 'resize and crop, or pad and crop')
flags.DEFINE_bool('random_flip', None, 'mirror half of the training images')
flags.DEFINE_enum('network', None, ['imagenet', 'cifar'], 'family of ResNet v2')
flags.DEFINE_integer('resnet_size', None, 'layers: 18, 34, 50, 101, 152, 200; cifar: 6n+2')
flags.DEFINE_integer('train_epochs', None, 'epochs of stage 1; stage 2 has twice as many')
flags.DEFINE_integer('batch_size', None, 'images an update')
flags.DEFINE_float('learning_rate', None, 'initial rate, at the batch size it is published for')
flags.DEFINE_list('lr_boundaries', None, 'epochs at which the rate is divided by 10')
flags.DEFINE_float('weight_decay', None, 'before the factor G/(t+1)')
flags.DEFINE_float('batch_norm_decay', None, 'of the moving statistics; short trainings need less')
flags.DEFINE_float('temperature', None, 'of the distillation')
flags.DEFINE_bool('distillation', None, 'without: the paper\'s baseline-1')
flags.DEFINE_bool('bias_correction', None, 'without: the paper\'s baseline-2')
flags.DEFINE_enum('bias_batch_norm', None, ['batch', 'moving'], 'statistics used in stage 2')
flags.DEFINE_enum('exemplar_selection', None, ['herding', 'random'], 'how exemplars are chosen')
flags.DEFINE_integer('seed', None, 'of initial weights, shuffling, crops: for repeats')
flags.DEFINE_integer('order_seed', None, 'of class order and split: another one is another problem')
flags.DEFINE_list('resize_range', None, 'shortest and longest shorter side in training, in pixels '
                  '(default: 256,512 for crops of 224, scaled with the crop)')

# This machine; more of it in data/machine.py.
flags.DEFINE_enum('data_format', None, ['channels_first', 'channels_last'],
                  'layout of the network\'s maps (default: channels_first on a GPU)')
flags.DEFINE_integer('num_parallel_calls', None, 'images decoded at once; default: tf.data decides',
                     lower_bound=1)
flags.DEFINE_integer('checkpoint_secs', 600, 'seconds between checkpoints of stage 1',
                     lower_bound=1)
flags.DEFINE_bool('keep_checkpoints', None, 'keep the classifiers that no later step needs; holds '
                  'for later starts too, until --nokeep_checkpoints')
flags.DEFINE_integer('progress_every', 100, 'updates between progress lines', lower_bound=1)

def experiment_settings(stored=None):
    """The data set's Settings with every given flag; raises UserError naming the flag.

    Args:
        stored: Settings that hold instead; a flag that contradicts them is an error.
    """
    base = stored or settings_lib.DATASETS[FLAGS.dataset]
    given = {name: FLAGS[name].value for name in base._fields if name in FLAGS}
    if not FLAGS['dataset'].present:
        del given['dataset']
    for name, number in (('lr_boundaries', float), ('resize_range', int)):
        if given[name] is not None:
            try:
                given[name] = tuple(map(number, given[name]))
            except ValueError:
                raise UserError('--{}={} are no numbers'.format(
                    name, ','.join(given[name]))) from None
    settings = settings_lib.override(base, **given)
    for name, value in given.items():
        if stored and value not in (None, getattr(stored, name)):
            raise UserError('{}: the experiment in --model_dir has {} {}; leave the flag '
                            'out'.format(FLAGS[name].serialize(), name, getattr(stored, name)))
    if settings.dataset == 'folder' and not (settings.num_classes and FLAGS.data_dir):
        raise UserError('--dataset=folder needs --data_dir and --num_classes')
    settings_lib.check(settings)
    last = settings.num_increments - 1
    if settings.bias_correction and last and not exemplar.validation_images(settings, last):
        raise UserError(
            'step {} would have no validation image for the bias correction: raise --val_share or '
            '--memory_per_class, or use --nobias_correction'.format(last + 1))
    return settings


def find_model_dir():
    """The experiment's folder; raises UserError where TensorFlow could not write to it."""
    model_dir = FLAGS.model_dir or os.path.join(ROOT, 'logs', 'runs', FLAGS.dataset)
    try:
        model_dir.encode('utf-8')
    except UnicodeEncodeError:
        raise UserError('--model_dir={}: TensorFlow writes only where the path is UTF-8; choose '
                        'another'.format(model_dir)) from None
    return model_dir


def find_data(settings):
    """The data folder; raises UserError where its lists are missing."""
    data_dir = FLAGS.data_dir or os.path.join(ROOT, settings_lib.DATA_DIRS[settings.dataset])
    if settings.dataset == 'glyphs100' and FLAGS.data_dir is None:
        glyphs100.write_images(data_dir)
    missing = [name for name in (lists.TRAIN_LIST, lists.TEST_LIST)
               if not os.path.isfile(os.path.join(data_dir, name))]
    if missing:
        folder = os.path.basename(settings.dataset.rstrip('0123456789'))
        raise UserError(
            '{}: no {}; {}, or try --dataset=glyphs100, which needs no download'.format(
                data_dir, ' and no '.join(missing),
                'write the lists as README.md says' if settings.dataset == 'folder' else
                'get the archive and run data/{0}/prepare.py (data/{0}/README.md), or name '
                'another --data_dir'.format(folder)))
    return data_dir


class Run:
    """One experiment while it runs: what is fixed for all of its steps."""

    def __init__(self, settings, data_dir, model_dir, task=None):
        self.settings = settings
        self.data_dir = data_dir
        self.model_dir = model_dir
        self.train_list, self.test_list = lists.read_lists(data_dir, settings.num_classes)
        self.split = lists.split(self.train_list, self.test_list, settings.num_classes,
                                 exemplar.validation_pool(settings), settings.order_seed)
        self.session_config = machine.session_config()
        self.data_format = FLAGS.data_format or resnet_model.default_data_format()
        self.replicas = machine.find_replicas(task, settings.batch_size)
        self.cluster = None  # where several machines take part: the cluster.Cluster
        self.run_time = None
        self.num_parallel_calls = FLAGS.num_parallel_calls
        self.checked_groups = 0  # of whose images the bad ones are left out
        self.keep_checkpoints = FLAGS.keep_checkpoints

    def samples(self, step, exemplars):
        """The (training, validation, test) Samples of `step`; `exemplars` of its old classes."""
        m = self.settings.classes_per_increment
        quota = exemplar.training_exemplars(self.settings, step) if step else 0
        training = lists.training_samples(self.split, range(step * m, (step + 1) * m),
                                          [images[:quota] for images in exemplars])
        per_class = (exemplar.validation_images(self.settings, step) if step else
                     exemplar.validation_pool(self.settings))
        validation = lists.validation_samples(self.split, (step + 1) * m, per_class)
        return training, validation, lists.test_samples(self.split, step + 1, m)

    def train_files(self, images):
        """The files of indices into the train list."""
        return pipeline.absolute_paths(self.data_dir, self.train_list, images)

    def test_files(self, images):
        """The files of indices into the test list."""
        return pipeline.absolute_paths(self.data_dir, self.test_list, images)


def planned_exemplars(run):
    """For each step the exemplars that it finds, as far as counts go: the first of each class."""
    stored = []
    for step in range(run.settings.num_increments):
        yield stored
        count = exemplar.stored_exemplars(run.settings, step)
        m = run.settings.classes_per_increment
        new = run.split.train[step * m:(step + 1) * m]
        stored = [images[:count] for images in stored + new]


def schedules(settings, step, training, validation):
    """The Schedules of both stages of `step`; None for stage 2 where there is no correction."""
    corrected = step > 0 and settings.bias_correction
    return (settings_lib.schedule(settings, len(training.images)),
            settings_lib.schedule(settings, len(validation.images), bic_layer.EPOCHS_FACTOR)
            if corrected else None)


def planned_schedules(run):
    """`schedules` of every step, as far as counts go."""
    return [schedules(run.settings, step, *run.samples(step, exemplars)[:2])
            for step, exemplars in enumerate(planned_exemplars(run))]


def warn(texts):
    """Logs each of `texts` as a warning."""
    for text in texts:
        LOG.info('warning: %s', text)


def dry_run(run):
    """Prints the sample counts and the updates of every step, and what will go wrong."""
    planned = []
    for step, exemplars in enumerate(planned_exemplars(run)):
        STOP.check()
        training, validation, test = run.samples(step, exemplars)
        run_log.counts_lines(step, *(len(samples.images)
                                     for samples in (training, validation, test)))
        planned.append(schedules(run.settings, step, training, validation))
        LOG.info('updates: %d of the classifier, %d of the bias correction',
                 *(stage.num_updates if stage else 0 for stage in planned[-1]))
    warn(settings_lib.warnings(run.settings, planned))


def train_classifier(run, step, training, schedule, teacher_bias):
    """Stage 1 of `step`; returns the classifier's checkpoint."""
    directory = state.classifier_dir(run.model_dir, step)
    checkpoint = verified_checkpoint(directory)
    done = state.checkpoint_update(checkpoint) if checkpoint else 0
    if done >= schedule.num_updates:
        return checkpoint
    if done:
        LOG.info('step %d goes on after update %d of %d', step + 1, done, schedule.num_updates)
    state.discard(state.bias_dir(run.model_dir, step))  # learnt on a classifier lost since
    start = None
    if step and not checkpoint:
        start = verified_checkpoint(state.classifier_dir(run.model_dir, step - 1))
        if start is None:
            raise UserError('{}: no readable checkpoint of step {}; put it back, or start anew in '
                            'another --model_dir'.format(
                                state.classifier_dir(run.model_dir, step - 1), step))
    if run.cluster is not None:
        run.cluster.tell(step=step, update=done if checkpoint else None, images=digest(training))
    train_from(run, step, training, schedule, teacher_bias, done, start)
    checkpoint = verified_checkpoint(directory)
    if checkpoint is None or state.checkpoint_update(checkpoint) != schedule.num_updates:
        raise UserError('{}: the checkpoint of update {} cannot be read back or holds weights that '
                        'are no numbers; start again with the same flags to go on from the one '
                        'before, or with a lower --learning_rate in another --model_dir'.format(
                            directory, schedule.num_updates))
    return checkpoint


def digest(samples):
    """A number that tells whether all processes of a run train on the same images."""
    return zlib.crc32(samples.classes.tobytes(), zlib.crc32(samples.images.tobytes()))


def train_from(run, step, training, schedule, teacher_bias, done, start):
    """Stage 1 of `step` from update `done` on, with all that take part in the run.

    Args:
        start: the checkpoint of step t-1's classifier; None at step 0 and where the stage goes on
            from its own.
    """
    settings, directory = run.settings, state.classifier_dir(run.model_dir, step)
    files, classes = run.train_files(training.images), training.classes
    batches = pipeline.Batches(schedule, [settings.seed, step])
    writes = run.cluster is None or run.cluster.is_chief

    def input_fn():
        return pipeline.training_dataset(
            files, classes, batches, settings, done, run.num_parallel_calls,
            machine.prefetch_device(run.replicas),
            run.replicas)

    def files_read_last():
        ahead = range(done, min(done + pipeline.READ_AHEAD, schedule.num_updates))
        return np.concatenate([files[:0]] + [files[batches.images(update)] for update in ahead])

    def every_update(update, loss, stop, context):
        nonlocal done
        done = update
        if not np.isfinite(loss):
            for file in files[batches.images(update - 1)]:
                LOG.info('image of the last batch: %s', os.fsdecode(file))
            raise UserError(
                'the loss is {} in step {} of {}, epoch {}, update {} of {}, learning rate {:g}; '
                'the images of this batch are listed above; the last checkpoint is kept; a lower '
                '--learning_rate needs another --model_dir'.format(
                    loss, step + 1, settings.num_increments,
                    batches.positions(update - 1)[0] // len(files) + 1, update,
                    schedule.num_updates, settings_lib.learning_rate(schedule, update - 1)))
        if stop if run.cluster is not None else STOP.asked():
            STOP.follow(signal.SIGTERM)  # of another machine's process
            context.request_stop()

    def report(update, values, images, seconds):
        run.run_time.trained(images, seconds)
        run_log.progress_line(
            step, settings.num_increments, 'classifier', schedule, update, list(values.items()),
            settings_lib.learning_rate(schedule, update - 1), images / seconds,
            run.run_time.left(step, (schedule.num_updates - update) * schedule.batch_size))

    hooks = [run_log.ProgressHook(every_update, FLAGS.progress_every, report, schedule.batch_size,
                                  directory if writes else None, STOP.asked)]
    if writes:
        hooks.append(tf.train.CheckpointSaverHook(
            directory, FLAGS.checkpoint_secs, listeners=[state.FlushCheckpoints(directory)]))
    with cluster.announced(run.cluster and run.cluster.task):
        config = tf.estimator.RunConfig(
            tf_random_seed=settings.seed, session_config=run.session_config,
            save_checkpoints_secs=None, keep_checkpoint_max=2,
            save_summary_steps=FLAGS.progress_every if writes else 0, log_step_count_steps=None,
            train_distribute=machine.distribution(run.replicas, run.cluster is not None))
        estimator = tf.estimator.Estimator(
            resnet_model.classifier_fn, directory, config,
            params={'settings': settings, 'step': step, 'schedule': schedule, 'start': start,
                    'teacher_bias': teacher_bias, 'data_format': run.data_format,
                    'mixed_precision': FLAGS.mixed_precision, 'num_replicas': run.replicas.total})
        try:
            if run.cluster is None:
                estimator.train(input_fn, hooks, max_steps=schedule.num_updates)
            else:  # the one function that trains on several machines; nothing evaluates in it
                tf.estimator.train_and_evaluate(
                    estimator, tf.estimator.TrainSpec(input_fn, schedule.num_updates, hooks),
                    tf.estimator.EvalSpec(input_fn))
        except tf.errors.OpError as error:
            raise data_error(run, files_read_last(), error) from error
    if writes:
        tf.summary.FileWriterCache.get(directory).flush()  # what the last checkpoint noted there
    STOP.check()


def verified_checkpoint(directory):
    """The newest readable checkpoint of a stage, or None; says which damaged ones it set aside."""
    checkpoint, damaged = state.latest_checkpoint(directory)
    for prefix in damaged:
        LOG.info('warning: %s is damaged or holds weights that are no numbers; set aside', prefix)
    return checkpoint


def data_error(run, files, error):
    """What to raise for a failed TensorFlow operation: a UserError if the data is the cause."""
    state.check_held(run.model_dir)
    if not os.path.isdir(run.data_dir):
        return UserError('{}: the data folder is gone; once it is back, start again with the same '
                         'flags to go on'.format(run.data_dir))
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return error
    bad = pipeline.bad_images(files, run.num_parallel_calls, stop_at_first=True)
    if not bad:
        return error
    return UserError('{}: cannot be read as an image; {}, then start again with the same flags to '
                     'go on'.format(os.fsdecode(files[bad[0]]),
                                    'it will be left out' if FLAGS.skip_bad_images else
                                    'mend it or add --skip_bad_images'))


def forward(run, step, checkpoint, files, dataset, num_images, **params):
    """One pass of the classifier of `step` without training.

    Args:
        files: those the dataset reads, to name one that does not decode.
        dataset: function that makes a tf.data.Dataset of batches of {'image', 'class'}.
        num_images: images in it.
        params: of resnet_model.forward_fn.

    Returns:
        A dict of arrays, in the order of the dataset.
    """
    params.update(settings=run.settings, step=step, data_format=run.data_format)
    state.check_held(run.model_dir)
    try:
        return resnet_model.forward(state.classifier_dir(run.model_dir, step), checkpoint, dataset,
                                    num_images, run.session_config, STOP.check, params)
    except tf.errors.OpError as error:
        raise data_error(run, files, error) from error


def fit_bias(run, step, checkpoint, validation, schedule):
    """Stage 2 of `step`; returns (beta, gamma)."""
    settings, directory = run.settings, state.bias_dir(run.model_dir, step)
    found = bic_layer.load(directory)
    if found is not None:
        return found
    files = run.train_files(validation.images)
    if settings.bias_batch_norm == 'batch':
        batches = bic_layer.batches(schedule)
        num_full, num_short = batches.num_distinct, batches.num_short
        short_start = batches.num_full * batches.batch_size
    else:
        num_full, num_short = divmod(len(files), schedule.batch_size)
        short_start = num_full * schedule.batch_size

    def dataset():
        return pipeline.periodic_dataset(
            files, validation.classes, settings, num_full, num_short, short_start,
            run.num_parallel_calls)

    stored = forward(run, step, checkpoint, files, dataset,
                     num_full * schedule.batch_size + num_short, outputs='bias',
                     batch_norm=settings.bias_batch_norm)
    started = time.time()

    def watch(update, loss):
        STOP.check()
        if not np.isfinite(loss):
            raise UserError('the loss of the bias correction is {} in step {}, update {}; lower '
                            '--learning_rate'.format(loss, step + 1, update))
        if update % FLAGS.progress_every == 0 or update == schedule.num_updates:
            state.check_held(run.model_dir)  # what follows would make a folder anew
            speed = update * schedule.batch_size / (time.time() - started)
            rate = settings_lib.learning_rate(schedule, update - 1)
            run_log.progress_line(
                step, settings.num_increments, 'bias correction', schedule, update,
                [('loss', loss)], rate, speed, run.run_time.left(step, 0))
            run_log.add_scalars(directory, update, [
                ('losses/total', loss), ('monitors/lr', rate),
                (run_log.IMAGES_PER_SECOND, speed)])

    found = bic_layer.fit(stored, schedule, settings.bias_batch_norm, directory,
                          run.session_config, watch)
    warn('step {} of {}: {}'.format(step + 1, settings.num_increments, text)
         for text in bic_layer.warnings(stored, *found))
    return found


def evaluate(run, step, checkpoint, bias, samples, with_features):
    """One pass over validation, test and, for herding, training images.

    Args:
        samples: (training, validation, test) Samples.
        with_features: bool, whether to go over the training images as well.

    Returns:
        (results, confusions, features): a dict of metrics, a dict of two confusion matrices (with
        the correction and '_before' it), float32 [training images, dimensions] or None.
    """
    settings = run.settings
    training, validation, test = samples
    parts = [run.train_files(validation.images) if step else [], run.test_files(test.images),
             run.train_files(training.images) if with_features else []]
    classes = np.concatenate([validation.classes if step else [], test.classes,
                              training.classes if with_features else []]).astype(np.int64)
    files = np.concatenate(parts)

    def dataset():
        return pipeline.evaluation_dataset(files, classes, settings, run.num_parallel_calls)

    outputs = forward(run, step, checkpoint, files, dataset, len(files), outputs='evaluation',
                      batch_norm='moving', bias=bias)
    numbers = np.isfinite(outputs['cross_entropy'])
    if not np.all(numbers):
        raise UserError('{}: the cross-entropy of {} is no number in step {} of {}; start anew '
                        'with a lower --learning_rate in another --model_dir'.format(
                            checkpoint, os.fsdecode(files[np.argmin(numbers)]), step + 1,
                            settings.num_increments))
    num_val, num_test = len(parts[0]), len(parts[1])
    on_test = slice(num_val, num_val + num_test)
    results, confusions = {}, {}
    for prefix, part in (('', on_test), ('val_', slice(0, num_val))):
        for name, value in resnet_model.metrics(outputs, classes, part).items():
            results[prefix + name] = value
    for suffix in ('', '_before'):
        predicted = outputs['predicted' + suffix][on_test]
        results['group_top1' + suffix] = resnet_model.group_top1(
            predicted, classes[on_test], settings.classes_per_increment).tolist()
        confusions[suffix] = resnet_model.confusion(predicted, classes[on_test], step, settings)
    return results, confusions, (outputs['features'][num_val + num_test:] if with_features
                                 else None)


def summary(settings, step, samples, bias, accuracies):
    """A step's results: the row of results.csv and the accuracies by group."""
    results = {'step': step + 1, 'classes': (step + 1) * settings.classes_per_increment}
    for name, part in zip(('training_samples', 'val_samples', 'test_samples'), samples):
        results[name] = len(part.images)
    results['beta'], results['gamma'] = bias or (1., 0.)
    results.update(accuracies)
    return results


def log_results(settings, rows):
    """The lines of the step that has just been finished; `rows`: the results of all so far."""
    step = rows[-1]['step'] - 1
    run_log.result_line(rows[-1])
    run_log.accuracy_lines(step, settings.num_increments, rows[-1])
    run_log.group_line(step, settings.num_increments, rows[-1]['group_top1'],
                       rows[-1]['group_top1_before'])
    run_log.original_lines(rows)


def write_results(run, records):
    """results.csv, the accuracies by group and TensorBoard's curves, from the finished steps."""
    if not records:
        return
    rows = [record['results'] for record in records]
    state.write_results(run.model_dir, [
        {name: value for name, value in row.items() if not isinstance(value, list)}
        for row in rows])
    for suffix in ('', '_before'):
        accuracy = np.full([run.settings.num_increments] * 2, np.nan)
        for step, row in enumerate(rows):
            accuracy[step, :step + 1] = row['group_top1' + suffix]
        state.write_array(os.path.join(run.model_dir, 'group_accuracy{}.npy'.format(suffix)),
                          accuracy)


def run_step(run, step, exemplars, teacher_bias):
    """All of one step, of which what is on disk already is not done again.

    Args:
        exemplars: arrays of indices into the train list, one an old class.
        teacher_bias: (beta, gamma) of the step before, or None.

    Returns:
        (results, exemplars of the seen classes).
    """
    settings, started, trained = run.settings, time.time(), run.run_time.training_seconds
    last = step == settings.num_increments - 1
    samples = run.samples(step, exemplars)
    training, validation, _ = samples
    run_log.counts_lines(step, *(len(part.images) for part in samples))
    stage1, stage2 = schedules(settings, step, training, validation)
    checkpoint = train_classifier(run, step, training, stage1, teacher_bias)
    bias = None
    if stage2:
        bias = fit_bias(run, step, checkpoint, validation, stage2)
    herding = settings.exemplar_selection == 'herding' and not last
    accuracies, confusions, features = evaluate(run, step, checkpoint, bias, samples, herding)
    for suffix, matrix in confusions.items():
        state.write_array(os.path.join(run.model_dir, 'confusion{}_{}.npy'.format(
            suffix, step + 1)), matrix)
    chosen = [] if last else exemplar.select(settings, step, training.classes, features)
    run.run_time.finished_step(time.time() - started - (run.run_time.training_seconds - trained))
    return (summary(settings, step, samples, bias, accuracies),
            [training.images[rows] for rows in chosen])


def run_experiment(run):
    """The loop over incremental steps, from the first that is not finished."""
    settings = run.settings
    records, damaged = state.finished_steps(run.model_dir)
    if damaged:
        LOG.info('warning: %s is damaged; its step is evaluated again', damaged)
    write_results(run, records)
    if records:
        LOG.info('going on after step %d of %d', len(records), settings.num_increments)
    prune(run, len(records))
    planned = planned_schedules(run)
    warn(settings_lib.warnings(settings, planned))
    run.run_time = planned_time(planned)
    for step in range(len(records), settings.num_increments):
        STOP.check()
        exemplars, teacher_bias = passed_on(run, step, records)
        results, chosen = run_step(run, step, exemplars, teacher_bias)
        state.check_held(run.model_dir)
        # Logged before it is saved: killed in between, the log has it twice rather than never.
        log_results(settings, [record['results'] for record in records] + [results])
        run_log.write_summary(os.path.join(run.model_dir, 'summary'), results)
        paths = [[os.fsdecode(path) for path in run.train_list.paths[images]] for images in chosen]
        records.append(state.save_step(run.model_dir, step, results, paths))
        write_results(run, records)
        prune(run, len(records))
    run_log.table([record['results'] for record in records])


def planned_time(planned):
    """The RunTime of a run, from its planned_schedules."""
    return run_log.RunTime([stage1.num_images * stage1.epochs for stage1, _ in planned])


def passed_on(run, step, records):
    """What `step` has from those before it: (exemplars, teacher_bias) of run_step.

    Where bad images are skipped, takes those of the step's classes out of the split first.
    """
    if FLAGS.skip_bad_images:
        checks.leave_out_bad_images(run, step)
    exemplars, teacher_bias = [], None
    if step:
        exemplars = lists.find_images(run.train_list, run.split.train, records[-1]['exemplars'],
                                      missing_ok=FLAGS.skip_bad_images)
    if step >= 2 and run.settings.bias_correction:
        teacher_bias = (records[-1]['results']['beta'], records[-1]['results']['gamma'])
    return exemplars, teacher_bias


def follow_chief(run):
    """A worker's part of a run on several machines: stage 1 of each step that the chief names."""
    run.run_time = planned_time(planned_schedules(run))
    while True:
        LOG.info('waiting for the chief')
        word = run.cluster.hear()
        if word is None:
            return
        step, update = word['step'], word['update']
        records, start = wait_for_state(run, step, update)
        exemplars, teacher_bias = passed_on(run, step, records)
        training = run.samples(step, exemplars)[0]
        if digest(training) != word['images']:
            raise UserError('step {} has other training images here than at the chief: {} and the '
                            'images in it have to be the same on all machines'.format(
                                step + 1, run.data_dir))
        schedule = settings_lib.schedule(run.settings, len(training.images))
        LOG.info('step %d of %d, from update %d of %d', step + 1, run.settings.num_increments,
                 update or 0, schedule.num_updates)
        train_from(run, step, training, schedule, teacher_bias, update or 0, start)


def wait_for_state(run, step, update):
    """Waits until what the chief has found on disk shows here too: the shared folder may lag.

    Returns:
        (records of the steps before, start as train_from takes it).
    """
    while True:
        STOP.check()
        records, _ = state.finished_steps(run.model_dir)
        # Where the stage goes on, its own checkpoint is needed; else that of the step before.
        needed = None
        if update is not None:
            needed = state.classifier_dir(run.model_dir, step)
        elif step:
            needed = state.classifier_dir(run.model_dir, step - 1)
        checkpoint = needed and tf.train.latest_checkpoint(needed)
        if len(records) >= step and (
                not needed or checkpoint and update in (None, state.checkpoint_update(checkpoint))):
            return records[:step], checkpoint if update is None else None
        time.sleep(cluster.POLL_SECONDS)


def prune(run, num_finished):
    """Deletes the classifiers of finished steps but the last, which the next one starts from."""
    if not run.keep_checkpoints:
        for step in range(num_finished - 1):
            state.prune(state.classifier_dir(run.model_dir, step))


def evaluate_checkpoints(run):
    """Evaluates the steps whose checkpoints are in model_dir, this system's or the original's."""
    rows, records = [], None
    if state.read_experiment(run.model_dir):
        records, _ = state.finished_steps(run.model_dir)
    for step, exemplars in enumerate(planned_exemplars(run)):
        checkpoint = tf.train.latest_checkpoint(state.classifier_dir(run.model_dir, step))
        unfinished = records is not None and step >= len(records)
        if checkpoint is None or unfinished:
            LOG.info('step %d of %d: %s', step + 1, run.settings.num_increments,
                     'not finished' if checkpoint and unfinished else 'no checkpoint')
            continue
        bias = None
        if step and records is None:
            bias = bic_layer.load(state.bias_dir(run.model_dir, step))
        elif step:
            bias = tuple(records[step]['results'][name] for name in ('beta', 'gamma'))
        samples = run.samples(step, exemplars)
        run_log.counts_lines(step, *(len(part.images) for part in samples))
        accuracies, _, _ = evaluate(run, step, checkpoint, bias, samples, False)
        rows.append(summary(run.settings, step, samples, bias, accuracies))
        log_results(run.settings, rows)
    if not rows:
        raise UserError('{}: no checkpoint of a finished step; a run keeps those of earlier steps '
                        'only with --keep_checkpoints'.format(run.model_dir))
    run_log.table(rows)


def peer_ended(job, name, how):
    """Another process of the run has ended: so must this one, which may wait for it forever."""
    def end(line, status):
        run_log.last_line(line)
        job.leave(error=line.replace('error: ', ''))
        os._exit(status)  # TensorFlow may be waiting for that process; what is on disk is whole

    if how and 'signal' in how:
        number = how['signal']
        STOP.follow(number)
        # Where this process looks at that flag, it has ended by then.
        time.sleep(STOP_SECONDS)
        end('stopped by signal {}; start again with the same flags to go on'.format(number),
            128 + number)
    end('error: {} {}'.format(
        name, 'is gone; start all again with the same flags to go on' if how is None else
        'ended: ' + how['error']), 1)


def log_devices(run):
    """What computes, and why GPUs that could do not."""
    LOG.info('TensorFlow %s on %s, %s%s', tf.__version__, machine.devices(run.replicas),
             run.data_format,
             ', {} replicas'.format(run.replicas.total) if run.replicas.total > 1 else '')
    warn(filter(None, [machine.unused_gpus()]))


def run_alone(run):
    """Does what one of the flags for a look around asks for; returns whether there was one."""
    for flag, function in (('dry_run', dry_run), ('check_data', checks.check_data),
                           ('eval_only', evaluate_checkpoints)):
        if FLAGS[flag].value:
            run_log.open_log(None)
            if FLAGS.eval_only:
                log_devices(run)
            checks.warn_of_shared_images(run)
            function(run)
            return True
    return False


def main(_):
    STOP.install()
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    model_dir = find_model_dir()
    task = cluster.take_task()
    with contextlib.ExitStack() as stack:
        job = None
        if task is not None and not (FLAGS.dry_run or FLAGS.check_data or FLAGS.eval_only):
            # First of all, so that each hears of what ends another.
            run_log.open_log(None)
            job = stack.enter_context(cluster.Cluster(
                task, model_dir, STOP.check, lambda *ended: peer_ended(job, *ended)))
            job.join()
        stored = trained_on = None
        if FLAGS.eval_only:
            stored, trained_on = state.read_experiment(model_dir) or (None, None)
        settings = experiment_settings(stored)
        data_dir = find_data(settings)
        run = Run(settings, data_dir, model_dir, task)
        digests = {name: image_list.digest for name, image_list in (
            (lists.TRAIN_LIST, run.train_list), (lists.TEST_LIST, run.test_list))}
        if stored and trained_on != digests:
            raise UserError('--data_dir={}: other lists than those of --model_dir={}: {}'.format(
                data_dir, model_dir, state.differences(trained_on, digests)))
        if run_alone(run):
            return
        if job is not None:
            run.cluster = job
            job.agree(dict(
                state.identity(settings, digests), replicas=run.replicas.total,
                skip_bad_images=FLAGS.skip_bad_images, mixed_precision=FLAGS.mixed_precision))
            if not job.is_chief:
                log_devices(run)
                follow_chief(run)
                return
        if FLAGS.log_file:
            run_log.check_log(FLAGS.log_file, settings)
        kept = stack.enter_context(state.experiment(
            model_dir, settings, digests, FLAGS.overwrite, FLAGS.keep_checkpoints))
        run_log.open_log(FLAGS.log_file or os.path.join(model_dir, state.LOG))
        run_log.settings_line(settings)
        if run.keep_checkpoints is None:
            run.keep_checkpoints = kept
        elif kept and not run.keep_checkpoints:
            LOG.info('--nokeep_checkpoints: the classifiers kept so far are deleted')
        log_devices(run)
        checks.warn_of_shared_images(run)
        run_experiment(run)


def parse_flags(arguments):
    """Reads the command line; raises UserError where it holds anything but flags and values."""
    try:
        rest = FLAGS(arguments)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError('{}; see --help'.format(' '.join(str(error).split()))) from None
    if rest:
        before = ''.join(arguments[:-len(rest)][-1:]).lstrip('-')
        raise UserError('{!r} belongs to no flag; what is true or false takes no value after a '
                        'space: --{name} is true, --no{name} is false'.format(
                            rest[0], name=before if before in FLAGS and FLAGS[before].boolean
                            else 'distillation'))


def run_main():
    """Runs `main`; what stops it ends in one line and status 1, a signal in 128 + its number."""
    several_machines = cluster.ENVIRONMENT in os.environ
    try:
        app.run(main, flags_parser=parse_flags)
    except (UserError, OSError, MemoryError, tf.errors.OpError) as error:
        run_log.last_line('error: ' + run_log.failure(error))
        status = 1
    except (Stopped, KeyboardInterrupt) as stopped:
        number = getattr(stopped, 'signal_number', signal.SIGINT)
        run_log.last_line('stopped by signal {}; start again with the same flags to go on'.format(
            number))
        status = 128 + number
    except SystemExit as end:
        if not several_machines:
            raise
        status = end.code or 0
    if several_machines:  # TensorFlow's server cannot be stopped, and complains of being tidied up
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)
    sys.exit(status)


if __name__ == '__main__':
    run_main()
