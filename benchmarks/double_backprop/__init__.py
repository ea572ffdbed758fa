"""What training on input gradients costs: ``python -m benchmarks.double_backprop``."""
