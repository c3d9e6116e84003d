"""Compiled fitnesses, which register themselves."""
