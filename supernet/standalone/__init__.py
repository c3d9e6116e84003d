"""Plain Flax networks without elastic code: what a subnet is after it is cut out."""
