"""Makes and reads checkpoints, and damages files."""
import os

import numpy as np
import tensorflow.compat.v1 as tf


def save_checkpoint(folder, update, value=1., keep=2):
    """Save a checkpoint of `update` with one kernel, filled with `value`; return its prefix."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable('resnet/kernel', initializer=np.full([50, 3], value, np.float32))
        tf.get_variable('global_step', initializer=np.int64(update))
        session.run(tf.global_variables_initializer())
        return tf.train.Saver(max_to_keep=keep).save(
            session, os.path.join(str(folder), 'model.ckpt'), update)


def read_checkpoint(path):
    """Return {variable name: value} of a checkpoint, or of the newest one in a folder."""
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def damage(path, how, place=None):
    """Cut a file at byte `place` ('cut'), empty it ('empty') or flip a bit there (others)."""
    with open(path, 'rb') as file:
        content = bytearray(file.read())
    place = len(content) // 2 if place is None else place
    if how == 'cut':
        content = content[:place]
    elif how == 'empty':
        content = b''
    else:
        content[place] ^= 1
    with open(path, 'wb') as file:
        file.write(content)


def checkpoint_file(prefix, suffix):
    """Return the name of a checkpoint's 'index' or 'data' file."""
    return prefix + {'index': '.index', 'data': '.data-00000-of-00001'}[suffix]
