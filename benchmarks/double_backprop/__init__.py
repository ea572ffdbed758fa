"""Cost of training on input gradients: ``python -m benchmarks.double_backprop``."""
