"""Compares stage 1 on image files with a plain session loop over constant images.

Times are CPU time, so that other load on the machine matters little. With all cores busy, the CPU
time of decoding adds to the time of the updates.
"""

import contextlib
import os
import sys
import time
import types

import measure
import numpy as np
import tensorflow.compat.v1 as tf

import resnet_model
from data import samples as samples_lib
from runtime import num_cores
from runtime import settings as settings_lib

STEP = 1  # with distillation
# Side of the network's input, size of the files (height, width), batch, updates a turn.
CASES = {'update-64': (64, (64, 64), 64, 6),
         'update-224': (224, (measure.PHOTO_HEIGHT, measure.PHOTO_WIDTH), 16, 4)}
TURNS = 4


def plain_updates(settings, schedule, start, data_format, num_updates):
    """Return the CPU seconds per update of classifier_fn's graph on constant images."""
    stream = np.random.RandomState(0)
    size = settings.image_size
    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.constant(stream.standard_normal(
            [settings.batch_size, size, size, 3]).astype(np.float32) * 60)
        labels = tf.constant(np.arange(settings.batch_size, dtype=np.int32) % 20)
        spec = resnet_model.classifier_fn(images, labels, 'train', {
            'settings': settings, 'step': STEP, 'schedule': schedule, 'start': start,
            'teacher_bias': None, 'data_format': data_format})
        session.run(tf.global_variables_initializer())
        times = []
        for _ in range(num_updates + 2):
            session.run([spec.loss, spec.train_op])
            times.append(time.process_time())
    return (times[-1] - times[1]) / num_updates  # the first ones hold TensorFlow's one-off work


def driver_updates(main, run, samples, schedule, num_updates):
    """Return the CPU seconds per update of stage 1 at step 2, reading the files of `samples`."""
    times = []
    hook = main.progress.Hook

    class Timed(hook):
        def after_run(self, run_context, run_values):
            super().after_run(run_context, run_values)
            times.append(time.process_time())
            if len(times) == num_updates + 2:
                run_context.request_stop()

    main.progress.Hook = Timed
    try:
        # Stopped amid the stage, so that images are read ahead to the end; the driver objects.
        with contextlib.suppress(main.UserError):
            main.train_classifier(run, STEP, samples, schedule, None)
    finally:
        main.progress.Hook = hook
    return (times[-1] - times[1]) / num_updates


def first_checkpoint(settings, directory):
    """Make a checkpoint of the first step's classifier with fresh weights; return it."""
    os.makedirs(directory)
    with tf.Graph().as_default(), tf.Session() as session:
        size = settings.image_size
        resnet_model.network(tf.zeros([1, size, size, 3]), settings, False, resnet_model.NETWORK,
                             'channels_last')
        step = tf.train.get_or_create_global_step()
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, os.path.join(directory, 'model.ckpt'), step)


def load_driver():
    """Return imagenet_main with its flags at their defaults."""
    import imagenet_main as main

    if not main.FLAGS.is_parsed():
        main.FLAGS(sys.argv[:1])
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    return main


def _row(options, name, target):
    main = load_driver()
    size, (height, width), batch, count = CASES[name]
    settings = settings_lib.DATASETS['imagenet100']._replace(
        image_size=size, batch_size=batch)
    if size == 224:
        files = measure.photos(options, batch * (count + 2))
    else:
        files = measure.write_photos(os.path.join(options.folder, name), batch * (count + 2),
                                     height, width)
    samples = samples_lib.Samples(
        np.arange(len(files)), np.arange(len(files)) % 20,
        main.lists.ImageList(os.path.join(options.folder, 'train.txt'), files, None, None))
    machine = main.machine.Machine(None, batch)
    schedule = settings_lib.schedule(settings, len(files))
    loops, driver = [], []
    for turn in range(TURNS):
        model_dir = os.path.join(options.folder, name + f'_run{turn}')
        start = first_checkpoint(settings, main.checkpoints.classifier_dir(model_dir, STEP - 1))
        run = types.SimpleNamespace(
            settings=settings, model_dir=model_dir, data_dir=options.folder, machine=machine,
            run_time=main.progress.RunTime([1] * settings.num_steps))
        driver.append(driver_updates(main, run, samples, schedule, count))
        loops.append(plain_updates(settings, schedule, start, machine.data_format, count))
    # As if both cores did nothing else.
    loop, ours = (min(seconds) / num_cores() for seconds in (loops, driver))
    return measure.Row(
        f'training update, ResNet-18 with distillation, {size}x{size}, batch {batch}, files of '
        f'{width}x{height}',
        f'{batch / loop:.1f} images/s', f'{batch / ours:.1f} images/s',
        loop / ours, target)


ROWS = {name: (lambda options, name=name: [_row(options, name, '>= 0.95')]) for name in CASES}
