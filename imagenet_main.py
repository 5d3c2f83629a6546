"""Large Scale Incremental Learning (BiC, Wu et al., CVPR 2019): the loop over incremental steps.

    python imagenet_main.py                        # ImageNet-1000, the paper's headline experiment
    python imagenet_main.py --dataset=glyphs100    # embedded images, minutes on two CPU cores

Steps count from 0 here, as t does in the formulas, and from 1 in the log and the tables. For file
names see runtime/README.md. Paper: https://arxiv.org/abs/1905.13260; authors' code: see README.md.
"""

import runtime.environment  # noqa: F401, I001 (before NumPy and TensorFlow)
import runtime.quiet_import  # noqa: F401, I001

import contextlib
import dataclasses
import functools
import os

from absl import flags
import numpy as np
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import resnet_model
from data import checks, folders, lists, pipeline
from runtime import export as export_lib
from runtime import results as results_lib
from runtime import settings as settings_lib
from data.samples import planned_samples, step_samples
from logs import measures
from logs.log_reader import COUNTS
from runtime import (
    LOG,
    checkpoints,
    cluster,
    experiment,
    machine,
    progress,
    run_log,
    signals,
    state,
)
from runtime.errors import UserError
from runtime.signals import STOP

FLAGS = flags.FLAGS

# What to run, and where.
flags.DEFINE_enum('dataset', 'imagenet1000', sorted(settings_lib.DATASETS),
                  'Data set. Unset flags default to its settings.')
run_log.define_path('data_dir', 'Folder with train.txt, val.txt (the test list) and the images '
                    'they list. (default: where prepare.py of the data set writes them)')
run_log.define_path('model_dir', 'Folder of this experiment. Each experiment needs one of its own. '
                    '(default: logs/runs/<dataset>)')
flags.DEFINE_bool('dry_run', False, 'Print the images and updates of each step and any warnings, '
                  'then exit.')
flags.DEFINE_bool('eval_only', False, 'Evaluate the checkpoints in --model_dir, which may come '
                  'from the authors\' code, then exit.')
for module in (settings_lib, checks, export_lib, machine, checkpoints, experiment, state, run_log,
               progress, results_lib):
    flags.adopt_module_key_flags(module)  # --help lists them too


@dataclasses.dataclass
class Run:
    """One experiment while it runs.

    Fixed:
        settings: the experiment's Settings.
        data_dir, model_dir: its folders.
        digests: {name of a list file: its SHA-256}.
        machine: the Machine that computes.
        pretrained: the Pretrained that the first step starts from, or None.

    Changing:
        split: the Split; --skip_bad_images takes images out of it, group by group.
        run_time: the RunTime, once the steps are planned.
        keeps_checkpoints: whether finished steps keep their classifiers.
    """

    settings: settings_lib.Settings
    data_dir: str
    model_dir: str
    digests: dict
    machine: machine.Machine
    pretrained: object
    split: lists.Split
    run_time: progress.RunTime = None
    keeps_checkpoints: bool = False

    def planned_samples(self):
        """The image sets of every step, as far as counts go."""
        return planned_samples(self.split, self.settings, [
            exemplar.step_counts(self.settings, step) for step in range(self.settings.num_steps)])

    def schedules(self, step, samples):
        """The Schedules of both stages; that of stage 2 is None if the step has no correction."""
        training, validation, _ = samples
        stage1 = settings_lib.schedule(self.settings, len(training.indices))
        if step == 0 or not self.settings.bias_correction:
            return stage1, None
        return stage1, settings_lib.schedule(self.settings, len(validation.indices),
                                             bic_layer.EPOCHS_FACTOR)


# -- one step ----------------------------------------------------------------------------------


def run_step(run, step, exemplars, teacher_bias):
    """Train and evaluate one step, and choose its exemplars. What is on disk is not done again.

    Args:
        run: the Run.
        step: t, counted from 0.
        exemplars: one array of indices into the train list per old class.
        teacher_bias: (beta, gamma) of the step before, or None.

    Returns:
        (results, exemplars of the seen classes).
    """
    # The image sets of the step.
    settings = run.settings
    samples = training, validation, test = step_samples(
        run.split, settings, step, exemplars, exemplar.step_counts(settings, step))
    log_counts(step, samples)
    stage1, stage2 = run.schedules(step, samples)
    stores = FLAGS.store_last or step < settings.num_steps - 1
    herds = (settings.exemplar_selection == 'herding' and stores
             and exemplar.stored_exemplars(settings, step, after_last=True) > 0)

    # Stage 1, the classifier (section 3 of the paper).
    checkpoint = train_classifier(run, step, training, stage1, teacher_bias)
    with resnet_model.frozen(checkpoint, run.machine, settings, step) as frozen:
        # Stage 2, the bias correction (section 4).
        bias = fit_bias(run, step, frozen, validation, stage2) if stage2 else None
        results, predicted, features = evaluate(run, step, frozen, bias, samples, herds)
    results_lib.write_predicted_classes(run.model_dir, step, settings, run.split, test, predicted)

    # The exemplar memory (herding or random exemplars).
    if not stores:
        return results, []
    chosen = exemplar.select(settings, step, training.class_indices, features, after_last=True)
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
        LOG.info('resuming step %d at update %d of %d', step + 1, done, schedule.num_updates)
    if run.machine.writes:  # a bias pair from an earlier start belongs to a lost classifier
        state.delete(checkpoints.bias_dir(run.model_dir, step))
    train(run, step, training, schedule, teacher_bias, done, start)
    return checkpoints.finished(directory, schedule.num_updates) if run.machine.writes else None


def train(run, step, training, schedule, teacher_bias, done, start):
    """Stage 1 from update `done` on, with all replicas and machines.

    `start`: the checkpoint of step t-1's classifier; None at step 0 and when the stage resumes.
    """
    directory = checkpoints.classifier_dir(run.model_dir, step)
    batches = pipeline.Batches(schedule, [run.settings.seed, step])
    files = training.files
    start_names = None
    if step == 0 and run.pretrained:
        start, start_names = run.pretrained.prefix, run.pretrained.names
    watch = progress.Progress(run, step, 'classifier', schedule, directory,
                              lambda update: files[batches.indices(update)])
    with checks.around_stage(run, watch.files_read):
        resnet_model.train(directory, training, batches, schedule, run.machine, watch, done,
                           settings=run.settings, step=step, teacher_bias=teacher_bias,
                           start=start, start_names=start_names)


def fit_bias(run, step, frozen, validation, schedule):
    """Stage 2 of `step`, whose classifier is `frozen`; return (beta, gamma)."""
    directory = checkpoints.bias_dir(run.model_dir, step)
    bias = bic_layer.load(directory)
    if bias is not None:
        return bias
    watch = progress.Progress(run, step, 'bias correction', schedule, directory)
    files = validation.files
    with checks.around_stage(run, lambda: checks.files_in_flight(
            files, frozen.position, schedule.batch_size, run.machine.num_parallel_calls)):
        return bic_layer.fit(functools.partial(frozen.forward, outputs='bias'), validation,
                             schedule, run.settings, directory, run.machine, watch)


def evaluate(run, step, frozen, bias, samples, with_features):
    """One pass over validation, test and, for herding, training images.

    Returns:
        (results, predicted, features): those of results_lib.compute_results, and float32
        [training images, dimensions] or None.
    """
    training, _, _ = samples
    parts = list(results_lib.evaluated_samples(step, samples))
    if with_features:
        parts.append(training)
    files = np.concatenate([part.files for part in parts])
    classes = np.concatenate([part.class_indices for part in parts])
    num_parallel_calls = run.machine.num_parallel_calls

    def dataset():
        return pipeline.evaluation_dataset(files, classes, run.settings, num_parallel_calls)

    with checks.around_stage(run, lambda: checks.files_in_flight(
            files, frozen.position, pipeline.evaluation_batch_size(run.settings),
            num_parallel_calls)):
        outputs = frozen.forward(dataset, len(files), outputs='evaluation', batch_norm='moving',
                                 bias=bias)
    checks.no_nan(outputs['cross_entropy'], files, frozen.checkpoint)
    results, predicted = results_lib.compute_results(step, run.settings, samples, bias, outputs)
    features = outputs['features'][-len(training.indices):] if with_features else None
    return results, predicted, features


# -- the loop over steps -----------------------------------------------------------------------


def run_experiment(run):
    """The loop over incremental steps, from the first that is not finished."""
    settings = run.settings
    records = state.finished_steps(run.model_dir, settings.num_steps)
    results_lib.write_results(run.model_dir, settings.num_steps, records)
    state.write_table(run.model_dir, 'classes.txt', *lists.classes(run.split, run.data_dir))
    rows = [measures.without_trivial_top5(record['results']) for record in records]
    if records:
        LOG.info('resuming after step %d of %d', len(records), settings.num_steps)
    checkpoints.prune(run.model_dir, len(records), run.keeps_checkpoints)
    plan(run)
    for step in range(len(records), settings.num_steps):
        checks.leave_out_bad_images(run, step + 1)
        exemplars, teacher_bias = memory_and_teacher_bias(run, step, records)
        results, chosen = run_step(run, step, exemplars, teacher_bias)
        # Log first, then save: if killed in between, the log has the step twice, not never.
        rows.append(measures.without_trivial_top5(results))
        results_lib.log_step(settings.num_steps, rows)
        results_lib.write_curves(os.path.join(run.model_dir, 'summary'), rows[-1])
        names = [run.split.train_list.names(indices) for indices in chosen]
        records.append(state.save_step(run.model_dir, step, results, names))
        results_lib.write_results(run.model_dir, settings.num_steps, records)
        checkpoints.prune(run.model_dir, len(records), run.keeps_checkpoints)
    results_lib.log_table(rows)
    LOG.info('\n'.join(measures.closing_lines(rows)))
    results_lib.write_summary(run.model_dir, measures.summary(rows))
    run_log.finished_line()


def memory_and_teacher_bias(run, step, records):
    """What `step` takes over from the steps before: (exemplars, teacher_bias) of run_step."""
    exemplars, teacher_bias = [], None
    if step:
        exemplars = lists.find_images(run.split, records[step - 1]['exemplars'],
                                      missing_ok=FLAGS.skip_bad_images)
    if step >= 2 and run.settings.bias_correction:  # at t = 1 there is nothing to correct
        teacher_bias = state.bias_of(records[step - 1])
    return exemplars, teacher_bias


def plan(run, log_steps=False):
    """Plan all steps, for the time left and for warnings of settings that cannot work.

    `log_steps`: whether to log the images and updates of each step.
    """
    planned = []
    for step, samples in enumerate(run.planned_samples()):
        STOP.check()
        planned.append(run.schedules(step, samples))
        if log_steps:
            log_counts(step, samples)
            run_log.updates_line(*planned[-1])
    run_log.warn(settings_lib.schedule_warnings(run.settings, planned))
    run_log.warn(exemplar.memory_warnings(run.settings, run.split))
    run_log.warn(results_lib.unequal_test_warnings(run.split))
    run.run_time = progress.RunTime([stage1.num_images * stage1.epochs for stage1, _ in planned])


def log_counts(step, samples):
    """Log the number of training, validation and test images of a step."""
    run_log.counts_lines(step, *(len(part.indices) for part in samples))


def run_worker(run):
    """Run a worker's part on several machines: stage 1 of each step that is not finished."""
    plan(run)
    num_updates = None
    for step in range(run.settings.num_steps):
        records = cluster.wait_for_step(run.model_dir, step, num_updates)
        if len(records) == step:
            exemplars, teacher_bias = memory_and_teacher_bias(run, step, records)
            samples = step_samples(run.split, run.settings, step, exemplars,
                                   exemplar.step_counts(run.settings, step))
            schedule = run.schedules(step, samples)[0]
            train_classifier(run, step, samples[0], schedule, teacher_bias)
            num_updates = schedule.num_updates


# -- evaluation of checkpoints -----------------------------------------------------------------


def checkpoints_of_records(run, records):
    """The finished steps of an experiment of this program, as far as their checkpoints are kept.

    Yields:
        (step, checkpoint prefix, (beta, gamma), {count of images: number} of its record).
    """
    for step in range(run.settings.num_steps):
        finished = step < len(records)
        checkpoint = checkpoints.find_latest(checkpoints.classifier_dir(run.model_dir, step),
                                             verify=finished)
        if checkpoint and finished:
            yield (step, checkpoint, state.bias_of(records[step]),
                   {name: records[step]['results'][name] for name in COUNTS})
        else:
            LOG.info('step %d of %d: %s', step + 1, run.settings.num_steps,
                     'not finished' if checkpoint else 'no checkpoint')


def checkpoints_of_authors(run):
    """The steps that have a checkpoint of the authors' code, which stores no records.

    Yields:
        (step, checkpoint prefix, (beta, gamma) or None, None).
    """
    for step in range(run.settings.num_steps):
        checkpoint = checkpoints.find_latest(checkpoints.classifier_dir(run.model_dir, step),
                                             verify=True)
        if not checkpoint:
            LOG.info('step %d of %d: no checkpoint', step + 1, run.settings.num_steps)
            continue
        bias = None
        if step and run.settings.bias_correction:
            bias = bic_layer.load(checkpoints.bias_dir(run.model_dir, step))
            if bias is None:
                run_log.warn([f'step {step + 1}: no {step}_bias to read: not corrected'])
        yield step, checkpoint, bias, None


def evaluate_checkpoints(run, own):
    """Evaluate the steps whose checkpoints are in model_dir.

    `own`: whether this program made them; otherwise the authors' code did.
    """
    num_steps = run.settings.num_steps
    records = state.finished_steps(run.model_dir) if own else []
    checks.leave_out_bad_images(run, len(records) if own else num_steps)
    planned = list(run.planned_samples())
    rows = []
    for step, checkpoint, bias, counts in (
            checkpoints_of_records(run, records) if own else checkpoints_of_authors(run)):
        samples = planned[step]
        counts = counts or {name: len(part.indices) for name, part in zip(COUNTS, samples)}
        run_log.counts_lines(step, *counts.values())
        with resnet_model.frozen(checkpoint, run.machine, run.settings, step) as frozen:
            results, predicted, _ = evaluate(run, step, frozen, bias, samples, with_features=False)
        results_lib.write_predictions(run.model_dir, step, run.split, samples[-1], predicted)
        rows.append(measures.without_trivial_top5(dict(results, **counts)))
        results_lib.log_step(num_steps, rows)
    if not rows:
        raise UserError(f'{run.model_dir}: no checkpoint of a finished step. A run keeps those of '
                        'earlier steps only with --keep_checkpoints.')
    results_lib.log_table(rows)


# -- what the command line asks for ------------------------------------------------------------


@contextlib.contextmanager
def opened_run(model_dir, trains=False, stored=None):
    """The Run that the flags describe; with `trains`, model_dir is held for it.

    `stored`: settings and lists of the experiment in model_dir, which the flags must not
    contradict; or None.
    """
    with contextlib.ExitStack() as stack:
        task = cluster.take_task()
        if task is not None and FLAGS.skip_bad_images:  # each machine might leave out others
            raise UserError(f'--skip_bad_images: not available with {cluster.ENVIRONMENT}. Remove '
                            'bad images from the lists; --check_data finds them.')
        settings = (settings_lib.stored_settings(FLAGS, stored) if stored
                    else settings_lib.settings_from_flags(FLAGS))
        exemplar.check_memory(settings)
        data_dir = folders.find(settings.dataset, FLAGS.data_dir)
        train_list, test_list = lists.read_lists(
            data_dir, settings.num_classes, functools.partial(progress.Watch, unit='lines'))
        digests = {lists.TRAIN_LIST: train_list.digest, lists.TEST_LIST: test_list.digest}
        if stored:
            experiment.check_lists(stored, digests, model_dir, data_dir)
        split = lists.split(train_list, test_list, settings.num_classes,
                            exemplar.validation_pool(settings), settings.order_seed,
                            settings.class_order)
        here = machine.Machine(task, settings.batch_size, settings.network == 'cifar')
        pretrained = FLAGS.pretrained and checkpoints.pretrained(
            FLAGS.pretrained, resnet_model.variable_shapes(settings))
        run = Run(settings, data_dir, model_dir, digests, here, pretrained, split)
        if here.writes:
            run_log.check_log(FLAGS.log_file, settings, digests)
        look_for_images(run, trains)
        if trains and here.writes:
            run.keeps_checkpoints = stack.enter_context(experiment.hold_model_dir(
                model_dir, settings, digests, FLAGS.overwrite, FLAGS.keep_checkpoints,
                FLAGS.skip_bad_images, FLAGS.log_file))
            run_log.open_log(FLAGS.log_file or os.path.join(model_dir, state.LOG_FILE))
            run_log.opening_lines(data_dir)
            run_log.settings_line(settings, digests)
        elif trains:
            cluster.wait_for_experiment(model_dir, settings, digests, FLAGS.overwrite)
        here.log_devices()
        if pretrained and pretrained.note:
            LOG.info('%s', pretrained.note)
        checks.warn_of_images(split, settings)
        yield run


def look_for_images(run, trains):
    """Look for some images of both lists before anything is approved, checked or trained."""
    begun = os.path.exists(os.path.join(run.model_dir, 'experiment.json'))
    if trains and begun and not FLAGS.overwrite:
        return  # they were looked for when the run began, and a finished one needs none
    checks.look_for_images([run.split.train_list, run.split.test_list], all_must_exist=not (
        FLAGS.skip_bad_images or FLAGS.check_data or FLAGS.eval_only))


def train_and_evaluate(model_dir):
    """Run the experiment, or this machine's part of it."""
    with opened_run(model_dir, trains=True) as run:
        if run.machine.writes:
            run_experiment(run)
        else:
            run_worker(run)


def dry_run(model_dir):
    """--dry_run: log the images and updates of each step."""
    with opened_run(model_dir) as run:
        plan(run, log_steps=True)


def check_data(model_dir):
    """--check_data: decode every listed image."""
    with opened_run(model_dir) as run:
        checks.check_data(run.split, run.machine.num_parallel_calls)


def eval_only(model_dir):
    """--eval_only: evaluate the checkpoints in model_dir."""
    stored = experiment.read_experiment(model_dir)
    if FLAGS.predictions:
        experiment.check_writable(model_dir)
    with opened_run(model_dir, stored=stored) as run:
        evaluate_checkpoints(run, own=stored is not None)


def export(model_dir):
    """--export_dir: write a finished step as a SavedModel."""
    export_lib.write_export(model_dir)


def self_check(_):
    """--self_check: compute what this machine should compute, and compare."""
    from runtime import self_check as checker  # only on request: it uses all of the method
    checker.run()


# What to do instead of training, by the flag that asks for it. At most one may be given.
MODES = {'dry_run': dry_run, 'check_data': check_data, 'eval_only': eval_only,
         'export_dir': export, 'self_check': self_check}


def main(_):
    """Do what the flags ask for: the experiment in model_dir, or one of MODES."""
    STOP.install()
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    run_log.open_log(None)
    modes = [name for name in MODES if FLAGS[name].value]
    if len(modes) > 1:
        raise UserError(f'{" and ".join("--" + name for name in modes)} exclude each other. Use '
                        'one of them.')
    model_dir = FLAGS.model_dir or os.path.join(folders.ROOT, 'logs', 'runs', FLAGS.dataset)
    act = MODES[modes[0]] if modes else train_and_evaluate
    act(model_dir)


if __name__ == '__main__':
    signals.run(main, hard=cluster.ENVIRONMENT in os.environ)
