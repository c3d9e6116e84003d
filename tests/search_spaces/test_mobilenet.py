"""The MobileNet family against measured OFA subnets, against a count by hand, and its geometry and errors."""

import ast
import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import MobileNetSpace, UserError, build_space
from search_spaces.mobilenet import multiple_of_8

BLOCKS_PER_STAGE = 4


@pytest.fixture(scope="module")
def ofa() -> MobileNetSpace:
    space = build_space("mobilenet", "ofa_mbv3")
    assert isinstance(space, MobileNetSpace)
    return space


def small(**overrides) -> MobileNetSpace:
    space = build_space("mobilenet", "small", overrides)
    assert isinstance(space, MobileNetSpace)
    return space


def measured(data_dir) -> list[dict[str, str]]:
    files = sorted((data_dir / "hw_latency" / "ofa_dynast").glob("*.csv"))
    if not files:
        pytest.skip(f"no ofa_dynast/*.csv under {data_dir / 'hw_latency'}")
    rows = []
    for file in files:
        with file.open(newline="") as lines:
            rows += list(csv.DictReader(lines))
    return rows


def genes_of(space: MobileNetSpace, subnet: dict) -> np.ndarray:
    """Genes from the other project's notation, meaningless ones included."""
    genes = np.zeros(space.num_genes, np.int32)
    for name, given_values in (("resolution", subnet["r"]), ("depth", subnet["d"]), ("kernel", subnet["ks"])):
        values = next(c.values for c in space.choices if c.name == name)
        genes[space.columns[name].reshape(-1)] = [values.index(v) for v in given_values]
    genes[space.columns["expand"].reshape(-1)] = [space.expand.index(v) for v in subnet["e"]]
    return genes


def test_every_measured_ofa_subnet_has_our_params_and_macs_exactly(ofa, data_dir):
    rows = measured(data_dir)
    assert len(rows) > 2000
    genes = np.stack([genes_of(ofa, ast.literal_eval(row["Sub-network"])) for row in rows])
    cost = ofa.cost(genes)
    np.testing.assert_array_equal(cost["params"], [int(row["Model Parameters"]) for row in rows])
    np.testing.assert_array_equal(cost["macs"], [int(row["MACs"]) for row in rows])
    assert len(np.unique(cost["macs"])) > 100
    row, subnet = genes[0], ast.literal_eval(rows[0]["Sub-network"])
    kernels = [subnet["ks"][s * BLOCKS_PER_STAGE :][:d] for s, d in enumerate(subnet["d"])]
    assert ofa.architecture(row).description["kernel"] == kernels


def test_ofa_is_the_published_space(ofa):
    assert ofa.size == len(ofa.resolution) * (9**2 + 9**3 + 9**4) ** 5
    assert ofa.shapes == {"resolution": (), "depth": (5,), "kernel": (5, 4), "expand": (5, 4)}
    assert 224 in ofa.resolution
    assert ofa.programs == len(ofa.resolution)
    assert [ofa.in_size(224, s, 0) for s in range(5)] == [112, 56, 28, 14, 14]
    assert ofa.final_size(224) == 7


def test_costs_of_one_small_network_counted_by_hand():
    space = small(
        resolution=[9], depth=[1], kernel=[5], expand=[2], widths=[8, 16], strides=[2, 1],
        squeeze_excite=[False, True], activations=["relu", "hard_swish"],
        stem_width=8, first_width=8, final_width=24, feature_width=32, classes=3, channels=2,
    )  # fmt: skip
    maps = [
        # (positions, fan-in, channels): stem and fixed block at 9×9; the first stage's stride leaves 5×5
        (81, 9 * 2, 8), (81, 9, 8), (81, 8, 8),
        (81, 8, 16), (25, 25, 16), (25, 16, 8),
        (25, 8, 16), (25, 25, 16), (25, 16, 16),
        (25, 16, 24),
    ]  # fmt: skip
    params = sum(fan_in * width + 2 * width for _, fan_in, width in maps)
    macs = sum(positions * fan_in * width for positions, fan_in, width in maps)
    outputs = sum(positions * width for positions, _, width in maps)
    params += (16 + 1) * 8 + (8 + 1) * 16  # squeeze-and-excite of the second stage, 16 → 8 → 16, with biases
    macs += 2 * 16 * 8
    outputs += 8 + 16
    params += 24 * 32 + (32 + 1) * 3
    macs += 24 * 32 + 32 * 3
    outputs += 32 + 3
    cost = space.cost(np.array([space.largest.genes]))
    assert {k: int(v[0]) for k, v in cost.items()} == {"params": params, "macs": macs, "activation_bytes": 4 * outputs}


def test_resolution_changes_macs_and_not_params(ofa):
    genes = np.repeat(np.array([ofa.largest.genes]), len(ofa.resolution), axis=0)
    genes[:, int(ofa.columns["resolution"])] = np.arange(len(ofa.resolution))
    cost = ofa.cost(genes)
    assert len(set(cost["params"])) == 1
    assert (np.diff(cost["macs"]) > 0).all()


def test_width_multiplier_scales_every_width():
    one, wide = small(), small(width_multiplier=1.2)
    assert [wide.out_width(s) for s in range(3)] == [32, 48, 96]  # 28.8, 48 and 96 to multiples of 8
    assert [one.out_width(s) for s in range(3)] == [24, 40, 80]
    assert wide.in_width(0, 0) == 24  # 16 × 1.2 = 19.2 would round to 16, which is more than 10 % below
    assert wide.in_width(1, 0) == 32
    assert wide.in_width(1, 1) == 48


@settings(max_examples=200, deadline=None)
@given(st.floats(0.1, 5000))
def test_multiple_of_8_is_near_and_never_far_below(width):
    rounded = multiple_of_8(width)
    assert rounded % 8 == 0
    assert rounded >= 8
    assert rounded >= 0.9 * width
    assert rounded - width <= 8


@pytest.mark.parametrize("resolution", [8, 20, 28, 32])
def test_small_preset_works_at_every_image_size_in_use(resolution):
    space = small(resolution=[resolution], image_size=resolution)
    assert space.size >= 10**6
    assert space.final_size(resolution) == -(-resolution // 4)
    ends = space.cost(space.extremes)
    assert 4 * ends["macs"][0] <= ends["macs"][1], "a budget of a quarter of the largest must be feasible"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"resolution": [2]}, "space.resolution: 2 pixels are less than the strides' product 4"),
        ({"strides": [2, 2, 3]}, "space.strides: 3 is not 1 or 2"),
        ({"stem_stride": 0}, "space.stem_stride: 0 is not 1 or 2"),
        ({"strides": [2, 2]}, "space.strides: 2 values for 3 stages"),
        ({"squeeze_excite": [True]}, "space.squeeze_excite: 1 values for 3 stages"),
        ({"squeeze_excite": [0, 1, 1]}, "space.squeeze_excite: 0 is not true or false"),
        ({"activations": ["relu", "relu", "hardswish"]}, "'hardswish' is not known. Did you mean 'hard_swish'?"),
        ({"activations": ["relu", "relu", 1]}, "space.activations: 1 is not a text. Write it in quotes: '1'."),
        ({"widths": []}, "space.widths: no stages"),
        ({"widths": [24, 0, 80]}, "space.widths: [24, 0, 80] has values that are not positive"),
        ({"kernel": [3, 4]}, "space.kernel: 4 is even"),
        ({"expand": [2, "4"]}, "space.expand: '4' is not a whole number"),
        ({"width_multiplier": 0.0}, "space.width_multiplier: 0.0 is not positive"),
        ({"width_multiplier": float("nan")}, "space.width_multiplier: nan is not finite"),
        ({"stem_width": 0}, "space.stem_width: 0 is less than 1"),
    ],
)
def test_settings_that_cannot_work_say_why(overrides, expected):
    with pytest.raises(UserError) as error:
        small(**overrides)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
