"""Progressive shrinking: the largest network first, then one choice after another is opened from its top value down.

References:
    Cai, Gan, Wang, Zhang, Han. Once-for-All: Train One Network and Specialize it for Efficient Deployment. ICLR 2020,
    arXiv:1908.09791. Differs: the stages follow from the choices of any space; on OFA's own space they are those of the
    reference code, with its epochs as shares of training. What the reference code also does at a new stage (another
    learning rate, sorting channels by their norm, distillation from the frozen full network) is no matter of sampling.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int32, Int64

from samplers.sampler import MOST_PATHS, SAMPLERS, Paths, Sampler, SamplerState, Score, at_least
from search_spaces import Choice, UserError, did_you_mean

_OFA_STAGES = ("largest", "kernel", "depth", "depth", "expand", "expand")
_OFA_EPOCHS = (180.0, 125.0, 25.0, 125.0, 25.0, 125.0)


@SAMPLERS.register("progressive")
@dataclass(frozen=True)
class ProgressiveSampler(Sampler):
    """Draws uniformly from the opened values; every stage opens more of them.

    In the first stage every choice of `order` has its last value alone. Then they are opened in that order: a gradual
    choice by one more value a stage, the largest first; another all at once. Choices that are not in the order are open
    from the first step, and so are those whose values have no order. No path has the role "largest", as later stages
    need not draw the largest network.

    Args:
        order: Names of the choices in the order in which they are opened. Null: first those that neither gate others
            nor select a program, except the last of them; then those that gate others; then that last one; then those
            that select a program. On OFA's space this is kernel, depth, expand. A choice called `resolution` is left
            out, so that it is open from the first step.
        gradual: Names of the choices of the order that are opened value by value; null for those that gate others and
            the last.
        shares: Relative length of each stage; null for OFA's epochs if the stages are OFA's, else equal lengths.
        paths: Number of paths per step, for all stages or for each. Null, as in OFA: 1; then 2 from the first stage
            that opens a gate; then 4 after the last stage that does.
    """

    order: tuple[str, ...] | None = None
    gradual: tuple[str, ...] | None = None
    shares: tuple[float, ...] | None = None
    paths: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_names("order", self.order, list(self._choices))
        self._check_names("gradual", self.gradual, list(self._order))
        for name in self._order:
            if not self._choices[name].ordered:
                raise UserError(
                    f"sampler.order: the values of {name!r} have no order, so none of them is the last. Leave it out: "
                    "then it is open from the first step."
                )
        stages = len(self.stages)
        if self.planned.steps < stages:
            raise UserError(
                f"sampler: {stages} stages do not fit into {self.planned.steps} training steps. Train for {stages} or "
                f"more, or set sampler.gradual to []."
            )
        for setting in ("shares", "paths"):
            given = getattr(self, setting)
            if isinstance(given, tuple) and len(given) != stages:
                raise UserError(
                    f"sampler.{setting}: {len(given)} values for {stages} stages ({', '.join(self.stages)}). Give "
                    f"{stages}."
                )
        for paths in self.paths if isinstance(self.paths, tuple) else () if self.paths is None else (self.paths,):
            at_least("paths", paths, 1, MOST_PATHS)
        if self.shares is not None and (min(self.shares) < 0 or not 0 < sum(self.shares) < math.inf):
            raise UserError(
                f"sampler.shares: {list(self.shares)} has a negative value, or nothing that is positive. Give equal "
                f"shares, {[1] * stages}, or so."
            )

    def _check_names(self, setting: str, given: tuple[str, ...] | None, known: list[str]) -> None:
        for name in given or ():
            if name not in known:
                what = "no choice" if setting == "order" else "not in the order of choices"
                raise UserError(f"sampler.{setting}: {name!r} is {what}.{did_you_mean(name, known)}")
        if len(set(given or ())) != len(given or ()):
            once = list(dict.fromkeys(given or ()))
            raise UserError(f"sampler.{setting}: {list(given or ())} holds a choice twice. Give {once}.")

    # ---------------------------------------------------------------- stages

    @cached_property
    def _choices(self) -> dict[str, Choice]:
        return {choice.name: choice for choice in self.space.choices}

    @cached_property
    def _gates(self) -> set[str]:
        return {choice.gate for choice in self.space.choices if choice.gate is not None}

    @cached_property
    def _order(self) -> tuple[str, ...]:
        if self.order is not None:
            return self.order
        gates = [name for name in self._choices if name in self._gates]
        programs = [name for name, c in self._choices.items() if c.selects_program and name not in gates]
        free = [name for name, c in self._choices.items() if name not in (*gates, *programs) and c.ordered]
        order = (*free[:-1], *gates, *free[-1:], *programs)
        return tuple(name for name in order if name != "resolution" and self._choices[name].ordered)

    @cached_property
    def _openings(self) -> list[tuple[str, int]]:
        """Of each stage after the first, the choice that it opens further and how many values are open then."""
        gradual = {*self._gates, *self._order[-1:]} if self.gradual is None else self.gradual
        openings = []
        for name in self._order:
            values = len(self._choices[name].values)
            if values > 1:
                openings += [(name, n) for n in (range(2, values + 1) if name in gradual else [values])]
        return openings

    @property
    def stages(self) -> tuple[str, ...]:
        """Openings of the stages: "largest" for the first, then the name of a choice."""
        return ("largest", *(name for name, _ in self._openings))

    @cached_property
    def lowest(self) -> Int32[np.ndarray, "s g"]:
        """The least open value of each gene at each stage."""
        low = np.zeros(self.space.num_genes, np.int32)
        for name in self._order:
            low[self.space.columns[name]] = len(self._choices[name].values) - 1
        rows = [low]
        for name, values in self._openings:
            row = rows[-1].copy()
            row[self.space.columns[name]] = len(self._choices[name].values) - values
            rows.append(row)
        return np.stack(rows)

    @cached_property
    def starts(self) -> Int64[np.ndarray, " s"]:
        """The first step of each stage."""
        shares = self.shares
        if shares is None:
            shares = _OFA_EPOCHS if self.stages == _OFA_STAGES else (1.0,) * len(self.stages)
        before = np.concatenate([[0], np.cumsum(shares)[:-1]]) / sum(shares)
        return np.round(before * self.planned.steps).astype(np.int64)

    @cached_property
    def paths_of_stages(self) -> tuple[int, ...]:
        """Paths a step at each stage."""
        if self.paths is not None:
            return self.paths if isinstance(self.paths, tuple) else (self.paths,) * len(self.stages)
        of_gates = [s for s, name in enumerate(self.stages) if name in self._gates]
        first, last = (of_gates[0], of_gates[-1]) if of_gates else (len(self.stages), len(self.stages))
        return tuple(1 if s < first else 2 if s <= last else 4 for s in range(len(self.stages)))

    def stage(self, step: int) -> int:
        """Returns the stage that a step belongs to."""
        return int(np.searchsorted(self.starts, step, side="right")) - 1

    # ---------------------------------------------------------------- drawing

    @property
    def paths_per_step(self) -> int:
        return max(self.paths_of_stages)

    def sample(self, state: SamplerState, step: int, score: Score | None = None) -> Paths:
        stage = self.stage(step)
        paths, space = self.paths_of_stages[stage], self.space
        low, end = self.lowest[stage], space.cardinalities
        genes = self.rng(step).integers(low, end, size=(paths, space.num_genes), dtype=np.int32)
        return Paths(space.canonical(genes), ("random",) * paths, np.ones(paths, np.float32))
