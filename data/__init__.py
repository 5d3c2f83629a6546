"""Input: lists and splits, preprocessing, the tf.data pipeline, and one folder per data set."""
