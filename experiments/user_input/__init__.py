"""User input: paths, YAML files, and messages about mistakes in them."""
