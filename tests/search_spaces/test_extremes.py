"""Extremes of costs that rise and fall with the genes: equal to those of all networks, listed."""

import itertools
from functools import partial

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import FAMILIES, CostModel, MobileNetSpace, Term, build_space, extremes
from search_spaces.extremes import highest, lowest, members, nearest
from tests.search_spaces.crooked import Crooked, Measured

METRICS = ("macs", "latency_ms", "memory_bytes")
seeds = st.integers(0, 10**6)


def untabled(cost):
    """The same costs, of which nothing is known."""
    return lambda genes: cost(genes)


@settings(max_examples=40)
@given(seeds, st.integers(1, 3), st.sampled_from(METRICS))
def test_lowest_and_highest_are_those_of_all_networks(seed, layers, metric):
    space = Crooked(seed, layers)
    cost = Measured(space, seed)
    values = np.asarray(cost(space.members)[metric], float)
    for found, expected in ((lowest(space, cost, metric), values.min()), (highest(space, cost, metric), values.max())):
        assert found.exact
        assert found.value == expected == cost(found.genes[None])[metric][0]
        np.testing.assert_array_equal(found.genes, space.canonical(found.genes[None])[0])


@settings(max_examples=40)
@given(seeds, st.lists(st.sampled_from(METRICS), min_size=2, max_size=3, unique=True), st.floats(0.3, 1.2))
def test_nearest_to_several_limits_is_that_of_all_networks(seed, metrics, share):
    space = Crooked(seed)
    cost = Measured(space, seed)
    costs = cost(space.members)
    limits = [(metric, share * float(np.median(costs[metric])) + 0.1) for metric in metrics]
    shares = np.maximum.reduce([np.asarray(costs[metric]) / most for metric, most in limits])
    found = nearest(space, cost, limits)
    assert found.exact
    assert found.value == shares.min()


@settings(max_examples=30)
@given(seeds, st.lists(st.sampled_from(METRICS), min_size=1, max_size=3, unique=True), st.booleans())
def test_members_are_all_networks_within_limits(seed, metrics, tabled):
    space = Crooked(seed)
    cost = Measured(space, seed)
    costs = cost(space.members)
    limits = [(metric, float(np.quantile(np.asarray(costs[metric], float), 0.2))) for metric in metrics]
    within = np.logical_and.reduce([np.asarray(costs[metric]) <= most for metric, most in limits])
    rng = np.random.default_rng(seed)
    rows = [*members(space, cost if tabled else untabled(cost), limits, rng)]
    found = np.unique(np.concatenate([np.zeros((0, space.num_genes), np.int32), *rows]), axis=0)
    np.testing.assert_array_equal(found, space.members[within])


@pytest.mark.parametrize("metric", METRICS)
def test_a_cost_without_tables_is_listed_or_searched_and_says_which(metric, monkeypatch):
    space = Crooked(1)
    cost = Measured(space, 1)
    values = np.asarray(cost(space.members)[metric], float)
    found = lowest(space, untabled(cost), metric)
    assert (found.value, found.exact) == (values.min(), True)
    assert highest(space, untabled(cost), metric).value == values.max()
    monkeypatch.setattr(extremes, "_LISTED", 10)
    found = lowest(space, untabled(cost), metric)
    assert not found.exact
    assert values.min() <= found.value <= values.mean()


@pytest.mark.parametrize(("family", "preset"), [(f, p) for f in FAMILIES for p in FAMILIES[f].presets])
def test_costs_that_grow_with_every_gene_have_the_ends_of_the_space(family, preset):
    space = build_space(family, preset)
    ends = space.cost(space.extremes)
    for metric in space.metrics:
        for found, expected in ((lowest, ends[metric][0]), (highest, ends[metric][1])):
            extreme = found(space, space.cost, metric)
            assert (extreme.value, extreme.exact) == (expected, True)
    # A tie is decided for the smallest network.
    np.testing.assert_array_equal(lowest(space, space.cost, "macs").genes, space.smallest.genes)


def test_a_phone_whose_latency_does_not_grow_with_resolution(data_dir):
    """Once-for-all's own tables of a Note10: measured operator by operator at 17 resolutions."""
    files = sorted((data_dir / "hw_latency" / "ofa_note10_lut").glob("*_lookup_table.yaml"))
    if not files:
        pytest.skip(f"no ofa_note10_lut/*.yaml under {data_dir / 'hw_latency'}")
    tables = {int(file.name.split("_")[0]): yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    space = build_space("mobilenet", "ofa_mbv3", {"resolution": tuple(tables), "width_multiplier": 1.2})
    assert isinstance(space, MobileNetSpace)

    def block(stage, index, resolution, depth, kernel, expand):
        if index >= depth:
            return (0,)
        size, width = space.in_size(resolution, stage, index), space.in_width(stage, index)
        stride, out = space.stride(stage, index), space.out_width(stage)
        smaller, hidden = -(-size // stride), space.hidden(width, expand)
        name = f"expanded_conv-input:{size}x{size}x{width}-output:{smaller}x{smaller}x{out}-expand:{hidden}-kernel:"
        name += f"{kernel}-stride:{stride}-idskip:{int(index > 0)}"
        (found,) = [row for key, row in tables[resolution].items() if key.startswith(name + "-")]
        return (round(found["mean"] * 1e6),)  # nanoseconds

    terms = []
    for stage, index in itertools.product(range(space.stages), range(space.max_depth)):
        columns = [
            space.columns["resolution"], space.columns["depth"][stage],
            space.columns["kernel"][stage, index], space.columns["expand"][stage, index],
        ]  # fmt: skip
        values = [space.resolution, space.depth, space.kernel, space.expand]
        terms.append(Term.tabulate(columns, values, partial(block, stage, index)))
    assert any((np.diff(term.table, axis=axis) < 0).any() for term in terms for axis in (0, 2, 3))
    _check_ends(space, CostModel(space.num_genes, terms, ("latency_ns",)))


def test_devices_whose_latency_and_resolution_are_unrelated(data_dir):
    """HELP's measurements of 5,000 Once-for-All networks on 12 devices, each fitted by a number a value."""
    file = data_dir / "hw_latency" / "help" / "ofa_mbv3_latency_ms.npz"
    if not file.is_file():
        pytest.skip(f"{file} is absent")
    held = np.load(file)
    resolutions = np.unique(held["r"])
    space = build_space("mobilenet", "ofa_mbv3", {"resolution": tuple(resolutions.tolist())})
    assert isinstance(space, MobileNetSpace)
    genes = np.zeros((len(held["r"]), space.num_genes), np.int32)
    for name, values, given_values in (
        ("resolution", resolutions, held["r"][:, None]), ("depth", space.depth, held["d"]),
        ("kernel", space.kernel, held["ks"]), ("expand", space.expand, held["e"]),
    ):  # fmt: skip
        genes[:, space.columns[name].reshape(-1)] = np.searchsorted(values, given_values)
    active = space.active(genes)
    starts = np.concatenate([[0], np.cumsum(space.cardinalities)])
    chosen = np.zeros((len(genes), starts[-1]))
    rows, columns = np.nonzero(active)
    chosen[rows, starts[columns] + genes[rows, columns]] = 1
    nanoseconds = np.rint(1e6 * np.linalg.lstsq(chosen, held["latency_ms"], rcond=None)[0]).astype(int)
    corners = 0
    devices = range(0, len(held["device"]), 3)
    for device in devices:
        fitted = nanoseconds[:, device]
        terms = []
        for column, (start, end) in enumerate(itertools.pairwise(starts)):
            of, table = (column,), fitted[start:end]
            for name in ("kernel", "expand"):
                if column in space.columns[name]:
                    stage, index = (int(i[0]) for i in np.nonzero(space.columns[name] == column))
                    there = np.array(space.depth)[:, None] > index
                    of, table = (int(space.columns["depth"][stage]), column), np.where(there, table, 0)
            terms.append(Term(of, table[..., None]))
        cost = CostModel(space.num_genes, terms, ("latency_ns",))
        _check_ends(space, cost)
        corners += lowest(space, cost, "latency_ns").value < cost(space.extremes)["latency_ns"][0]
    assert corners > len(devices) // 2, "the smallest network is not the fastest"


def _check_ends(space, cost):
    """Compares with the extremes by hand: stages, and within them layers, only meet in the resolution and the depth."""
    terms = {term.columns: term.table[..., 0] for term in cost.terms}
    resolution, depth = int(space.columns["resolution"]), space.columns["depth"]
    for found, best in ((lowest(space, cost, "latency_ns"), np.min), (highest(space, cost, "latency_ns"), np.max)):
        by_resolution = []
        for r in range(len(space.resolution)):
            total = terms[resolution,][r] if (resolution,) in terms else 0
            for stage in range(space.stages):
                by_depth = []
                for d in range(len(space.depth)):
                    parts = [0]
                    for columns, table in terms.items():
                        if int(depth[stage]) in columns:
                            fixed = {resolution: r, int(depth[stage]): d}
                            parts.append(best(table[tuple(fixed.get(c, slice(None)) for c in columns)]))
                    by_depth.append(sum(parts))
                total += best(by_depth)
            by_resolution.append(total)
        assert found.exact
        assert found.value == best(by_resolution) == cost(found.genes[None])["latency_ns"][0]
