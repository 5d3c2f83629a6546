"""Large Scale Incremental Learning (BiC, Wu et al., CVPR 2019): the loop over incremental steps.

    python imagenet_main.py                        # ImageNet-1000, the paper's headline experiment
    python imagenet_main.py --dataset=glyphs100    # embedded images, minutes on two CPU cores

Steps count from 0 here and in the names of files, as t in the formulas does, and from 1 in the
log and the tables. Paper: https://arxiv.org/abs/1905.13260; its authors' code: see README.md.
"""

import runtime.environment  # noqa: F401, I001 (before NumPy and TensorFlow)
import runtime.quiet_import  # noqa: F401, I001

import contextlib
import functools
import os

from absl import flags
import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import resnet_model
from data import checks, folders, lists, pipeline
from runtime import results as results_lib
from runtime import settings as settings_lib
from data.samples import planned_samples, step_samples
from logs import measures
from logs.log_reader import COUNTS
from runtime import LOG, checkpoints, cluster, export, machine, progress, run_log, signals, state
from runtime.errors import UserError
from runtime.signals import STOP

FLAGS = flags.FLAGS

# What to run, and where.
flags.DEFINE_enum('dataset', 'imagenet1000', sorted(settings_lib.DATASETS),
                  'the data set; its settings are the defaults of the flags below')
run_log.define_path('data_dir', 'folder with train.txt, val.txt and the images they list')
run_log.define_path('model_dir', 'folder of this experiment (default: logs/runs/<dataset>)')
flags.DEFINE_bool('dry_run', False, 'print what each step will train on, and stop')
flags.DEFINE_bool('eval_only', False, 'evaluate model_dir (also the original\'s), and stop')
for module in (settings_lib, checks, export, machine, checkpoints, state, run_log, progress,
               results_lib):
    flags.adopt_module_key_flags(module)  # --help lists them too
flags.mark_bool_flags_as_mutual_exclusive(['dry_run', 'check_data', 'eval_only'])


class Run:
    """One experiment while it runs: what is fixed for all of its steps, and the split."""

    def __init__(self, settings, data_dir, model_dir, task):
        self.settings, self.data_dir, self.model_dir = settings, data_dir, model_dir
        train, test = lists.read_lists(data_dir, settings.num_classes,
                                       functools.partial(progress.Watch, unit='lines'))
        self.digests = {lists.TRAIN_LIST: train.digest, lists.TEST_LIST: test.digest}
        self.split = lists.split(train, test, settings.num_classes,
                                 exemplar.validation_pool(settings), settings.order_seed,
                                 settings.class_order)
        self.machine = machine.Machine(task, settings.batch_size, settings.network == 'cifar')
        self.pretrained = FLAGS.pretrained and checkpoints.pretrained(
            FLAGS.pretrained, resnet_model.variable_shapes(settings))
        self.run_time = None

    def planned_samples(self):
        """`step_samples` of every step, as far as counts go."""
        return planned_samples(self.split, self.settings, [
            exemplar.step_counts(self.settings, step) for step in range(self.settings.num_steps)])

    def schedules(self, step, samples):
        """The Schedules of both stages; None for stage 2 where there is no correction."""
        stage1, stage2 = (settings_lib.schedule(self.settings, len(part.indices), factor)
                          for part, factor in zip(samples, (1, bic_layer.EPOCHS_FACTOR)))
        return stage1, stage2 if step and self.settings.bias_correction else None


def run_step(run, step, exemplars, teacher_bias):
    """All of one step, of which what is on disk already is not done again.

    Args:
        run: the Run.
        step: t, counted from 0.
        exemplars: arrays of indices into the train list, one an old class.
        teacher_bias: (beta, gamma) of the step before, or None.

    Returns (results, exemplars of the seen classes).
    """
    settings = run.settings
    samples = training, validation, test = step_samples(
        run.split, settings, step, exemplars, exemplar.step_counts(settings, step))
    run_log.counts_lines(step, *(len(part.indices) for part in samples))
    stage1, stage2 = run.schedules(step, samples)

    checkpoint = train_classifier(run, step, training, stage1, teacher_bias)  # section 3
    stores = FLAGS.store_last or step < settings.num_steps - 1
    herding = (settings.exemplar_selection == 'herding' and stores
               and exemplar.stored_exemplars(settings, step, after_last=True) > 0)
    with resnet_model.frozen(checkpoint, run.machine, settings, step) as frozen:
        bias = fit_bias(run, step, frozen, validation, stage2) if stage2 else None  # section 4
        results, predicted, features = evaluate(run, step, frozen, bias, samples, herding)
    results_lib.write_predicted_classes(run.model_dir, step, settings, run.split, test, predicted)
    chosen = exemplar.select(settings, step, training.class_indices, features,
                             after_last=True) if stores else []
    return results, [training.indices[rows] for rows in chosen]


def train_classifier(run, step, training, schedule, teacher_bias):
    """Run stage 1 of `step` from where it stopped; return the classifier's checkpoint.

    Workers do the same. They change nothing in model_dir, and return None after training.
    """
    directory = checkpoints.classifier_dir(run.model_dir, step)
    checkpoint, start = checkpoints.where_to_start(
        run.model_dir, step,
        checkpoints.recover_latest if run.machine.writes else checkpoints.find_latest)
    done = checkpoints.num_updates(checkpoint) if checkpoint else 0
    if done >= schedule.num_updates:
        return checkpoint
    if done:
        LOG.info('step %d goes on after update %d of %d', step + 1, done, schedule.num_updates)
    if run.machine.writes:  # it belongs to a classifier that was lost since
        state.delete(checkpoints.bias_dir(run.model_dir, step))
    train(run, step, training, schedule, teacher_bias, done, start)
    return checkpoints.finished(directory, schedule.num_updates) if run.machine.writes else None


def train(run, step, training, schedule, teacher_bias, done, start):
    """Stage 1 from update `done` on, with all that take part in the run.

    `start`: the checkpoint of step t-1's classifier; None at step 0, and where the stage goes on.
    """
    directory = checkpoints.classifier_dir(run.model_dir, step)
    batches = pipeline.Batches(schedule, [run.settings.seed, step])
    files = training.files
    names = None
    if not step and run.pretrained:
        start, names = run.pretrained.prefix, run.pretrained.names
    watch = progress.Progress(run, step, 'classifier', schedule, directory,
                              lambda update: files[batches.images(update)])
    with checks.around_stage(run, watch.files_read):
        resnet_model.train(directory, training, batches, schedule, run.machine, watch, done,
                           settings=run.settings, step=step, teacher_bias=teacher_bias,
                           start=start, start_names=names)


def fit_bias(run, step, frozen, validation, schedule):
    """Stage 2 of `step`, whose classifier is `frozen`; returns (beta, gamma)."""
    directory = checkpoints.bias_dir(run.model_dir, step)
    found = bic_layer.load(directory)
    if found is not None:
        return found
    watch = progress.Progress(run, step, 'bias correction', schedule, directory)
    with checks.around_stage(run, lambda: validation.files):
        return bic_layer.fit(functools.partial(frozen.forward, outputs='bias'), validation,
                             schedule, run.settings, directory, run.machine, watch)


def evaluate(run, step, frozen, bias, samples, with_features):
    """One pass over validation, test and, for herding, training images.

    Returns (results, predicted, features): results_lib.compute_results, and float32 [training
    images, dimensions] or None.
    """
    training = samples[0]
    passed = [*results_lib.evaluated_samples(step, samples), *([training] if with_features else [])]
    files = np.concatenate([part.files for part in passed])
    classes = np.concatenate([part.class_indices for part in passed])
    with checks.around_stage(run, lambda: files):
        outputs = frozen.forward(
            lambda: pipeline.evaluation_dataset(files, classes, run.settings,
                                                run.machine.num_parallel_calls),
            len(files), outputs='evaluation', batch_norm='moving', bias=bias)
    checks.no_nan(outputs['cross_entropy'], files, frozen.checkpoint)
    return results_lib.compute_results(step, run.settings, samples, bias, outputs) + (
        outputs['features'][-len(training.indices):] if with_features else None,)


def run_experiment(run):
    """The loop over incremental steps, from the first that is not finished."""
    settings = run.settings
    records = state.finished_steps(run.model_dir, settings.num_steps)
    results_lib.write_results(run.model_dir, settings.num_steps, records)
    state.write_table(run.model_dir, 'classes.txt', *lists.classes(run.split, run.data_dir))
    rows = [measures.without_trivial_top5(record['results']) for record in records]
    if records:
        LOG.info('resuming after step %d of %d', len(records), settings.num_steps)
    checkpoints.prune(run.model_dir, len(records), run.keeps)
    plan(run)
    for step in range(len(records), settings.num_steps):
        results, chosen = run_step(run, step, *passed_on(run, step, records))
        # Logged before it is saved: killed in between, the log has it twice rather than never.
        rows.append(measures.without_trivial_top5(results))
        results_lib.log_step(settings.num_steps, rows)
        results_lib.write_curves(os.path.join(run.model_dir, 'summary'), rows[-1])
        records.append(state.save_step(run.model_dir, step, results,
                                       [run.split.train_list.names(images) for images in chosen]))
        results_lib.write_results(run.model_dir, settings.num_steps, records)
        checkpoints.prune(run.model_dir, len(records), run.keeps)
    results_lib.log_table(rows)
    LOG.info('\n'.join(measures.closing_lines(rows)))
    results_lib.write_summary(run.model_dir, measures.summary(rows))
    run_log.finished_line()


def plan(run, says=False):
    """Finds the RunTime, warns of what makes a run go wrong; `says`: also what each step has."""
    planned = []
    for step, samples in enumerate(run.planned_samples()):
        STOP.check()
        planned.append(run.schedules(step, samples))
        if says:
            run_log.counts_lines(step, *(len(part.indices) for part in samples))
            run_log.updates_line(*planned[-1])
    run_log.warn(settings_lib.schedule_warnings(run.settings, planned))
    run_log.warn(exemplar.memory_warnings(run.settings, run.split))
    run_log.warn(results_lib.unequal_test_warnings(run.split))
    run.run_time = progress.RunTime([stage1.num_images * stage1.epochs for stage1, _ in planned])


def passed_on(run, step, records):
    """What `step` has from those before it: (exemplars, teacher_bias) of run_step."""
    checks.leave_out_bad_images(run, step + 1)
    exemplars, teacher_bias = [], None
    if step:
        exemplars = lists.find_images(run.split, records[step - 1]['exemplars'],
                                      missing_ok=FLAGS.skip_bad_images)
    if step >= 2 and run.settings.bias_correction:  # at t = 1 there is nothing to correct
        teacher_bias = state.bias_of(records[step - 1])
    return exemplars, teacher_bias


def run_worker(run):
    """Run a worker's part on several machines: stage 1 of each step that is not finished."""
    plan(run)
    num_updates = None
    for step in range(run.settings.num_steps):
        records = cluster.wait_for_step(run.model_dir, step, num_updates)
        if len(records) == step:
            exemplars, teacher_bias = passed_on(run, step, records)
            samples = step_samples(run.split, run.settings, step, exemplars,
                                   exemplar.step_counts(run.settings, step))
            schedule = run.schedules(step, samples)[0]
            train_classifier(run, step, samples[0], schedule, teacher_bias)
            num_updates = schedule.num_updates


def evaluate_checkpoints(run, own):
    """Evaluates the steps whose checkpoints are in model_dir.

    `own`: whether they are of this system and not the original's, which stores no records.
    """
    num_steps, corrects, rows = run.settings.num_steps, run.settings.bias_correction, []
    records = state.finished_steps(run.model_dir) if own else [None] * num_steps
    checks.leave_out_bad_images(run, len(records))
    for step, samples in enumerate(run.planned_samples()):
        checkpoint = checkpoints.find_latest(checkpoints.classifier_dir(run.model_dir, step),
                                        verify=step < len(records))
        if not checkpoint or step >= len(records):
            LOG.info('step %d of %d: %s', step + 1, num_steps,
                     'not finished' if checkpoint else 'no checkpoint')
            continue
        bias = (state.bias_of(records[step]) if own else None if not corrects else
                bic_layer.load(checkpoints.bias_dir(run.model_dir, step)))
        counts = {name: len(part.indices) for name, part in zip(COUNTS, samples)}
        if own:  # what the step trained on, which --skip_bad_images may have made fewer
            counts = {name: records[step]['results'][name] for name in COUNTS}
        run_log.counts_lines(step, *counts.values())
        if bias is None and step and corrects:
            run_log.warn(['step {}: no {}_bias to read: not corrected'.format(step + 1, step)])
        with resnet_model.frozen(checkpoint, run.machine, run.settings, step) as frozen:
            results, predicted, _ = evaluate(run, step, frozen, bias, samples, False)
        results_lib.write_predictions(run.model_dir, step, run.split, samples[-1], predicted)
        rows.append(measures.without_trivial_top5(dict(results, **counts)))
        results_lib.log_step(num_steps, rows)
    if not rows:
        raise UserError('{}: no checkpoint of a finished step; a run keeps those of earlier steps '
                        'only with --keep_checkpoints'.format(run.model_dir))
    results_lib.log_table(rows)


def main(_):
    """Does what the flags ask for: a look around, or the experiment in model_dir."""
    STOP.install()
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    run_log.open_log(None)
    if FLAGS.self_check:
        from runtime import self_check  # only on request: it uses all of the method
        return self_check.run()
    model_dir = FLAGS.model_dir or os.path.join(folders.ROOT, 'logs', 'runs', FLAGS.dataset)
    if FLAGS.export_dir:
        return export.write_export(model_dir)
    look = FLAGS.dry_run or FLAGS.check_data or FLAGS.eval_only
    with contextlib.ExitStack() as stack:
        task = cluster.take_task()
        if task is not None and FLAGS.skip_bad_images:  # each machine might leave out others
            raise UserError(f'--skip_bad_images: not available with {cluster.ENVIRONMENT}. Remove '
                            'bad images from the lists; --check_data finds them.')
        stored = FLAGS.eval_only and state.read_experiment(model_dir)
        if FLAGS.eval_only and FLAGS.predictions:
            state.check_writable(model_dir)
        settings = (settings_lib.stored_settings(FLAGS, stored) if stored
                    else settings_lib.settings_from_flags(FLAGS))
        exemplar.check_memory(settings)
        run = Run(settings, folders.find(settings.dataset, FLAGS.data_dir), model_dir, task)
        if stored:
            state.check_lists(stored, run.digests, model_dir, run.data_dir)
        run_log.check_log(FLAGS.log_file, settings, run.digests)
        if run.machine.writes and not look:
            run.keeps = stack.enter_context(state.experiment(
                model_dir, settings, run.digests, FLAGS.overwrite, FLAGS.keep_checkpoints,
                FLAGS.skip_bad_images, FLAGS.log_file))
            run_log.open_log(FLAGS.log_file or os.path.join(model_dir, state.LOG_FILE))
            run_log.opening_lines(run.data_dir)
            run_log.settings_line(settings, run.digests)
        elif not look:
            cluster.wait_for_experiment(model_dir, settings, run.digests, FLAGS.overwrite)
        run.machine.log_devices()
        if run.pretrained and run.pretrained.note:
            LOG.info('%s', run.pretrained.note)
        checks.warn_of_images(run.split, settings)
        if FLAGS.dry_run:
            plan(run, says=True)
        elif FLAGS.check_data:
            checks.check_data(run.split, run.machine.num_parallel_calls)
        elif FLAGS.eval_only:
            evaluate_checkpoints(run, bool(stored))
        elif run.machine.writes:
            run_experiment(run)
        else:
            run_worker(run)


if __name__ == '__main__':
    signals.run(main, hard=cluster.ENVIRONMENT in os.environ)
