"""Changes of a run's settings: which stage each setting decides, and so what is done again where it changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.storage.earlier import Effect
from experiments.storage.run_identity import is_free
from experiments.user_input.problems import flatten, show

_ABSENT = "not set"
_EFFECTS = {
    "name": Effect.NOTHING,
    "search.evaluations": Effect.NOTHING,
    "search.batch": Effect.NOTHING,
    "train.checkpoint_every": Effect.NOTHING,
    "train.keep_last": Effect.NOTHING,
    "train.keep_best": Effect.NOTHING,
    "search": Effect.SEARCH,
    "search.objective": Effect.EVALUATION,
    "search.objective_examples": Effect.EVALUATION,
    "budgets": Effect.SEARCH,
    "evaluation.batch_size": Effect.SEARCH,  # decides into what parts successive halving cuts the split
    "evaluation": Effect.EVALUATION,
    "evaluation.metrics": Effect.EXPORT,
    "export": Effect.EXPORT,
}
"""The effect of changing a setting, or any of a section. The longest name that fits counts; others are refused."""
_LENGTH = ("train.steps", "train.epochs")
_GRADIENT = ("gradient", "budgets", *_LENGTH)
"""Settings that decide the weights of a gradient search."""


@dataclass(frozen=True)
class Change:
    """One setting that differs.

    Attributes:
        key: Its dotted name.
        before: Its value in the run, to read.
        now: Its value here, to read.
        effect: Consequence of the change.
    """

    key: str
    before: str
    now: str
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key}: {self.before} → {self.now}"


def changes(before: Mapping[str, Any], config: ExperimentConfig, gradient: bool) -> list[Change]:
    """Compares the configuration of a run with another one.

    Args:
        before: Configuration of the run, as plain values.
        config: The other one.
        gradient: Whether the run has searched by gradients, whose settings then decide the weights.

    Returns:
        What differs, but for settings that may differ anyway.
    """
    old, new = flatten(before), flatten(config.as_dict())
    keys = [key for key in dict.fromkeys([*old, *new]) if not is_free(key)]
    found = []
    for key in keys:
        if key not in old or key not in new or old[key] != new[key]:
            was, now = (show(flat[key]) if key in flat else _ABSENT for flat in (old, new))
            found.append(Change(key, was, now, _effect(key, old, new, config, gradient)))
    return found


def _effect(
    key: str, old: Mapping[str, Any], new: Mapping[str, Any], config: ExperimentConfig, gradient: bool
) -> Effect:
    if gradient and key.startswith(_GRADIENT):
        return Effect.REFUSED
    if key.startswith("gradient."):
        return Effect.NOTHING
    if key in _LENGTH:
        return _longer(old.get(key), new.get(key), config)
    if old.get("data.source") == config.data.source and key in {f"data.{name}" for name in config.data.plugin.paths}:
        return Effect.MOVED
    names = [name for name in _EFFECTS if key == name or key.startswith(f"{name}.")]
    return _EFFECTS[max(names, key=len)] if names else Effect.REFUSED


def _longer(before: Any, now: Any, config: ExperimentConfig) -> Effect:
    """A training goes on where nothing of it depended on its length."""
    numbers = isinstance(before, int) and isinstance(now, int)
    constant = config.train.optimizer.schedule == "constant" and not config.sampler.plugin.follows_plan
    return Effect.TRAINING if numbers and now > before and constant else Effect.REFUSED
