"""Experiments of several spaces: a supernet for each, one choice for each budget."""
