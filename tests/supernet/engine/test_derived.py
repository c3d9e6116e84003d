"""Fresh weights of derived networks are drawn as the parts of their description say."""

import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flax import nnx

from search_spaces import UserError, build_space
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import Init, Part, Product, batch_norm, linear, norm, table
from supernet.engine.derived import DerivedNetwork, derived_config
from supernet.weights.described import Weights

READS, WRITES = 300, 200
EVERY = {
    "default": (linear(READS, WRITES), "kernel", 1 / READS),
    "uniform": (linear(READS, WRITES, init=Init(2.0, "uniform", "fan_avg")), "kernel", 2 / ((READS + WRITES) / 2)),
    "normal": (linear(READS, WRITES, init=Init(1.5, "normal", "fan_out")), "kernel", 1.5 / WRITES),
    "own": (linear(READS, WRITES, init=Init(0.3, "truncated_normal")), "kernel", 0.09),
    "table": (table(READS, WRITES), "", 0.02**2),
    "convolution": (
        Part({"kernel": (9, READS, WRITES)}, (Product(1, (9, READS), (WRITES,)),)), "kernel", 1 / (9 * READS),
    ),
    "depthwise": (Part({"kernel": (3, 3, 20000)}, (Product(1, (3, 3), (20000,)),)), "kernel", 1 / 9),
    "no product": (Part({"kernel": (READS, WRITES)}), "kernel", 1 / READS),
}  # fmt: skip


def derived(parts: dict[str, Part]) -> Any:
    """The network of a description that has these parts alone."""
    space: Any = build_space("vit", "small", {"width": [4], "depth": [1]})
    space.__dict__["network"] = Network(
        Sublayer("outside_layers", parts), (Stack("layers", (Sublayer("none", {}),), 1),)
    )
    return DerivedNetwork(Weights(space), space.largest, lambda state, x: x, nnx.Rngs(0))


@pytest.mark.parametrize("kind", EVERY)
def test_fresh_weights_have_the_variance_that_their_part_says(kind: str) -> None:
    part, name, variance = EVERY[kind]
    network = derived({"part": part})
    leaf = np.asarray((network.part[name] if name else network.part)[...])
    assert abs(leaf.mean()) < 5 * math.sqrt(variance / leaf.size)
    np.testing.assert_allclose(leaf.var(), variance, rtol=0.03)


def test_norms_begin_as_the_identity_and_biases_at_zero() -> None:
    network = derived({"norm": norm(5), "batch": batch_norm(6), "dense": linear(3, 4), "list/0": norm(2)})
    for name, expected in (("scale", 1), ("bias", 0)):
        for part in (network.norm, network.batch, network.list[0]):
            np.testing.assert_array_equal(part[name][...], expected)
    np.testing.assert_array_equal(network.dense["bias"][...], np.zeros(4))
    moments = {name: np.asarray(network.batch[name][...]) for name in ("mean", "var")}
    np.testing.assert_array_equal(moments["mean"], np.zeros(6))
    np.testing.assert_array_equal(moments["var"], np.ones(6))


def test_parts_that_are_numbered_with_gaps_are_refused() -> None:
    with pytest.raises(UserError, match=r"network: parts \['1', '2'\] lie at one place. Number all of them from 0"):
        derived({"list/1": norm(2), "list/2": norm(2)})


@dataclass(frozen=True)
class Settings:
    limit: int | None = 3
    without: int | None = None
    sizes: tuple[int, ...] = (1, 2)


def test_only_settings_that_are_null_by_default_are_left_out_where_they_are_null() -> None:
    architecture: Any = SimpleNamespace(description={"depth": 1})
    given: Any = Settings(limit=None)
    assert derived_config(given, architecture) == {
        "space": {"limit": None, "sizes": [1, 2]},
        "architecture": {"depth": 1},
    }
