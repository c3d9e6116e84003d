"""The process: signals, freed memory, compilation."""
