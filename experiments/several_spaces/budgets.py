"""Budgets over several spaces: shares of what the dearest subnet of all costs; each space has those it can meet."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from experiments.configuration.experiment_config import SPACES, ExperimentConfig
from experiments.data import Dataset
from search import Budget
from search_spaces import SearchSpace, UserError
from search_spaces.extremes import highest


def with_absolute_budgets(configs: Mapping[str, ExperimentConfig]) -> dict[str, ExperimentConfig]:
    """Returns the experiments with budgets in absolute numbers; each has those that a network of its space meets.

    Args:
        configs: Experiment of each space by name; all have the same data and budgets.

    Raises:
        UserError: Spaces that are not for the same data, or are equal; a budget that no space can meet, or a space that
            can meet none.
    """
    first = next(iter(configs.values()))
    data = first.data.load(first.seed)
    spaces: dict[str, SearchSpace] = {}
    for name, config in configs.items():
        with about_space(name):
            spaces[name] = config.space.build(data)
    _check_alike(spaces, data)
    dearest = {
        limit.metric: max(highest(space, space.cost, limit.metric).value for space in spaces.values())
        for budget in first.budgets
        for limit in budget.limits
        if limit.percent
    }
    met: dict[str, list[Budget]] = {name: [] for name in configs}
    for budget in first.budgets:
        absolute = Budget(
            budget.name,
            tuple(
                dataclasses.replace(limit, amount=limit.amount / 100 * dearest[limit.metric], percent=False)
                if limit.percent
                else limit
                for limit in budget.limits
            ),
        )
        for name, space in spaces.items():
            try:
                absolute.resolve(space)
            except UserError:
                continue
            met[name].append(absolute)
        if not any(absolute in budgets for budgets in met.values()):
            raise UserError(f"budgets.{budget.name}: no network of any space meets '{budget}'. Raise it.")
    for name, budgets in met.items():
        if not budgets:
            raise UserError(f"{SPACES}.{name}: none of its networks meets a budget. Leave it out, or raise a budget.")
    return {name: config.model_copy(update={"budgets": tuple(met[name])}) for name, config in configs.items()}


def _check_alike(spaces: Mapping[str, SearchSpace], data: Dataset) -> None:
    """Refuses spaces whose networks take or give something else, and a space that is there twice."""
    (first, one), *others = spaces.items()
    names = {field.name for field in dataclasses.fields(one)}  # type: ignore[arg-type]
    for name, space in others:
        for key in data.settings(names):
            if (own := getattr(space, key)) != (expected := getattr(one, key)):
                raise UserError(f"{SPACES}.{name}.{key}: {own}, and {first} has {expected}. Give all of them the same.")
    known: dict[str, str] = {}
    for name, space in spaces.items():
        if (same := known.setdefault(space.fingerprint, name)) != name:
            raise UserError(f"{SPACES}.{name}: has the same networks as {same}. Leave one of them out.")


@contextmanager
def about_space(name: str) -> Iterator[None]:
    """Puts the name of a space into errors that are about the key `space`."""
    try:
        yield
    except UserError as error:
        key, separator, rest = str(error).partition("space")
        if key or not separator or rest[:1] not in (".", ":"):
            raise
        raise UserError(f"{SPACES}.{name}{rest}") from None
