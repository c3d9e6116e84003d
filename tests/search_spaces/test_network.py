"""The description of a network: sizes, slices and costs by hand, and the contradictions that it refuses."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from search_spaces import Choice, SearchSpace, UserError
from search_spaces.edges import Edge
from search_spaces.ensemble import Ensemble
from search_spaces.network import Alternatives, Network, Stack, Sublayer
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


EDGES = (Edge(1, 0, (0, -1), "inputs"), Edge(1, 1, (-1, 0), "inputs"))


def on_edges(edges: tuple[Edge, ...], layers: int = 2, part: Part | None = None) -> Network:
    option = Sublayer("on", {"up": part or linear(3, 3)})
    stack = Stack("edges", (Alternatives("operation", {"on": option}),), layers, edges=edges)
    return Network(Sublayer("outside_layers", {}), (stack,))


def replaced(network: Network, **changes: Any) -> Network:
    return replace(network, stacks=(replace(network.stacks[0], **changes),))


@dataclass(frozen=True)
class Wired(Small):
    """Edges that choose an operation of one."""

    family = "wired"
    genes: int = 1

    @cached_property
    def choices(self):  # type: ignore[override]
        inputs = Choice("inputs", ("first", "second"), ordered=False)
        return (*super().choices, inputs, Choice("operation", ("on",), repeats=self.genes, ordered=False))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (on_edges(EDGES, 3), "network: stack edges: 2 edges are its layers. Give as many layers"),
        (on_edges((EDGES[0]._replace(choice="input"), EDGES[1])), "edge: 'input' is no choice. Did you mean 'inputs'?"),
        (on_edges((EDGES[0]._replace(choice="depth"), EDGES[1])), "edge: depth is ordered, selects a program or has"),
        (on_edges((EDGES[0]._replace(slots=(-1, -1)), EDGES[1])), "edge: 1 from 0 has slots [-1, -1]. Count nodes"),
        (on_edges((EDGES[0]._replace(slots=(0, -2)), EDGES[1])), "edge: 1 from 0 has slots [0, -2]. Count nodes"),
        (on_edges((EDGES[0]._replace(source=-1), EDGES[1])), "edge: 1 from -1 has slots [0, -1]. Count nodes"),
        (replaced(on_edges(EDGES), handed_on=("x",)), "2 edges are its layers. Give as many layers, and nothing else"),
        (replaced(on_edges(EDGES), when={"width": (2,)}), "2 edges are its layers. Give as many layers"),
        (on_edges((EDGES[0]._replace(slots=(0,)), EDGES[1])), "edge of inputs: 1 slots for 2 values. Give one each."),
        (on_edges(EDGES, part=linear(3, WIDTH)), "stack edges: width sizes what is on an edge"),
        (
            Network(Sublayer("outside_layers", {}), (Stack("edges", (Sublayer("up", {}),), 2, edges=EDGES),)),
            "stack edges: only choices between sublayers can be on edges",
        ),
    ],
)  # fmt: skip
def test_edges_that_are_none_are_refused(network: Network, expected: str) -> None:
    with pytest.raises(UserError) as error:
        Wired(network)
    assert expected in str(error.value)


def test_edges_that_share_a_gene_by_mistake_are_refused() -> None:
    """By default, `column` knows nothing of slots."""
    network = on_edges((EDGES[0], EDGES[1]._replace(slots=(-1, 1))))
    assert Wired(network).num_genes == 6
    with pytest.raises(UserError, match="edges read 1 of the 2 genes of operation"):
        Wired(network, 2)


@dataclass(frozen=True)
class Ensembled(Ensemble, Wired):  # type: ignore[override]
    """Members that cannot be."""

    family = "ensembled"


def test_an_ensemble_of_graphs_is_refused() -> None:
    network = replace(on_edges(EDGES), outside_layers=Sublayer("outside_layers", {"end": linear(3, 3)}), head=("end",))
    with pytest.raises(UserError, match="the layers of wired are edges of a graph"):
        Ensembled(network)


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
