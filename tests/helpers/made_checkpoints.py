"""Makes and reads checkpoints, sets variables, and damages files."""
import os

import numpy as np
import tensorflow.compat.v1 as tf


def save_variables(folder, variables, update=None, keep=2, **options):
    """Save a checkpoint of {name: value}, with `options` of Saver.save; return its prefix."""
    os.makedirs(str(folder), exist_ok=True)
    with tf.Graph().as_default(), tf.Session() as session:
        for name, value in variables.items():
            tf.get_variable(name, initializer=value)
        session.run(tf.global_variables_initializer())
        return tf.train.Saver(max_to_keep=keep).save(
            session, os.path.join(str(folder), 'model.ckpt'), update, **options)


def save_checkpoint(folder, update, value=1., keep=2):
    """Save a checkpoint of `update` with one kernel, filled with `value`; return its prefix."""
    return save_variables(folder, {'resnet/kernel': np.full([50, 3], value, np.float32),
                                   'global_step': np.int64(update)}, update, keep)


def initialize(session, values):
    """Initialize all variables of the default graph, some of them with {name: value}."""
    session.run(tf.global_variables_initializer(), {
        variable.initializer.inputs[1]: values[variable.op.name]
        for variable in tf.global_variables() if variable.op.name in values})


def read_checkpoint(path):
    """Return {variable name: value} of a checkpoint, or of the newest one in a folder."""
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_same_variables(path, expected_path, rtol=0., atol=0.):
    """Assert that two checkpoints have the same variables, with values within the tolerances."""
    actual, expected = read_checkpoint(path), read_checkpoint(expected_path)
    assert sorted(actual) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol, atol, err_msg=name)


def damage(path, how, offset=None):
    """Cut a file at `offset` ('cut'), empty it ('empty') or flip a bit of that byte (others)."""
    with open(path, 'rb') as file:
        content = bytearray(file.read())
    offset = len(content) // 2 if offset is None else offset
    if how == 'cut':
        content = content[:offset]
    elif how == 'empty':
        content = b''
    else:
        content[offset] ^= 1
    with open(path, 'wb') as file:
        file.write(content)


def checkpoint_file(prefix, suffix):
    """Return the name of a checkpoint's 'index' or 'data' file."""
    return prefix + {'index': '.index', 'data': '.data-00000-of-00001'}[suffix]
