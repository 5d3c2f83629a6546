"""Copy from a model_dir what a repository should keep of a run.

    python tests/tools/publish_run.py MODEL_DIR TARGET

TARGET gets what --eval_only needs: the network of the last finished step, without its momentum and
teacher, and its β and γ. If the run is not finished, TARGET also gets what a copy of it needs to
resume with the next step: the records of the steps, experiment.json and classes.txt.
"""

import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

import runtime.environment  # noqa: E402, F401, I001 (before TensorFlow)
import runtime.quiet_import  # noqa: E402, F401, I001

import tensorflow.compat.v1 as tf  # noqa: E402

import resnet_model  # noqa: E402
from runtime import checkpoints, experiment, settings, state  # noqa: E402


def copy_network(source, target):
    """Copy the network's variables alone; `source` and `target` are prefixes of checkpoints."""
    reader = tf.train.load_checkpoint(source)
    names = [name for name in reader.get_variable_to_shape_map()
             if name.startswith(resnet_model.NETWORK + '/') and not name.endswith('/Momentum')]
    with tf.Graph().as_default(), tf.Session() as session:
        for name in names:
            tf.get_variable(name, initializer=reader.get_tensor(name))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, target, write_meta_graph=False, write_state=False)


def publish(model_dir, target):
    """Replace `target` by what is to be kept of the run in `model_dir`."""
    num_finished = len(state.finished_steps(model_dir))
    if not num_finished:
        sys.exit(f'error: {model_dir}: no step is finished')
    state.delete(target)
    last = num_finished - 1
    folder = checkpoints.classifier_dir(target, last)
    os.makedirs(folder)
    source = checkpoints.find_latest(checkpoints.classifier_dir(model_dir, last))
    copy_network(source, os.path.join(folder, os.path.basename(source)))
    bias = checkpoints.find_latest(checkpoints.bias_dir(model_dir, last))
    if bias:
        os.makedirs(checkpoints.bias_dir(target, last))
        for suffix in ('.index', '.data-00000-of-00001'):
            shutil.copy(bias + suffix, checkpoints.bias_dir(target, last))
    stored = experiment.read_experiment(model_dir)['settings']
    if num_finished < settings.Settings.from_dict(stored).num_steps:
        for name in ['experiment.json', 'classes.txt'] + [
                f'{step}_step.json' for step in range(num_finished)]:
            shutil.copy(os.path.join(model_dir, name), target)


if __name__ == '__main__':
    publish(*sys.argv[1:])
