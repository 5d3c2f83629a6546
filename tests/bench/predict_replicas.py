"""Predicts how the time of an update splits on N GPUs: computation, gradient exchange, input.

    python tests/bench/predict_replicas.py

ResNet-18 with distillation at 224 pixels, a global batch of 256. Operations, parameters and
exchanged tensors are counted in this project's own graph; REPLICAS.md beside this file says what is
measured, what assumed.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(os.path.dirname(HERE))]

import runtime.environment  # noqa: E402, F401, I001 (before NumPy and TensorFlow)

import numpy as np  # noqa: E402
import predict  # noqa: E402
import tensorflow.compat.v1 as tf  # noqa: E402

import resnet_model  # noqa: E402
from runtime import settings as settings_lib  # noqa: E402

STEP = 1  # with distillation

# Assumed of a V100-class GPU and its surroundings.
FLOPS = 9e12  # sustained in float32, of 15.7e12 at most
SMALL_BATCH = {256: 1., 128: 1., 64: 0.95, 32: 0.85}  # of FLOPS, where a GPU has so few images
NVLINK, ETHERNET = 60e9, 1.1e9  # bytes/s of a ring within a machine, over 10 Gbit/s between two
LATENCY = {NVLINK: 30e-6, ETHERNET: 150e-6}  # seconds of one exchange, however little it carries
MERGED = 8  # exchanges that TensorFlow makes of all, at the least
CORES_A_GPU = 8  # that decode


def counted():
    """(operations an image, bytes exchanged, tensors exchanged) of one update's graph."""
    settings = settings_lib.DATASETS['imagenet100']
    with tf.Graph().as_default() as graph:
        size = settings.image_size
        resnet_model.classifier_fn(
            tf.placeholder(tf.float32, [1, size, size, 3]), tf.placeholder(tf.int32, [1]),
            'train', {
                'settings': settings, 'step': STEP, 'start': None, 'teacher_bias': None,
                'schedule': settings_lib.schedule(settings, 14417), 'data_format': 'channels_last'})
        exchanged = tf.trainable_variables(resnet_model.NETWORK + '/') + [
            variable for variable in tf.global_variables(resnet_model.NETWORK + '/')
            if '/moving_' in variable.name]
        operations = tf.profiler.profile(
            graph, cmd='scope', options=dict(
                tf.profiler.ProfileOptionBuilder.float_operation(), output='none')).total_float_ops
        number = sum(np.prod(variable.shape.as_list()) for variable in exchanged)
        return operations, 4 * int(number), len(exchanged)


def exchange_seconds(replicas, bandwidth, size, tensors):
    """(least, most): a ring sends each byte 2(N-1)/N times; all tensors merged, or none."""
    carried = 2 * (replicas - 1) / replicas * size / bandwidth
    hops = 2 * (replicas - 1) * LATENCY[bandwidth]
    return carried + MERGED * hops, carried + tensors * hops


def main():
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    operations, size, tensors = counted()
    print('counted: {:.2f}e9 operations an image and update, {:.1f} MB in {} tensors '
          'exchanged\n'.format(operations / 1e9, size / 1e6, tensors))
    columns = ['GPUs', 'images each', 'computation', 'exchange, NVLink', 'exchange, 10 Gbit/s',
               'input', 'images/s, one machine', 'images/s, a machine a GPU']
    print('| {} |\n|{}'.format(' | '.join(columns), ' --- |' * len(columns)))
    batch = settings_lib.DATASETS['imagenet100'].batch_size
    for replicas in (1, 2, 4, 8):
        share = batch // replicas
        compute = share * operations / (FLOPS * SMALL_BATCH[share])
        read = share / (predict.TRAINING_INPUT * predict.CORES_KEPT_BUSY * CORES_A_GPU)
        cells, speeds = [], []
        for bandwidth in (NVLINK, ETHERNET):
            least, most = exchange_seconds(replicas, bandwidth, size, tensors)
            cells.append('{:.1f} to {:.1f} ms'.format(1e3 * least, 1e3 * most)
                         if replicas > 1 else '-')
            # Input runs beside the rest; the exchange is not counted as hidden behind computation.
            speeds.append('{:.0f} to {:.0f}'.format(*(
                batch / max(compute + one, read) for one in (most, least))))
        print('| {} |'.format(' | '.join(
            [str(replicas), str(share), '{:.0f} ms'.format(1e3 * compute)] + cells
            + ['{:.0f} ms'.format(1e3 * read)] + speeds)))


if __name__ == '__main__':
    main()
