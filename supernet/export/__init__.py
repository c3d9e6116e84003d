"""Export: subnets cut out, written, loaded and used."""
