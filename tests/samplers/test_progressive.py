"""Progressive shrinking: stages, what each opens, how long each lasts, and uniform draws from what is open."""

import numpy as np
import pytest
from scipy.stats import chisquare

from samplers import SAMPLERS, Plan
from samplers.progressive import ProgressiveSampler
from search_spaces import UserError, ViTSpace, build_space

OFA_EPOCHS = (180, 125, 25, 125, 25, 125)
OFA_PLAN = Plan(steps=sum(OFA_EPOCHS), examples=1, batch_size=1)  # a step stands for an epoch


@pytest.fixture(scope="module")
def ofa():
    return build_space("mobilenet", "ofa_mbv3")


@pytest.fixture(scope="module")
def vit():
    return build_space("vit", "small")


def opened(sampler, stage: int) -> dict[str, tuple]:
    """Choice to its open values; all genes of a choice must agree."""
    found = {}
    for choice in sampler.space.choices:
        low = set(sampler.lowest[stage][sampler.space.columns[choice.name].reshape(-1)].tolist())
        assert len(low) == 1
        found[choice.name] = choice.values[low.pop() :]
    return found


def test_the_stages_on_ofas_space_are_ofas(ofa):
    sampler = ProgressiveSampler(ofa, 0, OFA_PLAN)
    assert sampler.stages == ("largest", "kernel", "depth", "depth", "expand", "expand")
    assert sampler.paths_of_stages == (1, 1, 2, 2, 4, 4)
    assert sampler.paths_per_step == 4
    every = (128, 160, 192, 224)
    wanted = [
        {"resolution": every, "kernel": (7,), "depth": (4,), "expand": (6,)},
        {"resolution": every, "kernel": (3, 5, 7), "depth": (4,), "expand": (6,)},
        {"resolution": every, "kernel": (3, 5, 7), "depth": (3, 4), "expand": (6,)},
        {"resolution": every, "kernel": (3, 5, 7), "depth": (2, 3, 4), "expand": (6,)},
        {"resolution": every, "kernel": (3, 5, 7), "depth": (2, 3, 4), "expand": (4, 6)},
        {"resolution": every, "kernel": (3, 5, 7), "depth": (2, 3, 4), "expand": (3, 4, 6)},
    ]
    assert [opened(sampler, stage) for stage in range(6)] == wanted


def test_stages_begin_and_end_where_the_plan_says(ofa):
    sampler = ProgressiveSampler(ofa, 0, OFA_PLAN)
    assert [sampler.stage(step) for step in range(605)] == np.repeat(np.arange(6), OFA_EPOCHS).tolist()
    assert [len(sampler.sample({}, step).genes) for step in (0, 179, 180, 304, 305, 454, 455, 604)] == [
        *(1, 1, 1, 1, 2, 2, 4, 4)
    ]
    halves = ProgressiveSampler(ofa, 0, Plan(100, 1, 1), gradual=(), shares=(0.0, 1.0, 1.0, 2.0))
    assert halves.stages == ("largest", "kernel", "depth", "expand")
    assert [halves.stage(step) for step in range(100)] == [1] * 25 + [2] * 25 + [3] * 50


def test_the_stages_of_another_space(vit):
    sampler = ProgressiveSampler(vit, 0, Plan(80, 1, 1))
    assert sampler.stages == ("largest", "heads", "depth", "depth", "depth", "mlp_ratio", "width", "width")
    assert sampler.paths_of_stages == (1, 1, 2, 2, 2, 4, 4, 4)
    assert sampler.starts.tolist() == list(range(0, 80, 10))
    assert tuple(sampler.sample({}, 9).genes[0]) == vit.largest.genes
    assert opened(sampler, 3) == {"width": (64,), "depth": (4, 5, 6), "heads": (2, 3, 4), "mlp_ratio": (3.0,)}
    assert (sampler.lowest[-1] == 0).all()


def test_a_choice_of_one_value_has_no_stage():
    space = ViTSpace((32,), (2, 3), (1, 2), (1.0,))
    sampler = ProgressiveSampler(space, 0, Plan(9, 1, 1))
    assert sampler.stages == ("largest", "heads", "depth")
    assert (sampler.lowest[-1] == 0).all()


def test_order_and_gradual_as_given(vit):
    sampler = ProgressiveSampler(vit, 0, Plan(80, 1, 1), order=("width", "heads"), gradual=("heads",), paths=3)
    assert sampler.stages == ("largest", "width", "heads", "heads")
    assert sampler.paths_of_stages == (3, 3, 3, 3)
    assert opened(sampler, 0) == {"width": (64,), "depth": (3, 4, 5, 6), "heads": (4,), "mlp_ratio": (1.0, 2.0, 3.0)}
    assert opened(sampler, 1)["width"] == (32, 48, 64)
    assert opened(sampler, 2)["heads"] == (3, 4)


@pytest.mark.parametrize("stage", range(8))
def test_draws_are_uniform_over_what_is_open(vit, stage):
    shares = tuple(float(s == stage) for s in range(8))
    sampler = ProgressiveSampler(vit, stage, Plan(500, 1, 1), shares=shares, paths=200)
    genes = np.concatenate([sampler.sample({}, step).genes for step in range(500)])
    assert len(genes) == 100_000
    active = vit.active(genes)
    for gene, (low, end) in enumerate(zip(sampler.lowest[stage], vit.cardinalities, strict=True)):
        drawn = genes[active[:, gene], gene]
        assert drawn.min() == low
        counts = np.bincount(drawn - low, minlength=end - low)
        # 14 genes in 8 stages: 1e-5 each keeps the chance of one false alarm below 1 %.
        assert len(counts) == 1 or chisquare(counts).pvalue > 1e-5
    # Two genes at once, for independence.
    first, second = 2, 3
    table = np.zeros((3, 3))
    np.add.at(table, (genes[:, first], genes[:, second]), 1)
    table = table[sampler.lowest[stage][first] :, sampler.lowest[stage][second] :].reshape(-1)
    assert table.sum() == 100_000
    assert len(table) == 1 or chisquare(table).pvalue > 1e-5


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"order": ("kernell",)}, r"sampler\.order: 'kernell' is no choice\. Did you mean 'kernel'"),
        ({"order": ("depth", "kernel", "depth")}, r"holds a choice twice\. Give \['depth', 'kernel'\]\."),
        ({"gradual": ("resolution",)}, r"sampler\.gradual: 'resolution' is not in the order of choices\. "),
        ({"shares": (1.0,) * 4}, r"sampler\.shares: 4 values for 6 stages \(largest, kernel, .*\)\. Give 6\."),
        ({"shares": (0.0,) * 6}, r"nothing that is positive\. Give equal shares, \[1, 1, 1, 1, 1, 1\]"),
        ({"shares": (1.0, -1.0, 1.0, 1.0, 1.0, 1.0)}, r"sampler\.shares: .* has a negative value"),
        ({"paths": (1, 2)}, r"sampler\.paths: 2 values for 6 stages"),
        ({"paths": 0}, r"sampler\.paths: 0 is less than 1"),
        ({"paths": (1, 1, 1, 0, 1, 1)}, r"sampler\.paths: 0 is less than 1"),
        ({"plan": Plan(5, 1, 1)}, r"sampler: 6 stages do not fit into 5 training steps\. Train for 6 or more"),
        ({"plan": None}, r"Give it a plan"),
    ],
)
def test_settings_that_cannot_work(ofa, settings, text):
    with pytest.raises(UserError, match=text):
        SAMPLERS["progressive"](ofa, 0, **{"plan": OFA_PLAN, **settings})
