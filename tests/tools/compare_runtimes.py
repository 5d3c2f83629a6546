"""Compare what Python environments compute on the CPU from the same weights and images.

    python tests/tools/compare_runtimes.py .venv/bin/python .venv-tf2/bin/python ...

The first one is the reference. Each interpreter runs `compute_results` below on weights and images
drawn by NumPy. It computes features and logits on moving and on batch statistics, the losses of the
classifier stage at the third step (with a corrected teacher), all gradients, all variables after
one update, and beta and gamma after the bias-correction stage. The script prints the largest
difference in each, as a share of the largest value, and fails if one is above 1e-4.
"""
import argparse
import math
import os
import subprocess
import sys
import tempfile

TOLERANCE = 1e-4
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, 'tests', 'helpers')]


def compute_results():
    """Compute everything that is compared: {name: float array}."""
    import runtime.environment  # noqa: F401, I001 (before NumPy and TensorFlow)
    import runtime.quiet_import  # noqa: F401, I001
    import numpy as np
    import tensorflow.compat.v1 as tf

    import bic_layer
    import oracles
    import resnet_model
    from made_checkpoints import initialize
    from runtime import settings as settings_lib
    tf.logging.set_verbosity(tf.logging.ERROR)
    tf.disable_v2_behavior()
    results = {'TensorFlow': np.array(tf.__version__)}
    settings = settings_lib.DATASETS['imagenet100']
    step, batch = 2, 8
    seen = settings.num_seen(step)
    # With these images no input of a ReLU is closer to 0 than 1.8e-5. With others, rounding moves
    # some across 0: one of them changes a gradient by up to 1e-2, in one version of TensorFlow too
    # when the images or weights change by 1e-7.
    stream = np.random.RandomState(7)
    images = stream.uniform(-120, 130, (batch, 32, 32, 3)).astype(np.float32)
    labels = stream.randint(0, seen, batch).astype(np.int32)
    weights = oracles.random_weights('imagenet', 18, settings.num_classes, seed=1)
    weights.update(oracles.random_weights('imagenet', 18, settings.num_classes, seed=2,
                                          scope='store_resnet'))

    for name, batch_statistics in (('moving', False), ('batch', True)):
        with tf.Graph().as_default(), tf.Session() as session:
            outputs = resnet_model.network(tf.constant(images), settings, batch_statistics,
                                           resnet_model.NETWORK, 'channels_last')
            initialize(session, weights)
            for output, value in zip(('features', 'logits'), session.run(outputs)):
                results[f'{output} on {name} statistics'] = value

    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.create_global_step()
        spec = resnet_model.classifier_fn(
            tf.constant(images), tf.constant(labels), 'train',
            {'settings': settings, 'step': step, 'start': None, 'teacher_bias': (0.6, -0.4),
             'schedule': settings_lib.schedule(settings, 1000), 'data_format': 'channels_last'})
        initialize(session, weights)
        losses = {f'loss, {name}': tf.get_default_graph().get_tensor_by_name(
            f'watched/losses/{name}:0') for name in ('total', 'xe', 'kd', 'wd')}
        # In a call of its own, because during an update some weights may have changed already.
        results.update(session.run(losses))
        session.run(spec.train_op)
        for variable in tf.global_variables():
            name = variable.op.name
            if name.startswith(resnet_model.NETWORK + '/'):
                # The momentum after the first update is the gradient.
                kind = 'gradient, ' if name.endswith('/Momentum') else 'after an update, '
                results[kind + name] = session.run(variable)

    logits = results['logits on moving statistics'][:, :seen]
    schedule = settings_lib.schedule(settings, batch, bic_layer.EPOCHS_FACTOR)
    with tf.Graph().as_default(), tf.Session() as session:
        stored = session.run(bic_layer.compact_logits(
            tf.constant(logits), tf.constant(labels), settings.num_new(step)))
    with tempfile.TemporaryDirectory() as folder:
        results['beta, gamma'] = np.array(bic_layer.fit_logits(stored, schedule, 'moving', folder))
    return results


def compare(first, second):
    """Print the differences between two results of `compute_results`; return the largest."""
    print(f"TensorFlow {first['TensorFlow']} and {second['TensorFlow']}")
    if sorted(first) != sorted(second):
        sys.exit(f'they have different variables: {sorted(set(first) ^ set(second))}')
    worst = {}
    for name in first.keys() - {'TensorFlow'}:
        value = first[name]
        difference = float(abs(value - second[name]).max() / max(abs(value).max(), 1e-30))
        if math.isnan(difference):  # max and > would pass over it
            difference = math.inf
        kind = name if not name.startswith(('after', 'gradient')) else (
            f"{name.split(',')[0]}, worst of all variables")
        worst[kind] = max(worst.get(kind, (0, '')), (difference, name))
    for kind, (difference, name) in sorted(worst.items()):
        print(f"{kind:55} {difference:.1e}{'' if kind == name else '  ' + name}")
    return max(difference for difference, _ in worst.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('python', nargs='*', help='two interpreters or more')
    parser.add_argument('--write', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import numpy as np
    if arguments.write:
        np.savez(arguments.write, **compute_results())
        return
    if len(arguments.python) < 2:
        parser.error('name at least two interpreters, one per environment')
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for i, python in enumerate(arguments.python):
            path = os.path.join(folder, f'{i}.npz')
            subprocess.run([python, os.path.abspath(__file__), '--write', path], check=True,
                           env=dict(os.environ, CUDA_VISIBLE_DEVICES='', PYTHONWARNINGS='ignore'))
            results.append(dict(np.load(path)))
    if max(compare(results[0], other) for other in results[1:]) > TOLERANCE:
        sys.exit(f'they differ by more than {TOLERANCE:g}')
    print(f'all agree within {TOLERANCE:g}')


if __name__ == '__main__':
    main()
