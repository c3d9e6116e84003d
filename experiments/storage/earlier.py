"""Earlier results of a run whose settings were changed: set aside in `RUN/earlier`, looked up where they still hold."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from enum import IntEnum
from pathlib import Path

from experiments.records import Summary

_EARLIER = "earlier"


class Effect(IntEnum):
    """Stages that are done again where a setting of a run changes.

    Attributes:
        NOTHING: Nothing; what was done goes on.
        MOVED: Nothing, once the data are seen to be the same.
        EXPORT: The exported subnets are written again.
        SEARCH: The search is done again, and looks up what was evaluated.
        EVALUATION: All candidates are evaluated again.
        TRAINING: The training goes on from where it ended; search and export follow.
        REFUSED: Nothing can be kept.
    """

    NOTHING = 0
    MOVED = 1
    EXPORT = 2
    SEARCH = 3
    EVALUATION = 4
    TRAINING = 5
    REFUSED = 6


_EXPORTS = ("subnets", "onnx", "pytorch", "tflite", "transformers", "nested")
_PARTS = {
    Effect.EXPORT: _EXPORTS,
    Effect.SEARCH: ("search",),
    Effect.EVALUATION: ("search", *_EXPORTS, "rank/rank.json"),
    Effect.TRAINING: ("search", *_EXPORTS, "rank/rank.json"),
}


def without_stale(summary: Summary, effect: Effect) -> Summary:
    """Returns the parts of a summary that still hold."""
    if effect >= Effect.EXPORT:
        summary = replace(summary, subnets=None, new_budgets={})
    if effect >= Effect.SEARCH:
        summary = replace(summary, search=None)
    if effect >= Effect.EVALUATION:
        summary = replace(summary, rank=None)
    return summary


def exports_of(name: str) -> list[str]:
    """Parts of a run that are of one exported subnet."""
    return [*(f"{part}/{name}" for part in _EXPORTS), f"onnx/{name}.int8"]


def set_aside(run: Path, effects: Collection[Effect], parts: Iterable[str] = ()) -> None:
    """Moves what no longer holds to `RUN/earlier/N_WHY`.

    Args:
        run: The run directory.
        effects: Kinds of work that are done again; at least one.
        parts: Further invalid parts, as paths in the run directory.
    """
    home, effect = run / _EARLIER, max(effects)
    if effect >= Effect.EVALUATION and home.is_dir():  # scores of before no longer hold
        for place in sorted(home.glob(f"*_{Effect.SEARCH.name.lower()}")):
            place.rename(place.with_name(f"{place.name.partition('_')[0]}_{effect.name.lower()}"))
    stale = {part for one in effects for part in _PARTS.get(one, ())}
    _move(run, effect, stale | {part for part in parts if part.partition("/")[0] not in stale})


def set_export_aside(run: Path, name: str) -> None:
    """Moves one exported subnet, which another network takes the place of, to `RUN/earlier/N_export`."""
    _move(run, Effect.EXPORT, exports_of(name))


def set_part_aside(run: Path, part: str) -> None:
    """Moves a part of a run that is exported anew, a path in its directory, to `RUN/earlier/N_export`."""
    _move(run, Effect.EXPORT, (part,))


def _move(run: Path, why: Effect, parts: Iterable[str]) -> None:
    home, there = run / _EARLIER, sorted(part for part in parts if (run / part).exists())
    if there:
        numbers = [place.name.partition("_")[0] for place in home.glob("*_*")]
        number = 1 + max((int(one) for one in numbers if one.isdecimal()), default=0)
        place = home / f"{number}_{why.name.lower()}"
        for part in there:
            (place / part).parent.mkdir(parents=True, exist_ok=True)
            (run / part).rename(place / part)


def earlier_archives(run: Path) -> Iterator[Path]:
    """Archives of earlier searches of a run whose scores still hold."""
    for place in sorted((run / _EARLIER).glob(f"*_{Effect.SEARCH.name.lower()}")):
        yield from sorted(place.rglob("*.jsonl"))
