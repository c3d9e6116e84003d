"""Training and searching with many workers, which Ray starts, watches and restarts."""
