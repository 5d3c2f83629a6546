"""Large Scale Incremental Learning (BiC, Wu et al., CVPR 2019): the loop over incremental steps.

    python imagenet_main.py                        # ImageNet-1000, the paper's headline experiment
    python imagenet_main.py --dataset=glyphs100    # embedded images, minutes on two CPU cores

Steps count from 0 here, as t does in the formulas, and from 1 in the log and the tables. For file
names see runtime/README.md. Paper: https://arxiv.org/abs/1905.13260; authors' code: see README.md.
"""

import runtime.environment  # noqa: F401, I001 (before NumPy and TensorFlow)
import runtime.quiet_import  # noqa: F401, I001

import os

from absl import flags
import tensorflow.compat.v1 as tf

import bic_layer
import exemplar
import resnet_model
from data import checks, folders, lists, pipeline
from logs import measures
from runtime import machine as machine_lib
from runtime import results as results_lib
from runtime import settings as settings_lib
from runtime import (
    LOG,
    ROOT,
    checkpoints,
    cluster,
    evaluation,
    experiment,
    export,
    plan,
    progress,
    run_log,
    self_check,
    signals,
    state,
    training,
)
from runtime.errors import UserError
from runtime.signals import STOP

FLAGS = flags.FLAGS

# What to run, and where.
flags.DEFINE_enum('dataset', 'imagenet1000', sorted(settings_lib.DATASETS),
                  'Data set. Unset flags default to its settings.')
run_log.define_path('data_dir', 'Folder with train.txt, val.txt (the test list) and the images '
                    'they list. Required for --dataset=folder. (default: where prepare.py of '
                    'the data set writes them)')
run_log.define_path('model_dir', 'Folder of this experiment. Each experiment needs one of its own. '
                    '(default: logs/runs/<dataset>)')
flags.DEFINE_bool('dry_run', False, 'Print the images and updates of each step and any warnings, '
                  'then exit.')
flags.DEFINE_bool('eval_only', False, 'Evaluate the checkpoints in --model_dir, which may come '
                  'from the authors\' code, then exit.')
for module in (settings_lib, checks, export, machine_lib, self_check, checkpoints, experiment,
               state, run_log, progress, results_lib):
    flags.adopt_module_key_flags(module)  # --help lists them too
for name in FLAGS:  # --help shows defaults without absl's quotes, as the texts of settings do
    FLAGS[name].default_as_str = (FLAGS[name].default_as_str or '').strip("'") or None


# -- one step ----------------------------------------------------------------------------------


def run_step(run, step, exemplars, teacher_bias):
    """Train and evaluate one step, then choose its exemplars. Finished stages are not repeated.

    Args:
        run: the plan.Run.
        step: t, counted from 0.
        exemplars: one array of indices into the train list per old class.
        teacher_bias: (beta, gamma) of the step before, or None.

    Returns:
        (results, exemplars of the seen classes, or [] if none are stored after this step).
    """
    settings = run.settings

    # The image sets.
    samples = run.step_samples(step, exemplars)
    run_log.log_counts(step, [len(part.indices) for part in samples])
    training_samples, validation_samples, test_samples = samples
    classifier_schedule, bias_schedule = run.schedules(step, samples)

    # The classifier stage (section 3 of the paper, with eqs. 1 to 3).
    checkpoint = train_classifier(run, step, training_samples, classifier_schedule, teacher_bias)
    with resnet_model.frozen_classifier(checkpoint, run.machine, settings, step) as classifier:
        # The bias-correction stage (section 5, with eqs. 4 and 5).
        bias = None
        if bias_schedule:
            bias = fit_bias(run, step, classifier, validation_samples, bias_schedule)

        # Evaluation. The same pass computes the features for herding.
        stores = FLAGS.store_last or step < settings.num_steps - 1
        needs_features = stores and exemplar.needs_features(settings, step)
        results, on_test, features = evaluation.evaluate_step(
            run, step, classifier, bias, samples, needs_features)
    results_lib.write_confusion(run.model_dir, step, settings, on_test)
    results_lib.write_predictions(run.model_dir, step, run.split, test_samples, on_test)
    if not stores:
        return results, []

    # Herding (or random exemplars), and the memory.
    chosen = exemplar.select(settings, step, training_samples.class_indices, features)
    return results, [training_samples.indices[rows] for rows in chosen]


def train_classifier(run, step, samples, schedule, teacher_bias):
    """Train the classifier of `step`, or resume its training; return the final checkpoint.

    Workers train, too, but do not write to model_dir, and get None after training.

    `samples`: the step's training Samples. `schedule`: the stage's Schedule. Other arguments are as
    for run_step.
    """
    settings, machine = run.settings, run.machine
    directory = checkpoints.classifier_dir(run.model_dir, step)
    find_checkpoint = checkpoints.recover_latest if machine.is_chief else checkpoints.find_latest

    # Resume from this stage's own checkpoint (run_updates does so if there is one). Otherwise start
    # from the classifier of step t-1, from --pretrained, or from random weights.
    latest = find_checkpoint(directory)
    done = checkpoints.num_updates(latest) if latest else 0
    if done >= schedule.num_updates:
        return latest
    if done:
        LOG.info('resuming step %d at update %d of %d', step + 1, done, schedule.num_updates)
    start = start_names = None
    if not latest and step > 0:
        start = checkpoints.previous_classifier(run.model_dir, step, find_checkpoint)
    elif not latest and run.pretrained:
        start, start_names = run.pretrained.prefix, run.pretrained.names
    if machine.is_chief:  # beta and gamma of an earlier attempt do not fit the new weights
        state.delete(checkpoints.bias_dir(run.model_dir, step))

    # What each update reads and reports.
    files = samples.files
    batches = pipeline.Batches(schedule, [settings.seed, step])

    def input_fn():
        return pipeline.training_dataset(files, samples.class_indices, batches, settings, done,
                                         machine.num_parallel_calls, machine.replicas)

    stage = progress.Progress(run, step, 'classifier', schedule, directory,
                              lambda update: files[batches.indices(update)])
    hook = progress.Hook(stage, resnet_model.progress_terms(settings, step), done,
                         alone=machine.task is None)

    # The loss and the optimizer are in resnet_model.classifier_fn, which documents `params`.
    params = {'settings': settings, 'step': step, 'schedule': schedule,
              'teacher_bias': teacher_bias, 'start': start, 'start_names': start_names,
              'data_format': machine.data_format, 'num_replicas': machine.replicas.total}
    with checks.around_stage(run, stage.files_in_flight):
        training.run_updates(machine, resnet_model.classifier_fn, directory, input_fn,
                             schedule.num_updates, settings.seed, [hook], params)
        if not machine.is_chief:
            cluster.wait_for_checkpoint(directory, stage.update or schedule.num_updates)
            return None
    return checkpoints.final_checkpoint(directory, schedule.num_updates)


def fit_bias(run, step, classifier, samples, schedule):
    """Run the bias-correction stage of `step`, or read its result; return (beta, gamma).

    `classifier`: the step's FrozenNetwork. `samples`: its validation Samples. Other arguments are
    as for train_classifier.
    """
    directory = checkpoints.bias_dir(run.model_dir, step)
    bias = bic_layer.load(directory)
    if bias is not None:
        return bias
    stage = progress.Progress(run, step, 'bias correction', schedule, directory)
    files = samples.files
    with checks.around_stage(run, lambda: checks.files_in_flight(
            files, classifier.position, schedule.batch_size, run.machine.num_parallel_calls)):
        return bic_layer.fit(classifier, samples, schedule, run.settings, step, directory,
                             run.machine, stage)


# -- the loop over steps -----------------------------------------------------------------------


def run_experiment(run):
    """Run the incremental steps, starting with the first unfinished one."""
    settings = run.settings
    records = state.finished_steps(run.model_dir, settings.num_steps)
    results_lib.write_results(run.model_dir, settings.num_steps, records)
    state.write_table(run.model_dir, 'classes.txt', *lists.class_table(run.split, run.data_dir))
    rows = [measures.without_trivial_top5(record['results']) for record in records]
    if records:
        LOG.info('resuming after step %d of %d', len(records), settings.num_steps)
    checkpoints.prune(run.model_dir, len(records), run.keeps_checkpoints)
    plan.make_plan(run)
    for step in range(len(records), settings.num_steps):
        exemplars, teacher_bias = memory_and_teacher_bias(run, step, records)
        # Of an old class's training images, only the exemplars are used, and therefore checked.
        run.split = run.split._replace(train=exemplars + run.split.train[len(exemplars):])
        checks.leave_out_bad_images(run, step + 1)
        results, chosen = run_step(run, step, run.split.train[:len(exemplars)], teacher_bias)
        # Log first, then save. A kill in between leaves the step in the log twice, not missing.
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
    run_log.log_end()


def memory_and_teacher_bias(run, step, records):
    """Return (exemplars, teacher_bias) for run_step, from the records of the steps before."""
    exemplars, teacher_bias = [], None
    if step:
        exemplars = lists.find_images(run.split, records[step - 1]['exemplars'])
    if step >= 2 and run.settings.bias_correction:  # the teacher of t = 1 has no pair
        teacher_bias = state.bias_of(records[step - 1])
    return exemplars, teacher_bias


def run_worker(run):
    """Train the unfinished classifier stages as a worker of a run on several machines."""
    plan.make_plan(run)
    for step in range(run.settings.num_steps):
        records = cluster.wait_for_step(run.model_dir, step)
        if len(records) == step:
            exemplars, teacher_bias = memory_and_teacher_bias(run, step, records)
            samples = run.step_samples(step, exemplars)
            schedule, _ = run.schedules(step, samples)
            train_classifier(run, step, samples[0], schedule, teacher_bias)


# -- what the command line asks for ------------------------------------------------------------


def read_run(model_dir, stored=None):
    """Return the Run that the flags describe. Writes nothing to model_dir.

    For glyphs100 without --data_dir it writes the embedded images.

    `stored`: settings and lists of the experiment in model_dir, which the flags must not
    contradict; or None.
    """
    task = cluster.take_task()
    if task is not None and FLAGS.skip_bad_images:  # machines might leave out different images
        raise UserError(f'--skip_bad_images is not available with {cluster.ENVIRONMENT}. Use one '
                        'machine, or start over with lists without bad images (see --check_data).')
    if stored:
        settings = settings_lib.stored_settings(FLAGS, stored)
    else:
        settings = settings_lib.settings_from_flags(FLAGS)
    exemplar.check_memory(settings)
    # Before ensure_data_dir, which opens a session if it writes the images of glyphs100.
    machine = machine_lib.Machine(task, settings.batch_size, narrow=settings.network == 'cifar')

    data_dir = folders.ensure_data_dir(settings.dataset, FLAGS.data_dir)
    train_list, test_list = lists.read_lists(data_dir, settings.num_classes)
    STOP.check()  # reading a million lines takes seconds
    digests = {lists.TRAIN_LIST: train_list.digest, lists.TEST_LIST: test_list.digest}
    if stored:
        experiment.check_lists(stored, digests, model_dir, data_dir)
    split = lists.make_split(train_list, test_list, settings.num_classes,
                             exemplar.validation_pool(settings), settings.order_seed,
                             settings.class_order)

    pretrained = FLAGS.pretrained and checkpoints.pretrained(
        FLAGS.pretrained, resnet_model.variable_shapes(settings))
    inside = os.path.realpath(model_dir) + os.sep
    if pretrained and FLAGS.overwrite and os.path.realpath(pretrained.prefix).startswith(inside):
        raise UserError(f'--pretrained={FLAGS.pretrained} is in --model_dir, which --overwrite '
                        'deletes. Use another --model_dir.')
    if machine.is_chief and FLAGS.log_file:  # the default log is in model_dir
        run_log.check_log(FLAGS.log_file, settings, digests)
    return plan.Run(settings, data_dir, model_dir, digests, machine, pretrained, split)


def look_for_images(run):
    """Look for a few images of each list; raise UserError if one does not exist.

    With --skip_bad_images, --check_data or --eval_only, one existing image per list is enough.
    """
    checks.look_for_images([run.split.train_list, run.split.test_list], all_must_exist=not (
        FLAGS.skip_bad_images or FLAGS.check_data or FLAGS.eval_only))


def log_run(run):
    """Log the devices, a note on --pretrained if there is one, and warnings about the images."""
    run.machine.log_devices()
    if run.pretrained and run.pretrained.note:
        LOG.info('%s', run.pretrained.note)
    checks.warn_of_images(run.split, run.settings)


def train_and_evaluate(model_dir):
    """Run the experiment, or this machine's part of it."""
    run = read_run(model_dir)
    if FLAGS.overwrite or not experiment.has_begun(model_dir):
        look_for_images(run)  # a resumed run found them earlier, and a finished one needs none
    if not run.machine.is_chief:
        cluster.wait_for_experiment(model_dir, run.settings, run.digests, FLAGS.overwrite)
        log_run(run)
        run_worker(run)
        return
    with experiment.hold_model_dir(
            model_dir, run.settings, run.digests, FLAGS.overwrite, FLAGS.keep_checkpoints,
            FLAGS.skip_bad_images) as run.keeps_checkpoints:
        run_log.open_log(FLAGS.log_file or os.path.join(model_dir, state.LOG_FILE))
        run_log.log_start(run.data_dir)
        run_log.log_settings(run.settings, run.digests)
        log_run(run)
        run_experiment(run)


def open_run(model_dir, stored=None):
    """Return the Run of a command that does not train; `stored` as for read_run."""
    run = read_run(model_dir, stored)
    look_for_images(run)
    log_run(run)
    return run


def dry_run(model_dir):
    """--dry_run: log the images and updates of each step."""
    plan.make_plan(open_run(model_dir), log_steps=True)


def check_data(model_dir):
    """--check_data: decode every listed image."""
    run = open_run(model_dir)
    checks.check_data(run.split, run.machine.num_parallel_calls)


def eval_only(model_dir):
    """--eval_only: evaluate the checkpoints in model_dir."""
    stored = experiment.read_experiment(model_dir)
    if FLAGS.predictions:
        experiment.check_writable(model_dir)
    evaluation.evaluate_checkpoints(open_run(model_dir, stored), has_records=stored is not None)


# What to do instead of training, by the flag that asks for it. At most one may be given.
MODES = {'dry_run': dry_run, 'check_data': check_data, 'eval_only': eval_only,
         'export_dir': export.write_export, 'self_check': self_check.check_machine}


def main(_):
    """Do what the flags ask for: the experiment in model_dir, or one of MODES."""
    STOP.install()
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    run_log.open_log(None)
    modes = [name for name in MODES if FLAGS[name].value]
    if len(modes) > 1:
        raise UserError(f'{" and ".join("--" + name for name in modes)} are mutually exclusive. '
                        'Use one of them.')
    model_dir = FLAGS.model_dir or os.path.join(ROOT, 'logs', 'runs', FLAGS.dataset)
    act = MODES[modes[0]] if modes else train_and_evaluate
    act(model_dir)


if __name__ == '__main__':
    signals.run(main, skip_cleanup=cluster.ENVIRONMENT in os.environ)
