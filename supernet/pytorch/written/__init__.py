"""Files that are copied into exports as `network.py`."""
