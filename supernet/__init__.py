"""Weights of all networks of a space, their passes, training and export. JAX and Flax."""
