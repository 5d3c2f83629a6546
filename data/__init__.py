"""Input: lists and splits, preprocessing, the tf.data pipeline, and one folder a data set."""
