"""Gradient search: relaxed architectures, their expected costs, and the steps of both."""
