"""The train stage: in one process, and on Ray workers."""
