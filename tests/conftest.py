"""Shared by the tests of the method. TensorFlow is imported only where a test needs it."""
import pytest


@pytest.fixture
def session():
    """A TensorFlow 1 session on a fresh graph, which is the default graph."""
    import logs.quiet  # noqa: F401, I001 (before TensorFlow)
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    with tf.Graph().as_default(), tf.Session() as open_session:
        yield open_session
