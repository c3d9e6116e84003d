"""Rules: what each operation of a traced program becomes, one file for each kind of operation."""
