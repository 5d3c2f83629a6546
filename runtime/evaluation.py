"""Evaluation of a step's classifier: in a run, or of the checkpoints that a run left behind."""

import numpy as np

import bic_layer
import resnet_model
from data import checks, pipeline
from logs import measures
from runtime import LOG, checkpoints, results, run_log, state
from runtime.errors import UserError

MAX_CHANGE = 0.005  # of an accuracy that is evaluated again. Runtimes differ in their rounding.


def evaluate_step(run, step, classifier, bias, samples, with_features):
    """Evaluate `step` in one pass over validation, test and, for herding, training images.

    Args:
        run: the Run.
        step: t, counted from 0.
        classifier: the step's FrozenNetwork.
        bias: (beta, gamma) of the step, or None.
        samples: its (training, validation, test) Samples.
        with_features: bool, whether to return the features of the training images.

    Returns:
        (results, on_test, features): the dict from results.compute_results; the test images'
        {name: array [images]} that it was given; float32 [training images, dimensions] or None.

    Raises:
        UserError: the cross-entropy of an image is not finite, or an image cannot be read.
    """
    training, validation, test = samples
    if step == 0:  # its validation images are only counted
        validation = validation._replace(indices=validation.indices[:0],
                                         class_indices=validation.class_indices[:0])
    parts = {'validation': validation, 'test': test}
    if with_features:
        parts['training'] = training
    files = np.concatenate([part.files for part in parts.values()])
    classes = np.concatenate([part.class_indices for part in parts.values()])
    num_parallel_calls = run.machine.num_parallel_calls

    def dataset():
        return pipeline.evaluation_dataset(files, classes, run.settings, num_parallel_calls)

    def compute(features, logits, labels):
        metrics = resnet_model.image_metrics(logits, labels, bias, run.settings.num_new(step))
        return dict(metrics, features=features) if with_features else metrics

    with checks.around_stage(run, lambda: checks.files_in_flight(
            files, classifier.position, pipeline.evaluation_batch_size(run.settings),
            num_parallel_calls)):
        outputs = classifier.forward(dataset, len(files), 'moving', compute)
    checks.check_finite(outputs['cross_entropy'], files, classifier.checkpoint)
    outputs['class'] = classes
    outputs_of, begin = {}, 0  # undo the concatenation
    for name, part in parts.items():
        end = begin + len(part.indices)
        outputs_of[name] = {key: values[begin:end] for key, values in outputs.items()}
        begin = end
    on_test = outputs_of['test']
    row = results.compute_results(step, run.settings, samples, bias, outputs_of['validation'],
                                  on_test)
    return row, on_test, outputs_of['training']['features'] if with_features else None


def evaluate_checkpoints(run, has_records):
    """Evaluate the steps whose checkpoints are in model_dir.

    `has_records`: whether model_dir has the records of the steps. A folder of the authors' code or
    of a published run has none. Raises UserError if no step can be evaluated.
    """
    num_steps = run.settings.num_steps
    records = state.finished_steps(run.model_dir) if has_records else None
    if has_records:  # they have the count of training images, so none is needed or decoded
        run.split = run.split._replace(train=[indices[:0] for indices in run.split.train])
    checks.leave_out_bad_images(run, len(records) if has_records else num_steps)
    planned = list(run.planned_samples())
    rows = []
    for step in range(num_steps):
        finished = not has_records or step < len(records)
        checkpoint = checkpoints.find_latest(checkpoints.classifier_dir(run.model_dir, step),
                                             verify=finished)
        if not (finished and checkpoint):
            LOG.info('step %d of %d: %s', step + 1, num_steps,
                     'not finished' if checkpoint else 'no checkpoint')
            continue
        counts = [len(part.indices) for part in planned[step]]
        if has_records:
            bias = state.bias_of(records[step])
            recorded = records[step]['results']
            counts[0] = recorded['training_samples']
        else:
            bias = _bias_of_checkpoint(run, step)
            updates = run.schedules(step, planned[step])[0].num_updates
            if checkpoints.num_updates(checkpoint) != updates:
                run_log.warn([f'{checkpoint}: with these flags, step {step + 1} ends at update '
                              f'{updates}. Check --num_increments and the other flags.'])
        run_log.log_counts(step, counts)
        with resnet_model.frozen_classifier(checkpoint, run.machine, run.settings,
                                            step) as classifier:
            row, on_test, _ = evaluate_step(run, step, classifier, bias, planned[step],
                                            with_features=False)
        results.write_predictions(run.model_dir, step, run.split, planned[step][-1], on_test)
        rows.append(measures.without_trivial_top5(dict(row, training_samples=counts[0])))
        results.log_step(num_steps, rows)
        if has_records and abs(row['top1'] - recorded['top1']) > MAX_CHANGE:
            run_log.warn([f'step {step + 1}: top-1 was {run_log.percent(recorded["top1"])} in the '
                          'run. Check that the images and the checkpoint are those of the run.'])
    if not rows:
        raise UserError(f'{run.model_dir}: no checkpoint of a finished step. A run keeps those of '
                        'earlier steps only with --keep_checkpoints.')
    results.log_table(rows)


def _bias_of_checkpoint(run, step):
    """Return (beta, gamma) of a step without a record, from its checkpoint; None: no correction."""
    if not step or not run.settings.bias_correction:
        return None
    bias = bic_layer.load(checkpoints.bias_dir(run.model_dir, step))
    if bias is None:
        run_log.warn([f'step {step + 1} is not corrected, because {step}_bias cannot be read.'])
    return bias
