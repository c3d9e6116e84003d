"""Split sharing: groups partition the space, sub-supernets start from one parent and share nothing afterwards."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from search_spaces import UserError, build_space
from supernet.engine.supernet import Supernet, build_supernet
from supernet.sharing.split import COPIES, ChoiceSplit, SplitSharing, splittable
from supernet.training.gene_norms import GeneNorms

OPERATIONS = ("none", "skip", "conv_1x1", "conv_3x3", "pool_3x3")
CELL = build_space("nas_bench_201", "small", {"width": 2, "stages": 1, "image_size": 4})
VIT = build_space("vit", "small", {"width": [16], "depth": [1, 2], "image_size": 8, "channels": 1, "classes": 10})
EDGE = ChoiceSplit("edge_1_0", (("none", "skip"), ("conv_1x1", "conv_3x3", "pool_3x3")))
OTHER = ChoiceSplit("edge_3_2", (("none",), ("skip", "pool_3x3"), ("conv_1x1", "conv_3x3")))


def split_net(space: Any, *splits: ChoiceSplit) -> Supernet:
    return build_supernet(space, SplitSharing(space, splits))


def flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")  # type: ignore[return-value]


def sharing_of(net: Supernet) -> SplitSharing:
    assert isinstance(net.sharing, SplitSharing)
    return net.sharing


def test_sub_supernets_partition_the_space() -> None:
    every = np.array(list(np.ndindex(*CELL.cardinalities.tolist())), np.int32)
    sharing = SplitSharing(CELL, (EDGE, OTHER))
    members = np.bincount([sharing.group(row) for row in every])
    assert sharing.sub_supernets == 6
    assert members.sum() == 15_625
    assert members.tolist() == [625 * a * b for a in (2, 3) for b in (1, 2, 2)]


def heads() -> tuple[Any, ...]:
    return next(choice.values for choice in VIT.choices if choice.name == "heads")


@pytest.mark.parametrize(
    ("space", "splits"),
    [(CELL, (EDGE,)), (CELL, (EDGE, OTHER)), (VIT, (ChoiceSplit("heads", tuple((value,) for value in heads())),))],
)
def test_children_start_equal_to_their_parent(space: Any, splits: tuple[ChoiceSplit, ...]) -> None:
    parent, net = build_supernet(space), split_net(space, *splits)
    params = parent.init(jax.random.key(1))
    own = sharing_of(net).started_from(lambda genes: params)
    statistics = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), net.statistics_shapes)
    groups = set()
    for genes in space.sample(np.random.default_rng(0), 12):
        architecture = space.architecture(genes)
        groups.add(sharing_of(net).group(genes))
        expected, found = (n.extract(p, architecture, statistics)[1] for n, p in ((parent, params), (net, own)))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert len(groups) > 1


def test_sub_supernets_share_nothing_that_two_of_them_use() -> None:
    net = split_net(CELL, EDGE)
    sharing, params = sharing_of(net), net.init(jax.random.key(0))
    rng = np.random.default_rng(1)
    drawn = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), params)
    for genes in CELL.sample(rng, 6):
        effective, leaves = flat(sharing.effective(drawn, jnp.asarray(genes))), flat(drawn)
        prefix = "" if sharing.group(genes) == 0 else f"{COPIES}/1/"
        for path, leaf in effective.items():
            where = f"{prefix}{path}" if path in sharing.changed else path
            np.testing.assert_array_equal(leaf, leaves[where])


def test_the_kernels_of_the_edge_that_is_split_have_no_copies() -> None:
    net = split_net(CELL, EDGE, OTHER)
    copies = flat(jax.eval_shape(net.init, jax.random.key(0))[COPIES])
    of_edge = {path.split("/", 1)[0] for path in copies if "edge_1_0" in path}
    assert of_edge == {"1", "2"}  # one a group of the other edge, and none a group of its own
    assert {path.split("/", 1)[0] for path in copies if "edge_3_2" in path} == {"1"}
    assert {path.split("/", 1)[0] for path in copies if "stem" in path} == set("12345")


def test_a_mixture_is_the_mean_of_the_sub_supernets() -> None:
    net = split_net(CELL, EDGE)
    rng = np.random.default_rng(2)
    drawn = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), net.shapes)
    relaxed = rng.dirichlet(np.ones(5), CELL.num_genes).astype(np.float32)
    found = flat(sharing_of(net).mixed(drawn, jnp.asarray(relaxed)))["stem/kernel"]
    leaves, share = flat(drawn), relaxed[CELL.column("edge_1_0"), :2].sum()
    expected = share * leaves["stem/kernel"] + (1 - share) * leaves[f"{COPIES}/1/stem/kernel"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_gene_that_is_split_governs_the_copies_of_all_groups() -> None:
    net = split_net(CELL, EDGE)
    norms, column = GeneNorms(net), CELL.column("edge_1_0")
    for path in ("stem/kernel", f"{COPIES}/1/stem/kernel"):
        gradient = traverse_util.unflatten_dict(
            {name: jnp.full(leaf.shape, float(name == path)) for name, leaf in flat(net.shapes).items()}, sep="/"
        )
        by_gene = np.asarray(norms(gradient))
        assert by_gene[column] == pytest.approx(flat(net.shapes)["stem/kernel"].size ** 0.5, rel=1e-5)
        assert np.count_nonzero(by_gene) == 1


def test_only_genes_of_every_subnet_are_split() -> None:
    names = [(choice.name, position) for choice, position in splittable(VIT).values()]
    assert ("depth", 0) in names
    assert ("heads", 0) in names
    assert ("heads", 1) not in names


@pytest.mark.parametrize(
    ("space", "split", "expected"),
    [
        (
            CELL,
            ChoiceSplit("edge_1_1", ((), ())),
            "splits[0].choice: 'edge_1_1' is no choice of the space. Did",
        ),
        (CELL, ChoiceSplit("edge_1_0", EDGE.groups, 1), "supernet.splits[0].position: 1 is out of range. Give 0 to 0."),
        (
            CELL,
            ChoiceSplit("edge_1_0", (("none",), ("skip",))),
            "splits[0].groups: [['none'], ['skip']] is no",
        ),
        (
            CELL,
            ChoiceSplit("edge_1_0", (OPERATIONS,)),
            "splits[0].groups: [['none', 'skip', 'conv_1x1', 'conv",
        ),
        (CELL, ChoiceSplit("edge_1_0", (*EDGE.groups, ("none",))), "is no partition of ['none', 'skip', 'conv_1x1', "),
        (CELL, ChoiceSplit("edge_1_0", (("no",), OPERATIONS)), "supernet.splits[0].groups: 'no' is outside ['none', "),
        (VIT, ChoiceSplit("heads", ((1,), (2,)), 1), "supernet.splits[0]: heads 1 has one value, or is no part of the"),
    ],
)
def test_a_split_that_does_not_fit_is_one_line(space: Any, split: ChoiceSplit, expected: str) -> None:
    with pytest.raises(UserError) as error:
        SplitSharing(space, (split,))
    assert expected in str(error.value)
    assert str(error.value).startswith("supernet.splits[0]")
    assert "\n" not in str(error.value)


def test_a_gene_is_split_once() -> None:
    with pytest.raises(UserError, match=r"^supernet\.splits\[1\]: the same gene as an earlier one"):
        SplitSharing(CELL, (EDGE, EDGE))


def test_too_many_sub_supernets_are_refused() -> None:
    splits = [ChoiceSplit(choice.name, tuple((value,) for value in choice.values)) for choice in CELL.choices[:4]]
    assert SplitSharing(CELL, splits[:3]).sub_supernets == 125
    with pytest.raises(UserError, match=r"^supernet\.splits: 625 sub-supernets are too many\. Give splits that"):
        SplitSharing(CELL, splits)


def test_a_parent_that_is_split_otherwise_is_refused() -> None:
    parent = SplitSharing(CELL, (EDGE,))
    SplitSharing(CELL, (EDGE, OTHER)).check_refines(parent, "run")
    finer = ChoiceSplit("edge_1_0", (("none",), ("skip",), ("conv_1x1", "conv_3x3", "pool_3x3")))
    SplitSharing(CELL, (finer,)).check_refines(parent, "run")
    crossing = ChoiceSplit("edge_1_0", (("none", "conv_1x1"), ("skip", "conv_3x3", "pool_3x3")))
    for splits in ((OTHER,), (crossing,)):
        with pytest.raises(UserError, match=r"^supernet\.splits: run is split at edge_1_0 0 into .*\.$"):
            SplitSharing(CELL, splits).check_refines(parent, "run")


def test_a_split_of_a_split_starts_from_each_parent_s_own_part() -> None:
    parent, child = split_net(CELL, EDGE), split_net(CELL, EDGE, OTHER)
    rng = np.random.default_rng(3)
    drawn = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), parent.shapes)
    own = sharing_of(child).started_from(lambda genes: parent.sharing.effective(drawn, jnp.asarray(genes)))
    for genes in CELL.sample(rng, 6):
        expected, found = (flat(n.sharing.effective(p, jnp.asarray(genes))) for n, p in ((parent, drawn), (child, own)))
        used = {path for path in expected if "edge" not in path}
        for path in used:
            np.testing.assert_array_equal(found[path], expected[path])
