"""Weights as trees: where each lies, and cuts of the part that a size uses."""
