"""Files of a run: its directory, checkpoints, TensorBoard events, cached results, YAML."""
