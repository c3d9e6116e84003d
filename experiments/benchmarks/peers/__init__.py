"""PyTorch supernets that slice their weights eagerly, to compare with: one file a family, and the comparison."""
