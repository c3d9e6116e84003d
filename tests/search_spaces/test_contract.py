"""What every registered search space must do, for every preset of every family."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import FAMILIES, Architecture, Choice, SearchSpace, UserError, build_space

NAMES = [(family, preset) for family in FAMILIES for preset in FAMILIES[family].presets]
SPACES = {name: build_space(*name) for name in NAMES}
ENUMERABLE = 40_000

every_space = pytest.mark.parametrize("name", NAMES, ids="-".join)
seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=20, deadline=None)


def raw_genes(space: SearchSpace, rng: np.random.Generator, count: int) -> np.ndarray:
    """Gene vectors that need not be canonical."""
    return rng.integers(0, space.cardinalities, size=(count, space.num_genes), dtype=np.int32)


def all_genes(space: SearchSpace) -> np.ndarray:
    """Every gene vector, canonical or not."""
    return np.array(list(itertools.product(*(range(n) for n in space.cardinalities))), np.int32)


def settings_of(family: str) -> set[str]:
    return {field.name for field in dataclasses.fields(FAMILIES[family])}  # type: ignore[arg-type]


def built(family: str, preset: str, settings: dict) -> SearchSpace | None:
    try:
        return build_space(family, preset, settings)
    except UserError:
        return None


def shrunk(family: str, preset: str) -> SearchSpace:
    """The preset at depths 1 and 2, other choices at their first two values for as long as it can be enumerated."""
    choices = SPACES[family, preset].choices
    gates = {choice.gate for choice in choices}
    choices = [choice for choice in choices if choice.name in settings_of(family)]  # others follow from these
    kept = {c.name: (1, 2) if c.name in gates else c.values[:1] for c in choices}
    for choice in sorted(choices, key=lambda c: c.gate is None):
        wider = {**kept, choice.name: kept[choice.name] if choice.name in gates else choice.values[:2]}
        space = built(family, preset, wider)
        if space is not None and math.prod(int(n) for n in space.cardinalities) <= ENUMERABLE:
            kept = wider
    return build_space(family, preset, kept)


@every_space
@examples
@given(seed=seeds)
def test_encode_inverts_the_description_also_through_json(name, seed):
    space = SPACES[name]
    for row in raw_genes(space, np.random.default_rng(seed), 5):
        architecture = space.architecture(row)
        assert isinstance(architecture, Architecture)
        assert space.encode(architecture.description) == architecture
        assert space.encode(json.loads(json.dumps(architecture.description))) == architecture
        assert architecture.genes == tuple(space.canonical(row[None])[0])


@every_space
@examples
@given(seed=seeds)
def test_canonical_is_idempotent_and_keeps_network_and_cost(name, seed):
    space = SPACES[name]
    raw = raw_genes(space, np.random.default_rng(seed), 50)
    canonical = space.canonical(raw)
    np.testing.assert_array_equal(space.canonical(canonical), canonical)
    np.testing.assert_array_equal(space.active(canonical), space.active(raw))
    assert space.contains(canonical).all()
    for metric, values in space.cost(raw).items():
        np.testing.assert_array_equal(values, space.cost(canonical)[metric])


@every_space
@examples
@given(seed=seeds)
def test_canonical_forms_are_equal_exactly_when_descriptions_are(name, seed):
    space, rng = SPACES[name], np.random.default_rng(seed)
    first = raw_genes(space, rng, 1)[0]
    hidden = np.where(space.active(first[None])[0], first, raw_genes(space, rng, 1)[0])
    changed = first.copy()
    column = rng.integers(space.num_genes)
    changed[column] = rng.integers(space.cardinalities[column])
    for second in (hidden, changed, raw_genes(space, rng, 1)[0]):
        a, b = space.architecture(first), space.architecture(second)
        assert (a == b) == (a.description == b.description)
        assert a != b or hash(a) == hash(b)
    assert space.architecture(first) == space.architecture(hidden)


@every_space
@examples
@given(seed=seeds, probability=st.floats(0, 1))
def test_drawing_stays_inside_the_space_and_is_canonical(name, seed, probability):
    space, rng = SPACES[name], np.random.default_rng(seed)
    parents = space.sample(rng, 20)
    mothers, fathers = parents[:10], parents[10:]
    mutants = space.mutate(rng, parents, probability)
    children = space.crossover(rng, mothers, fathers)
    for genes in (parents, mutants, children, space.neighbours(parents[0])):
        assert genes.dtype == np.int32
        assert space.contains(genes).all()
        np.testing.assert_array_equal(space.canonical(genes), genes)
    inherited = (children == mothers) | (children == fathers) | ~space.active(children)
    assert inherited.all()


@every_space
def test_drawing_follows_the_generator_and_its_probability(name):
    space = SPACES[name]
    parents = space.sample(np.random.default_rng(1), 30)
    np.testing.assert_array_equal(parents, space.sample(np.random.default_rng(1), 30))
    assert (parents != space.sample(np.random.default_rng(2), 30)).any()
    np.testing.assert_array_equal(space.mutate(np.random.default_rng(3), parents, 0.0), parents)
    assert (space.mutate(np.random.default_rng(3), parents, 1.0) != parents).any()
    choice = space.choices[0].name
    only = space.mutate(np.random.default_rng(3), parents, 0.0, {choice: 1.0})
    touched = np.flatnonzero((only != parents).any(axis=0))
    assert set(touched) <= set(space.columns[choice].reshape(-1))
    assert touched.size == space.columns[choice].size
    assert (only[:, touched] != parents[:, touched]).any()


@every_space
def test_samples_reach_every_value_of_every_gene(name):
    space = SPACES[name]
    genes = space.sample(np.random.default_rng(0), 4000)
    np.testing.assert_array_equal(genes.max(axis=0), space.cardinalities - 1)
    np.testing.assert_array_equal(genes.min(axis=0), 0)


@every_space
@examples
@given(seed=seeds)
def test_neighbours_are_all_networks_that_differ_in_one_active_gene(name, seed):
    space = SPACES[name]
    genes = space.sample(np.random.default_rng(seed), 1)[0]
    active = space.active(genes[None])[0]
    neighbours = space.neighbours(genes)
    assert len(neighbours) == (space.cardinalities - 1)[active].sum()
    assert len(np.unique(neighbours, axis=0)) == len(neighbours)
    for row in neighbours:
        both = active & space.active(row[None])[0]
        assert (row != genes)[both].sum() == 1
        assert not row[~both].any(), "layers that a deeper neighbour adds start at the first value"


@every_space
def test_size_counts_the_distinct_networks(name):
    space = shrunk(*name)
    genes = all_genes(space)
    distinct = np.unique(space.canonical(genes), axis=0)
    assert space.size == len(distinct)
    some = distinct[:: len(distinct) // 200 or 1]
    assert len({json.dumps(space.architecture(row).description) for row in some}) == len(some)
    assert 1 < space.size <= len(genes)
    gated = not space.active(genes).all()
    assert gated or not any(choice.gate for choice in space.choices)
    assert (space.size < len(genes)) == gated, "the shrunk space must have genes that mean nothing, or it tests nothing"


@every_space
@examples
@given(seed=seeds)
def test_costs_lie_between_smallest_and_largest_and_do_not_depend_on_the_batch(name, seed):
    space = SPACES[name]
    genes = space.sample(np.random.default_rng(seed), 30)
    ends = space.cost(space.extremes)
    together = space.cost(genes)
    alone = [space.cost(row[None]) for row in genes]
    assert set(together) >= {"params", "macs", "activation_bytes"}
    for metric, values in together.items():
        assert values.dtype == np.int64
        assert (ends[metric][0] <= values).all()
        assert (values <= ends[metric][1]).all()
        assert (values > 0).all()
        np.testing.assert_array_equal(values, [int(one[metric][0]) for one in alone])


@every_space
def test_a_larger_value_of_one_gene_never_costs_less(name):
    space = SPACES[name]
    for row in space.sample(np.random.default_rng(5), 3):
        for column in np.flatnonzero(space.active(row[None])[0] & space.ordered):
            ladder = np.repeat(row[None], space.cardinalities[column], axis=0)
            ladder[:, column] = np.arange(space.cardinalities[column])
            for metric, values in space.cost(ladder).items():
                assert (np.diff(values) >= 0).all(), (metric, column)


@every_space
def test_costs_of_no_architecture_and_of_more_than_a_chunk(name):
    space = SPACES[name]
    assert all(len(values) == 0 for values in space.cost(np.zeros((0, space.num_genes), np.int32)).values())
    genes = space.sample(np.random.default_rng(0), 10_000)
    whole = space.cost(genes)
    for metric, values in whole.items():
        np.testing.assert_array_equal(values[-50:], space.cost(genes[-50:])[metric])


@every_space
def test_program_is_what_changes_the_stream_and_nothing_else(name):
    space = SPACES[name]
    genes = space.sample(np.random.default_rng(0), 2000)
    assert len({space.program(row) for row in genes}) == space.programs
    others = [c for c in space.choices if not c.selects_program]
    mutants = space.mutate(np.random.default_rng(1), genes, 0.0, {c.name: 1.0 for c in others})
    assert [space.program(row) for row in mutants] == [space.program(row) for row in genes]


@every_space
def test_fingerprint_follows_from_the_settings(name):
    space = SPACES[name]
    choice = next(c for c in space.choices if len(c.values) > 1)
    other = build_space(name[0], name[1], {choice.name: choice.values[:-1]})
    assert space.fingerprint == build_space(*name).fingerprint
    assert space.fingerprint != other.fingerprint
    assert len({SPACES[n].fingerprint for n in NAMES}) == len(NAMES)


@every_space
def test_space_is_frozen_and_lists_work_like_tuples(name):
    space = SPACES[name]
    lists = {c.name: list(c.values) for c in space.choices if c.name in settings_of(name[0])}
    assert build_space(name[0], name[1], lists) == space
    assert build_space(name[0], name[1], lists).fingerprint == space.fingerprint
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(space, space.choices[0].name, (1,))


def test_every_family_has_a_small_preset_of_a_million_networks():
    for family in FAMILIES:
        whole = max(space.size for (name, _), space in SPACES.items() if name == family)
        assert SPACES[family, "small"].size >= min(10**6, whole)


def test_importing_the_package_does_not_import_jax():
    code = "import sys, search_spaces; list(search_spaces.FAMILIES); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- what bad input gets


@every_space
def test_description_errors_name_the_place_and_the_remedy(name):
    space = SPACES[name]
    good = space.largest.description
    first, gated = space.choices[0], next((c for c in space.choices if c.gate), None)
    misspelt = first.name[:-1]
    cases = [
        ({**good, misspelt: 1}, f"{misspelt!r} is no choice. Did you mean {first.name!r}?"),
        ({k: v for k, v in good.items() if k != first.name}, f"{first.name!r} is missing"),
        ({**good, first.name: -1}, f"architecture.{first.name}: -1 is outside {list(first.values)}"),
    ]
    if gated is not None:
        cases += list(_lists_that_are_wrong(space, gated))
    for description, expected in cases:
        with pytest.raises(UserError) as error:
            space.encode(description)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)


def _lists_that_are_wrong(space: SearchSpace, gated: Choice) -> Iterator[tuple[dict, str]]:
    """Descriptions in which one list of a gated choice is wrong, and what is said of each."""
    good = space.largest.description
    nested = gated.name + ("[0]" if len(space.shapes[gated.name]) == 2 else "")
    row = good[gated.name][0] if nested != gated.name else good[gated.name]

    def with_row(row: object) -> dict:
        return {**good, gated.name: [row, *good[gated.name][1:]] if nested != gated.name else row}

    yield with_row(row[:-1]), f"architecture.{nested}: {row[:-1]!r} is not a list of {len(row)}"
    yield with_row([*row, row[0]]), f"is not a list of {len(row)}"
    yield with_row(7), f"architecture.{nested}: 7 is not a list"
    yield with_row([-1, *row[1:]]), f"architecture.{nested}[0]: -1 is outside {list(gated.values)}"


@every_space
def test_gene_errors_name_the_index_and_the_range(name):
    space = SPACES[name]
    with pytest.raises(UserError, match=rf"expected \({space.num_genes},\)"):
        space.architecture(np.zeros(space.num_genes + 1, np.int32))
    for value in (-1, int(space.cardinalities[-1])):
        genes = np.zeros(space.num_genes, np.int32)
        genes[-1] = value
        assert not space.contains(genes[None])[0]
        with pytest.raises(UserError, match=rf"genes\[{space.num_genes - 1}\]: {value} is outside 0\.\."):
            space.architecture(genes)


@every_space
def test_setting_errors_name_the_setting(name):
    family, preset = name
    choice = SPACES[name].choices[0]
    outputs = "classes" if hasattr(SPACES[name], "classes") else "vocabulary"
    cases = [
        ({choice.name[:-1]: [1]}, f"Did you mean {choice.name!r}?"),
        ({choice.name: 3}, f"space.{choice.name}: 3 is not a list"),
        ({choice.name: []}, f"space.{choice.name}: no values"),
        ({choice.name: [choice.values[0]] * 2}, "holds a value twice"),
        ({outputs: -1}, f"space.{outputs}: -1 is less than "),
        ({outputs: "ten"}, f"space.{outputs}: 'ten' is not a whole number"),
        ({outputs: True}, f"space.{outputs}: true is not a whole number"),
    ]
    if isinstance(choice.values[0], str):
        cases += [
            ({choice.name: ["a"]}, f"space.{choice.name}: 'a' is not known. Known: "),
            ({choice.name: [2]}, f"space.{choice.name}: 2 is not a text"),
        ]
    else:
        cases += [
            ({choice.name: ["a"]}, f"space.{choice.name}: 'a' is not a whole number"),
            ({choice.name: [True]}, f"space.{choice.name}: true is not a whole number"),
            ({choice.name: [2, 2]}, "holds a value twice"),
            ({choice.name: [4, 2]}, "does not ascend"),
            ({choice.name: [0, 2]}, "not positive"),
        ]
    for overrides, expected in cases:
        with pytest.raises(UserError) as error:
            build_space(family, preset, overrides)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_preset_errors_offer_the_nearest_name(family):
    with pytest.raises(UserError, match=f"'smal' is no preset of {family}. Did you mean 'small'"):
        build_space(family, "smal")
    with pytest.raises(UserError, match=r"missing\. Set it, or choose a preset: .*small"):
        build_space(family)


def test_an_unknown_family_gets_the_nearest_name():
    with pytest.raises(UserError, match=r"space family: 'mobilnet' is not known\. Did you mean 'mobilenet'"):
        build_space("mobilnet")
