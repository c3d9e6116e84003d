"""Contracts hold for everything that Supernest has, and refuse what breaks them in one line."""

import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.contracts import ContractError
from samplers import SAMPLERS, Plan
from search import SEARCHERS, Budget
from search.random_search import RandomSearch
from search_spaces import build_space
from supernest.testing import check_sampler, check_searcher

SPACE = build_space("vit", "small", {"depth": [1, 2], "width": [16, 32]})
BUDGETS = (Budget.parse("full", "macs<=100%", ("params", "macs")).resolve(SPACE),)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_fulfils_its_contract(name: str) -> None:
    check_sampler(SAMPLERS[name](SPACE, 0, Plan(steps=40, examples=50, batch_size=8)))


@pytest.mark.parametrize("name", list(SEARCHERS))
def test_every_searcher_fulfils_its_contract(name: str) -> None:
    check_searcher(SEARCHERS[name](SPACE, BUDGETS, 0))


def documented(registry: str, name: str) -> Any:
    """What the documentation's code for a plug-in defines."""
    text = (Path(__file__).parents[3] / "docs" / "extending.md").read_text("utf-8")
    (block,) = (part for part in text.split("```python\n") if f'@{registry}.register("' in part)
    module = types.ModuleType(f"documented_{name}")
    sys.modules[module.__name__] = module  # where dataclasses look types up
    exec(block.partition("```")[0], module.__dict__)
    return getattr(module, name)


def test_the_sampler_and_the_searcher_of_the_documentation_fulfil_their_contracts() -> None:
    check_sampler(documented("SAMPLERS", "Pair")(SPACE, 0, Plan(steps=40, examples=50, batch_size=8)))
    climber = documented("SEARCHERS", "Climber")(SPACE, BUDGETS, 0)
    check_searcher(climber)
    state, genes = climber.init(), climber.ask(climber.init())
    for _ in range(20):  # the smallest network is the best, and it is found
        state = climber.tell(state, genes, SPACE.cost(genes)["macs"][:, None] / 1e9)
        genes = climber.ask(state)
    np.testing.assert_array_equal(state.genes[np.argmin(state.errors)], SPACE.smallest.genes)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda genes: genes / 2, "search.type: Wrong.ask returns float64("),
        (lambda genes: genes[:, :2], "search.type: Wrong.ask returns int32("),
        (lambda genes: genes + 9, "search.type: Wrong.ask returns genes outside of the space."),
        (lambda genes: np.concatenate([genes, genes]), "search.type: Wrong.ask returns a candidate twice"),
        (lambda genes: genes[:0], "search.type: Wrong.ask returns no candidate at first."),
    ],
)
def test_a_wrong_searcher_is_one_line(wrong: Any, expected: str) -> None:
    @dataclass(frozen=True)
    class Wrong(RandomSearch):
        def ask(self, state: Any) -> Any:
            return wrong(super().ask(state))

    with pytest.raises(ContractError) as error:
        check_searcher(Wrong(SPACE, BUDGETS, 0))
    assert str(error.value).startswith(expected)
