"""Template: what an experiment file of a family begins with, for `supernest init`."""

from typing import NamedTuple

SHARES = """\
  full: {macs: 100%}
  half: {macs: 50%}
  quarter: {macs: 25%}
  # phone: {params: 100k, macs: 40%}
"""
"""Budgets of families whose smallest network is small."""


class Template(NamedTuple):
    """Parts of an experiment file to start from, as YAML with comments.

    Attributes:
        space: Lines below `family` and `preset`.
        train: Lines of `train`, of the optimizer and what else the family needs.
        budgets: Lines of `budgets`, which the smallest network of the family must be able to meet.
    """

    space: str = ""
    train: str = """\
  optimizer: {type: adamw, learning_rate: 1.0e-3, weight_decay: 0.05, warmup_steps: 200, clip_norm: 1.0}
"""
    budgets: str = """\
  full: {macs: 100%}
  # half: {macs: 50%}
"""
