"""What users give: paths, YAML files, and what is said of mistakes in them."""
