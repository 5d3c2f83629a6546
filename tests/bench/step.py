"""Estimates the time of an ImageNet-100 step apart from its training updates."""

import contextlib
import os

import measure
import numpy as np

from runtime import settings as settings_lib

# A miniature through the whole driver: ResNet-18, images so few that only fixed costs remain.
CLASSES, PER_CLASS, TEST_PER_CLASS, SIDE, BATCH = 20, 12, 2, 64, 16
STEP = 1  # the second step: the first with distillation and correction
TRAINED = 14417  # images, published for this step; 400 for validation, 1,000 for test
VALIDATION, TEST = 400, 1000
GPU_SPEED = 1000  # images/s of the update on the GPU that is assumed; a TITAN X had about 400
GPU_CORES = 8  # they decode the images for it
DECODED_PER_CORE = 300  # evaluation images/s, less than the row `images` measures


def miniature(folder):
    """Write a data folder of JPEGs; return its path."""
    target = os.path.join(folder, 'miniature')
    for name, each in (('train', PER_CLASS), ('val', TEST_PER_CLASS)):
        files = measure.write_photos(os.path.join(target, name), CLASSES * each, SIDE, SIDE)
        with open(os.path.join(target, name + '.txt'), 'w') as file:
            for i, path in enumerate(files):
                file.write('{}/{} {}\n'.format(name, os.path.basename(os.fsdecode(path)),
                                               i // each))
    return target


def run_stages(folder):
    """Run an experiment on the miniature; return its stages.Stages."""
    import stages

    clocks = stages.install()
    model_dir = os.path.join(folder, 'miniature_run')
    flags = dict(dataset='folder', data_dir=miniature(folder), model_dir=model_dir,
                 log_file=model_dir + '.log', num_classes=CLASSES, num_increments=2,
                 memory_per_class=5, val_share=0.2, image_size=SIDE, batch_size=BATCH,
                 train_epochs=1)
    stages.main.FLAGS(['imagenet_main.py'] + ['--{}={}'.format(*pair) for pair in flags.items()])
    with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
        stages.main.main(None)
    return clocks


def _rows(options):
    import stages

    clocks = run_stages(options.folder)
    seconds = {stage: value for (step, stage), value in clocks.seconds.items() if step == STEP + 1}
    update = seconds.pop(stages.UPDATES) / (clocks.updates[STEP + 1] - 1)
    fixed = sum(seconds.values()) - update
    images_per_second = BATCH / update
    # At 224 pixels a network takes (224/64)^2 times as long here; a pass without gradient and
    # teacher is less than half an update.
    here = images_per_second * (SIDE / 224) ** 2
    settings = settings_lib.DATASETS['imagenet100']
    updates = TRAINED * settings.train_epochs
    stage2 = VALIDATION // np.gcd(VALIDATION, settings.batch_size) * settings.batch_size
    passes = TRAINED + TEST + VALIDATION + stage2
    decoded = passes - stage2 + VALIDATION
    here_share = fixed + passes / (2 * here)
    gpu_share = fixed + passes / (2 * GPU_SPEED) + decoded / (DECODED_PER_CORE * GPU_CORES)
    return [measure.Row(
        'all but updates in step 2 of ImageNet-100: {:.0f} s fixed, {:,} images forward'.format(
            fixed, passes),
        '-', '{:.2%} here; {:.1%} where updates run at {:,} images/s'.format(
            here_share / (here_share + updates / here),
            gpu_share / (gpu_share + updates / GPU_SPEED), GPU_SPEED), '-', '< 5 %')]


ROWS = {'step': _rows}
