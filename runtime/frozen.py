"""Passes of a trained network without training, in one graph that is restored once."""

import numpy as np
import tensorflow.compat.v1 as tf

from runtime import checkpoints, progress


class Frozen:
    """A trained network. Use it in a `with` statement, which closes its session.

    Args:
        checkpoint: prefix of the checkpoint with its variables.
        session_config: tf.ConfigProto or None.
        predictions: function from a batch's tensors and the keyword arguments of `forward` to a
            dict of tensors [batch, ...]. All calls must use the same variables.
    """

    def __init__(self, checkpoint, session_config, predictions):
        self.checkpoint = checkpoint
        self.position = None  # images done in the current pass; None between passes
        self._predictions = predictions
        self._graph, self._restored = tf.Graph(), False
        self._session = tf.Session(graph=self._graph, config=session_config)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()

    def forward(self, dataset, num_images, **params):
        """Run one pass over a data set and return the predictions as arrays.

        Args:
            dataset: function that makes the tf.data.Dataset, in batches.
            num_images: number of images in it.
            params: further keyword arguments of `predictions`.

        Returns:
            A dict of arrays [num_images, ...].

        Raises:
            Stopped: between two batches, if a stop was requested.
            UserError: the checkpoint belongs to another network.
        """
        with self._graph.as_default():
            fetches = self._start(dataset, params)
        arrays, done = {}, 0
        watch = progress.Watch('images seen', num_images, seconds=progress.LINE_SECONDS)
        while done < num_images:
            self.position = done
            watch(done)
            outputs = self._session.run(fetches)
            for name, value in outputs.items():
                # Filled in place: with 10,000 classes a second copy would not fit in memory.
                if not done:
                    arrays[name] = np.empty((num_images,) + value.shape[1:], value.dtype)
                arrays[name][done:done + len(value)] = value
            done += len(value)
        self.position = None
        return arrays

    def _start(self, dataset, params):
        """Add a pass to the graph; return the tensors of its next batch."""
        with tf.device('/cpu:0'):
            iterator = tf.data.make_initializable_iterator(dataset())
            batch = iterator.get_next()
        fetches = self._predictions(batch, **params)
        if not self._restored:
            checkpoints.check_shapes(self.checkpoint, {
                variable.op.name: variable.shape.as_list() for variable in tf.global_variables()},
                self.checkpoint)
            tf.train.Saver().restore(self._session, self.checkpoint)
            self._restored = True
        self._session.run(iterator.initializer)
        return fetches
