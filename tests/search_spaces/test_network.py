"""The description of a network: sizes, slices and costs by hand, and the contradictions that it refuses."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from search_spaces import Choice, SearchSpace, UserError
from search_spaces.network import Network, Stack, Sublayer
from search_spaces.parts import CENTRE, Axis, Part, Product, linear, norm, table


def two_layers(hidden: Axis, inner: Axis | None = None, *, parts: dict[str, Part] | None = None) -> Network:
    width = Axis("width")
    outside = Sublayer("outside_layers", {"embedding": table(7, width), "norm": norm(width)})
    up, down = linear(width, hidden, 3), linear(inner or hidden, width, 3, bias=False)
    mlp = Sublayer("mlp", {"up": up, "down": down, **(parts or {})}, (Product(3, (hidden,), (3,)),))
    return Network(outside, (Stack("layers", (mlp,), 2),))


@dataclass(frozen=True)
class Small(SearchSpace):
    """Two layers of an MLP whose width follows from two choices."""

    family = "small"
    description: Any = None

    @cached_property
    def choices(self):
        return (
            Choice("width", (2, 4), selects_program=True),
            Choice("depth", (1, 2)),
            Choice("ratio", (1, 3), gate="depth"),
        )

    @property
    def network(self):  # type: ignore[override]
        return self.description or two_layers(HIDDEN)


WIDTH = Axis("width")
HIDDEN = Axis("hidden", ("width", "ratio"), lambda width, ratio: width * ratio)


def test_costs_are_counted_from_weights_and_products():
    space = Small()
    costs = space.cost(np.array([[1, 1, 1, 0], [1, 0, 1, 1]]))
    outside = 7 * 4 + 2 * 4

    def layer(hidden: int) -> np.ndarray:
        return np.array([4 * hidden + hidden + hidden * 4, 3 * 2 * 4 * hidden + 9 * hidden, 4 * 3 * (hidden + 4 + 3)])

    expected = np.array([layer(12) + layer(4), layer(12)]) + np.array([outside, 0, 0])
    np.testing.assert_array_equal(np.stack(list(costs.values()), axis=1), expected)


def test_slices_keep_the_first_entries_or_the_centre():
    kernel = Axis("kernel", keeps=CENTRE)
    sublayer = Sublayer("block", {"depthwise": Part({"kernel": (kernel, kernel, (2, HIDDEN))})})
    assert sublayer.centred == ("kernel",)
    small = sublayer.sizes({"kernel": 3, "width": 2, "ratio": 1})
    large = sublayer.sizes({"kernel": 7, "width": 4, "ratio": 3})
    assert small == {"kernel": 3, "hidden": 2}
    inside = slice(2, 5), slice(2, 5), slice(0, 2), slice(0, 2)
    assert sublayer.slices(sublayer.weights["depthwise/kernel"], small, large) == inside


def test_layers_run_in_order_with_the_genes_of_their_positions():
    mlp = two_layers(HIDDEN).stacks[0].sublayers
    first = Stack("layers", mlp, 2)
    np.testing.assert_array_equal(first.positions_of((1, 2)), [[0, -1], [0, 1]])
    last = Stack("layers", mlp, 2, positions=np.array([[-1, 0], [0, 1]]))
    space = Small(Network(two_layers(HIDDEN).outside_layers, (last,)))
    layers = list(space.active_layers(space.architecture([0, 0, 1, 0])))
    assert [(layer.number, layer.values) for layer in layers] == [(1, {"width": 2, "ratio": 3})]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (
            two_layers(HIDDEN, Axis("hidden", ("width",), lambda width: 2 * width)),
            "network: part down: axis hidden has 4 entries at width 2, ratio 1, but 2 in part up",
        ),
        (
            two_layers(HIDDEN, parts={"gate": Part({"kernel": (3, HIDDEN)}, (Product(1, (WIDTH,), (HIDDEN,)),))}),
            "network: part gate: a product over axis width, which none of its weights has (they have hidden)",
        ),
        (
            two_layers(Axis("hidden", ("ration",))),
            "network: part up: axis hidden is sized by 'ration', which is no choice. Did you mean 'ratio'?",
        ),
        (
            two_layers(Axis("hidden", ("ratio",), lambda ratio: 4 - ratio)),
            "network: part up: axis hidden has 3 entries at ratio 1, and 1 at the last values",
        ),
        (
            Network(Sublayer("outside_layers", {"head": linear(HIDDEN, 3)}), ()),
            "network: outside_layers: its axes follow ratio, which selects no program",
        ),
    ],
)  # fmt: skip
def test_a_description_that_contradicts_itself_is_refused(network, expected):
    with pytest.raises(UserError) as error:
        Small(network)
    assert expected in str(error.value)
