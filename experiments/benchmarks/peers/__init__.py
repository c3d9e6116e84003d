"""PyTorch supernets that slice their weights eagerly, to be faster than: one file a family, and what compares."""
