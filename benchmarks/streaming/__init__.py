"""Throughput of the streaming path against PyTorch's DataLoader, on the same JPEG files."""
