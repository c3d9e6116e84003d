"""Experiment files: every section and key, read, validated and written as templates."""
