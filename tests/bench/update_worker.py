"""Runs and times updates of the classifier stage on one constant batch, on request.

    python tests/bench/update_worker.py CASE tensorflow|torch

Each line on stdin holds a number of updates. The answer is a line "wall CPU" in seconds per update.
`against_torch.py` keeps one such process per runtime and asks them in turn.
"""

import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import numpy as np  # noqa: E402

STEP = 1  # with distillation, unless the case has none


def case(name):
    """Return (Settings, images float32 [batch, side, side, 3], labels int64 [batch])."""
    from runtime import settings as settings_lib
    data_set, side, batch, distillation = {
        'resnet18-64': ('imagenet100', 64, 64, True),
        'resnet18-224': ('imagenet100', 224, 16, True),
        'resnet32-32': ('cifar100', 32, 128, True),
        'resnet32-32-alone': ('cifar100', 32, 128, False)}[name]
    settings = settings_lib.DATASETS[data_set]._replace(
        image_size=side, batch_size=batch, distillation=distillation)
    deviation = 60 if settings.preprocessing == 'vgg' else 1
    images = np.random.RandomState(0).standard_normal([batch, side, side, 3]) * deviation
    return settings, images.astype(np.float32), np.arange(batch) % settings.num_seen(STEP)


def tensorflow_updates(settings, images, labels):
    """Return a function that runs one update of classifier_fn's graph."""
    import tensorflow.compat.v1 as tf

    import resnet_model
    from runtime import settings as settings_lib
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    session = tf.Session()
    spec = resnet_model.classifier_fn(
        tf.Variable(images, trainable=False), tf.constant(labels, tf.int32), 'train',
        {'settings': settings, 'step': STEP, 'start': None, 'teacher_bias': None,
         'schedule': settings_lib.schedule(settings, 10000), 'data_format': 'channels_last'})
    session.run(tf.global_variables_initializer())
    return lambda: session.run([spec.loss, spec.train_op])


def torch_updates(settings, images, labels):
    """Return a function that runs the same update in PyTorch."""
    import torch_network
    return torch_network.Updates(settings, STEP, images, labels)


if __name__ == '__main__':
    update = {'tensorflow': tensorflow_updates, 'torch': torch_updates}[sys.argv[2]](
        *case(sys.argv[1]))
    for line in sys.stdin:
        count = int(line)
        clocks = time.perf_counter(), time.process_time()
        for _ in range(count):
            update()
        print((time.perf_counter() - clocks[0]) / count, (time.process_time() - clocks[1]) / count,
              flush=True)
