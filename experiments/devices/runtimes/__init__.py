"""Runtimes, a file each, which registers itself in `experiments.devices.runtime.RUNTIMES`."""
