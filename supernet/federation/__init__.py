"""Weights of a server's network in networks of smaller shape, and back: compression, dilation, merging."""
