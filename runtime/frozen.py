"""A trained network: one graph for its passes without training, restored once."""

import numpy as np
import tensorflow.compat.v1 as tf

from runtime import checkpoints, progress


class Frozen:
    """A network that is trained no more. To be used in a `with` statement, which frees its session.

    Args:
        checkpoint: prefix of the checkpoint with its variables.
        session_config: tf.ConfigProto or None.
        predictions: function from a batch's tensors, and what else `forward` is given, to a dict of
            tensors [batch, ...]. All of its calls are on the same variables.
    """

    def __init__(self, checkpoint, session_config, predictions):
        self.checkpoint = checkpoint
        self.position = None  # images done in the pass that is running; None between passes
        self._predictions = predictions
        self._graph, self._restored = tf.Graph(), False
        self._session = tf.Session(graph=self._graph, config=session_config)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()

    def forward(self, dataset, num_images, **params):
        """One pass over a data set: the predictions as arrays.

        Args:
            dataset: function that makes the tf.data.Dataset, in batches.
            num_images: images in it.
            params: what else the function `predictions` takes.

        Returns:
            A dict of arrays [num_images, ...].

        Raises:
            Stopped: between two batches, where a stop was asked for.
            UserError: the checkpoint is of another network.
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
                if not done:  # filled in place: with 10,000 classes a second copy would not fit
                    arrays[name] = np.empty((num_images,) + value.shape[1:], value.dtype)
                arrays[name][done:done + len(value)] = value
            done += len(value)
        self.position = None
        return arrays

    def _start(self, dataset, params):
        """Adds a pass to the graph; returns the tensors of its next batch."""
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
