"""Stages in a row: check, run, and the report of a run."""
