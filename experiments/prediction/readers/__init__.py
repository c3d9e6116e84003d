"""Readers of files, one file a task."""
