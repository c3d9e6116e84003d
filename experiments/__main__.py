"""`python -m experiments` is the command `supernest`."""

import sys

from experiments.cli import program

sys.exit(program())
