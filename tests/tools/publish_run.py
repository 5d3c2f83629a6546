"""Copy from a model_dir what a repository should keep of a run.

    python tests/tools/publish_run.py MODEL_DIR TARGET

TARGET is replaced with classes.txt and what --eval_only needs: the network of the last finished
step, without its momentum and teacher, and its β and γ.
"""

import argparse
import os
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, 'tests', 'helpers')]

import runtime.environment  # noqa: E402, F401, I001 (before TensorFlow)
import runtime.quiet_import  # noqa: E402, F401, I001

from made_checkpoints import checkpoint_file, read_checkpoint, save_variables  # noqa: E402

import resnet_model  # noqa: E402
from runtime import checkpoints, state  # noqa: E402


def publish(model_dir, target):
    """Replace `target` by what is to be kept of the run in `model_dir`."""
    num_finished = len(state.finished_steps(model_dir))
    if not num_finished:
        sys.exit(f'error: {model_dir}: no step is finished')
    last = num_finished - 1
    classifier = checkpoints.find_latest(checkpoints.classifier_dir(model_dir, last))
    network = {name: value for name, value in read_checkpoint(classifier).items()
               if name.startswith(resnet_model.NETWORK + '/') and not name.endswith('/Momentum')}
    bias = checkpoints.find_latest(checkpoints.bias_dir(model_dir, last))
    state.delete(target)
    save_variables(checkpoints.classifier_dir(target, last), network,
                   checkpoints.num_updates(classifier), write_meta_graph=False, write_state=False)
    if bias:
        os.makedirs(checkpoints.bias_dir(target, last))
        for suffix in ('index', 'data'):
            shutil.copy(checkpoint_file(bias, suffix), checkpoints.bias_dir(target, last))
    shutil.copy(os.path.join(model_dir, 'classes.txt'), target)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('model_dir', metavar='MODEL_DIR')
    parser.add_argument('target', metavar='TARGET')
    publish(**vars(parser.parse_args()))
