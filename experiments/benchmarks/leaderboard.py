"""The tables of the samplers' leaderboard: mean and spread over seeds, and the difference from `uniform`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from search_spaces.sealed_json import JsonObject

REFERENCE = "uniform"
# Metric to heading, factor, and digits after the point.
_COLUMNS: dict[str, tuple[str, float, int]] = {
    "kendall_tau": ("tau-b", 1, 3),
    "spearman": ("Spearman", 1, 3),
    "tau_top_50": ("tau-b best 50 %", 1, 2),
    "tau_top_10": ("tau-b best 10 %", 1, 2),
    "regret": ("regret, points", 100, 1),
    "test_25%": ("test % at 25 % MACs", 100, 1),
    "test_50%": ("at 50 %", 100, 1),
    "test_75%": ("at 75 %", 100, 1),
    "test_100%": ("at 100 %", 100, 1),
    "gradient_variance_per_pass": ("gradient variance a pass", 1, 2),
    "path_cosine": ("path cosine", 1, 3),
    "step_cosine": ("step cosine", 1, 3),
    "ms_per_step": ("ms a step", 1, 1),
    "ms_per_pass": ("ms a pass", 1, 1),
}
_AGAINST = {"kendall_tau": "tau-b", "test_25%": "test % at 25 % MACs", "test_100%": "test % at 100 %"}


def leaderboard(
    rows: Mapping[str, Sequence[Mapping[str, float]]], trained: Mapping[str, Mapping[str, float]]
) -> JsonObject:
    """Summarises each sampler, the best tau-b first.

    Args:
        rows: For each sampler, its metrics for each seed.
        trained: For each sampler, the description of its training.

    Returns:
        For each sampler, `trained` and for each metric: `mean` and `std` (of single seeds, n - 1) over seeds, their
        `values`, the `difference` of the mean from that of `uniform`, and the difference over the `spread`, the root
        mean square of the two standard deviations (None for what is not defined).
    """
    board = {
        name: {metric: Metric.of(found, metric) for metric in dict.fromkeys(metric for row in found for metric in row)}
        for name, found in rows.items()
    }
    reference = board.get(REFERENCE, {})
    for name in board.keys() - {REFERENCE}:
        for metric in board[name].keys() & reference.keys():
            board[name][metric] = board[name][metric].against(reference[metric])
    order = sorted(board, key=lambda name: -_number(board[name]["kendall_tau"].mean, -math.inf))
    return {name: {**trained[name], **{key: of.as_json() for key, of in board[name].items()}} for name in order}


@dataclass(frozen=True)
class Metric:
    """Metric of a sampler over seeds.

    Attributes:
        mean: Mean of the known values; None if there are none.
        std: Their sample standard deviation; None for less than two.
        values: Value of each seed, None where it is not known.
        difference: Difference of the mean from that of the reference, if both are known.
        over_spread: The difference over the root mean square of the two standard deviations, if both are known.
        compared: Whether the metric was compared with the reference.
    """

    mean: float | None
    std: float | None
    values: list[float | None]
    difference: float | None = None
    over_spread: float | None = None
    compared: bool = False

    @classmethod
    def of(cls, found: Sequence[Mapping[str, float]], metric: str) -> "Metric":
        """Returns a metric from the figures of each seed."""
        values = [float(row.get(metric, math.nan)) for row in found]
        known = [value for value in values if not math.isnan(value)]
        return cls(
            float(np.mean(known)) if known else None,
            float(np.std(known, ddof=1)) if len(known) > 1 else None,
            [None if math.isnan(value) else value for value in values],
        )

    def against(self, other: "Metric") -> "Metric":
        """Returns the metric with its difference from another sampler's."""
        if self.mean is None or other.mean is None:
            return replace(self, compared=True)
        difference = self.mean - other.mean
        if self.std is None or other.std is None:
            return replace(self, difference=difference, compared=True)
        spread = math.sqrt((self.std**2 + other.std**2) / 2)
        return replace(self, difference=difference, over_spread=difference / spread if spread else None, compared=True)

    def as_json(self) -> JsonObject:
        """Returns the metric as JSON; differences are left out for the reference itself."""
        own = {"mean": self.mean, "std": self.std, "values": self.values}
        return {**own, "difference": self.difference, "over_spread": self.over_spread} if self.compared else own


def text(figures: Mapping[str, Any]) -> str:
    """Formats the leaderboard as text."""
    parts = [_setting(figures)]
    for rows in (_table(figures), _differences(figures)):
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        parts.append("\n".join(line.rstrip() for line in lines))
    parts += [f"{name}: not measured: {reason}" for name, reason in figures["refused"].items()]
    return "\n\n".join(parts)


def markdown(figures: Mapping[str, Any]) -> str:
    """Formats the leaderboard as Markdown tables."""
    parts = [_setting(figures)]
    for heads, *rows in (_table(figures), _differences(figures)):
        lines = [heads, ["---"] * len(heads), *rows]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts += [f"`{name}` was not measured: {reason}" for name, reason in figures["refused"].items()]
    return "\n\n".join(parts)


def _setting(figures: Mapping[str, Any]) -> str:
    low, high = figures["panel_accuracy"]
    ceiling = ""
    if "ceiling" in figures:
        ceiling = f"; a second training of the panel agrees with tau-b {figures['ceiling']:.3f}"
    return (
        f"{figures['passes']:,} forward-backward passes a supernet, {figures['seeds']} seeds; panel of "
        f"{figures['panel']} networks, {figures['panel_steps']:,} steps each, {low:.1%} to {high:.1%} accurate"
        f"{ceiling}."
    )


def _table(figures: Mapping[str, Any]) -> list[list[str]]:
    shown = [m for m in _COLUMNS if any(m in metrics for metrics in figures["samplers"].values())]
    rows = [["sampler", "steps x paths", *(_COLUMNS[metric][0] for metric in shown)]]
    for name, metrics in figures["samplers"].items():
        cells = (_cell(metrics.get(metric), *_COLUMNS[metric][1:]) for metric in shown)
        rows.append([name, f"{metrics['steps']:,} x {metrics['paths']:.3g}", *cells])
    return rows


def _differences(figures: Mapping[str, Any]) -> list[list[str]]:
    """Returns the difference from `uniform`, and that difference in spreads."""
    rows = [["less uniform (in spreads)", *(_AGAINST.values())]]
    for name, metrics in figures["samplers"].items():
        if name != REFERENCE:
            rows.append([name, *_signed(metrics, _AGAINST)])
    return rows


def _signed(metrics: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    cells = []
    for name in names:
        found, (_, factor, digits) = metrics.get(name, {}), _COLUMNS[name]
        if found.get("difference") is None:
            cells.append("-")
            continue
        cell = f"{factor * found['difference']:+.{digits}f}"
        cells.append(cell if found["over_spread"] is None else f"{cell} ({found['over_spread']:+.1f})")
    return cells


def _cell(found: Mapping[str, Any] | None, factor: float, digits: int) -> str:
    if found is None or found["mean"] is None:
        return "-"
    mean = f"{factor * found['mean']:.{digits}f}"
    return mean if found["std"] is None else f"{mean} ± {factor * found['std']:.{digits}f}"


def _number(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
