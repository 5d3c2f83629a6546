"""Forward passes of a trained network, all in one session that restores its variables once."""

import numpy as np
import tensorflow.compat.v1 as tf

from runtime import checkpoints, progress


class FrozenNetwork:
    """A trained network. Use it in a `with` statement, which closes its session.

    Args:
        checkpoint: prefix of the checkpoint with its variables.
        session_config: tf.ConfigProto or None.
        network: function from float32 images [batch, size, size, 3] and the statistics of batch
            norm ('batch' or 'moving') to (features, logits), float32 [batch, ...]. All calls must
            use the same variables.
    """

    def __init__(self, checkpoint, session_config, network):
        self.checkpoint = checkpoint
        self.position = None  # images done in the current pass; None between passes
        self._network = network
        self._graph, self._restored = tf.Graph(), False
        self._session = tf.Session(graph=self._graph, config=session_config)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()

    def forward(self, dataset, num_images, batch_norm, compute):
        """Run one pass over a data set.

        Args:
            dataset: function that makes a tf.data.Dataset of {'image', 'class'}, in batches.
            num_images: number of images in it.
            batch_norm: 'batch' or 'moving' statistics.
            compute: function from the tensors (features, logits, classes) of a batch to a dict of
                tensors [batch, ...].

        Returns:
            A dict of arrays [num_images, ...]: the outputs of `compute` for all images.

        Raises:
            Stopped: between two batches, if a stop was requested.
            UserError: the checkpoint belongs to another network.
        """
        with self._graph.as_default():
            fetches = self._start(dataset, batch_norm, compute)
        arrays, done = {}, 0
        watch = progress.Watch('images seen', num_images, seconds=progress.LINE_SECONDS)
        while done < num_images:
            self.position = done
            watch(done)
            outputs = self._session.run(fetches)
            size = len(next(iter(outputs.values())))
            for name, value in outputs.items():
                if not done:  # filled in place: with 10,000 classes, a copy would not fit in memory
                    arrays[name] = np.empty((num_images,) + value.shape[1:], value.dtype)
                arrays[name][done:done + size] = value
            done += size
        self.position = None
        return arrays

    def _start(self, dataset, batch_norm, compute):
        """Add a pass to the graph; return the tensors of its next batch."""
        with tf.device('/cpu:0'):
            iterator = tf.data.make_initializable_iterator(dataset())
            batch = iterator.get_next()
        features, logits = self._network(batch['image'], batch_norm)
        fetches = compute(features, logits, batch['class'])
        if not self._restored:
            checkpoints.check_shapes(self.checkpoint, {
                variable.op.name: variable.shape.as_list() for variable in tf.global_variables()},
                self.checkpoint)
            tf.train.Saver().restore(self._session, self.checkpoint)
            self._restored = True
        self._session.run(iterator.initializer)
        return fetches
