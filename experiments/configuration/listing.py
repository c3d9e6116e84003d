"""Names that an experiment file can use, with a line about each."""

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.data import SOURCES
from samplers import SAMPLERS
from search import SEARCHERS
from search_spaces import FAMILIES, UserError, build_space
from supernet.gradient.relaxation import RELAXATIONS
from supernet.proxies import PROXIES
from supernet.sharing import SHARING
from supernet.tasks.task import TASKS


def listing(kind: str) -> dict[str, str]:
    """Returns names of a kind, and the first line of what is said about each.

    Args:
        kind: families, presets, samplers, searchers, relaxations, sources, sharing, tasks or proxies.
    """
    if kind == "presets":
        pairs = [(family, preset) for family in FAMILIES for preset in FAMILIES[family].presets]
        return {f"{family} {preset}": _preset(family, preset) for family, preset in pairs}
    registries: dict[str, Any] = {
        "families": FAMILIES,
        "samplers": SAMPLERS,
        "searchers": SEARCHERS,
        "relaxations": RELAXATIONS,
        "sources": SOURCES,
        "sharing": SHARING,
        "tasks": TASKS,
        "proxies": PROXIES,
    }
    return {name: _first_line(plugin) for name, plugin in registries[kind].items()}


def _first_line(plugin: Callable[..., Any]) -> str:
    return (plugin.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _preset(family: str, preset: str) -> str:
    try:
        space = build_space(family, preset)
    except UserError as error:
        return f"needs more settings: {error}"
    params = space.cost(np.array([space.largest.genes], np.int32))["params"][0]
    return f"{space.size:.3g} subnets, at most {params:,} parameters"
