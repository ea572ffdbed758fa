"""Prepared TFDS sets as data sets, read without TensorFlow."""
