"""Experiments from YAML to exported networks: configuration, data, stages, reports and the command line."""
