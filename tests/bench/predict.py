"""Predicts whole runs on GPUs from parts measured on CPUs and stated assumptions.

    python tests/bench/predict.py

Prints a Markdown table; README.md beside this file says where each number is from.
"""

import math
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from runtime import settings as settings_lib  # noqa: E402

# Published sample counts of the ten steps.
TRAINED = {
    'imagenet100': (12800, 14417, 14600, 14600, 14600, 14441, 14600, 14620, 14331, 14566),
    'imagenet1000': (126856, 144159, 144505, 144301, 143776, 145238, 143391, 144418, 143277,
                     143046)}
VALIDATION = {
    'imagenet100': (200, 400, 300, 240, 250, 240, 210, 160, 180, 200),
    'imagenet1000': (2000, 4000, 3000, 2400, 2500, 2400, 2100, 1600, 1800, 2000)}
TEST_A_STEP = {'imagenet100': 500, 'imagenet1000': 5000}

# Measured on the EPYC of README.md: images/s a core, seconds.
TRAINING_INPUT, EVALUATION_INPUT = 600, 530
FIXED_SECONDS = 13  # a step: graphs, restores, checkpoints, first updates
SECONDS_A_BIAS_UPDATE = 6e-4
HERDING_SECONDS = {'imagenet100': 0.1, 'imagenet1000': 1}
CHECKPOINT_SECONDS, CHECKPOINT_EVERY = 3, 600

# Assumed.
TITAN_X, MODERN = 400, 1000  # images/s of an update with distillation, one GPU
WITHOUT_TEACHER = 4 / 3  # forward, backward (twice that), the teacher's forward: 4 against 3
FORWARD_SPEED = 4  # times an update
EFFICIENCY = {1: 1., 2: 0.95, 4: 0.9, 8: 0.85}  # of N GPUs over one
CORES_KEPT_BUSY = 0.9  # of the cores that decode


def step_parts(dataset, step, gpus, speed, cores):
    """Seconds of a step: a dict of its parts, and which resource limits its updates."""
    settings = settings_lib.DATASETS[dataset]
    trained, validation = TRAINED[dataset][step], VALIDATION[dataset][step]
    compute = speed * gpus * EFFICIENCY[gpus] * (1 if step else WITHOUT_TEACHER)
    read = TRAINING_INPUT * cores * CORES_KEPT_BUSY
    parts = {'updates': trained * settings.train_epochs / min(compute, read)}
    batch, corrected = settings.batch_size, step > 0
    decoded = trained * (step < 9) + TEST_A_STEP[dataset] * (step + 1)
    forward = decoded
    if corrected:
        decoded += 2 * validation
        forward += validation + validation // math.gcd(validation, batch) * batch
        parts['beta and gamma'] = validation * 200 / batch * SECONDS_A_BIAS_UPDATE
    parts['passes without training'] = max(
        forward / (speed * FORWARD_SPEED), decoded / (EVALUATION_INPUT * cores * CORES_KEPT_BUSY))
    parts['herding'] = HERDING_SECONDS[dataset] if step < 9 else 0
    parts['fixed, checkpoints'] = FIXED_SECONDS + CHECKPOINT_SECONDS * (
        parts['updates'] // CHECKPOINT_EVERY)
    return parts, 'decoding' if read < compute else 'the GPU' if gpus == 1 else 'the GPUs'


def whole_run(dataset, gpus, speed, cores):
    """(hours, share of everything but updates, bottleneck) of all ten steps."""
    total = updates = 0
    limits = set()
    for step in range(10):
        parts, limit = step_parts(dataset, step, gpus, speed, cores)
        total += sum(parts.values())
        updates += parts['updates']
        limits.add(limit)
    return total / 3600, 1 - updates / total, ', '.join(sorted(limits))


def main():
    columns = ['run', 'GPUs', '8 cores', 'not updates', 'bottleneck', '32 cores', 'not updates',
               'bottleneck']
    print('| {} |\n|{}'.format(' | '.join(columns), ' --- |' * len(columns)))
    for dataset, name in (('imagenet100', 'ImageNet-100'), ('imagenet1000', 'ImageNet-1000')):
        for speed, gpu in ((TITAN_X, 'TITAN X'), (MODERN, 'modern')):
            for gpus in (1, 2, 4, 8):
                cells = [name, '{} x {}'.format(gpus, gpu)]
                for cores in (8, 32):
                    hours, rest, limit = whole_run(dataset, gpus, speed, cores)
                    cells += ['{:.1f} h'.format(hours), '{:.1%}'.format(rest), limit]
                print('| {} |'.format(' | '.join(cells)))


if __name__ == '__main__':
    main()
