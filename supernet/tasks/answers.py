"""Answers: what an exported network says of an example, for people and for JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Figures = Mapping[str, Any]
"""Figures of a network on a split, such as `accuracy`: name to number, or to numbers by class or by target."""


@dataclass(frozen=True)
class LikelyClass:
    """A class that an example may have.

    Attributes:
        label: Name of the class.
        probability: Probability that the network gives it, 0 to 1.
    """

    label: str
    probability: float


@dataclass(frozen=True)
class ExampleAnswer:
    """Answer of a network to one example: classes, or numbers.

    Attributes:
        top: Likeliest classes, the likeliest first; None where the network predicts numbers.
        values: Each number by its name, in the units of the labels; None where it predicts classes.
    """

    top: tuple[LikelyClass, ...] | None = None
    values: Mapping[str, float] | None = None

    def as_json(self) -> Mapping[str, Any]:
        """Returns `top`, a list of `label` and `probability`, or `values` by name."""
        if self.top is not None:
            return {"top": [asdict(one) for one in self.top]}
        return {"values": dict(self.values or {})}
