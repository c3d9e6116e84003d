"""Choice: one elastic dimension of a search space."""

from dataclasses import dataclass

from search_spaces.errors import UserError

Value = int | float | str


@dataclass(frozen=True)
class Choice:
    """One elastic dimension: what it is called, which values it takes, how often it repeats.

    Args:
        name: Name of the choice in YAML, JSON and reports.
        values: The published values, smallest network first where they have an order; gene `i` stands for `values[i]`.
        repeats: Number of independent genes. A gated choice leaves this at 1: it has one gene for every position that
            its gate can switch on.
        gate: Name of the integer choice (a depth) that says how many of the positions are active. Genes of
            positions beyond the sampled depth mean nothing.
        selects_program: The value changes the shape of the residual stream (embedding width, resolution), so each
            value has a compiled program of its own.
        ordered: A later value makes a larger network. False for a choice between kinds (operations): which of its
            values costs least is a matter of the cost model.

    Raises:
        UserError: No values, a value twice, or numbers of an ordered choice that do not ascend.
    """

    name: str
    values: tuple[Value, ...]
    repeats: int = 1
    gate: str | None = None
    selects_program: bool = False
    ordered: bool = True

    def __post_init__(self) -> None:
        if not self.values:
            raise UserError(f"space.{self.name}: no values. Give at least one.")
        if len(set(self.values)) != len(self.values):
            raise UserError(f"space.{self.name}: {list(self.values)} holds a value twice. Give each value once.")
        numbers = not any(isinstance(value, str) for value in self.values)
        if self.ordered and numbers and list(self.values) != sorted(self.values):  # type: ignore[type-var]
            raise UserError(
                f"space.{self.name}: {list(self.values)} does not ascend. Give the smallest value first: "
                f"{sorted(self.values)}."  # type: ignore[type-var]
            )
