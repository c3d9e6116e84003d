"""The ViT family: published sizes of AutoFormer, a count by hand, and its errors."""

import numpy as np
import pytest

from search_spaces import SearchSpace, UserError, ViTSpace, build_space


def nearest(space: SearchSpace, params: float) -> np.ndarray:
    """The genes whose parameter count is nearest to a target: the best of a sample, then greedy single changes."""
    genes = space.sample(np.random.default_rng(0), 2000)
    best = genes[np.abs(space.cost(genes)["params"] - params).argmin()]
    while True:
        around = np.concatenate([best[None], space.neighbours(best)])
        step = int(np.abs(space.cost(around)["params"] - params).argmin())
        if step == 0:
            return best
        best = around[step]


@pytest.mark.parametrize(
    ("preset", "published"),
    [("autoformer_tiny", 5.7e6), ("autoformer_small", 22.9e6), ("autoformer_base", 53.7e6)],
)
def test_autoformer_contains_subnets_of_the_published_sizes(preset, published):
    space = build_space("vit", preset)
    genes = nearest(space, published)
    assert space.contains(genes[None])[0]
    assert abs(int(space.cost(genes[None])["params"][0]) - published) <= 0.005 * published


@pytest.mark.parametrize("class_token", [False, True])
def test_costs_of_one_network_counted_by_hand(class_token):
    space = ViTSpace(
        width=(6,), depth=(2,), heads=(2,), mlp_ratio=(1.5,), head_dim=4, patch_size=2, image_size=4, channels=3,
        classes=5, class_token=class_token,
    )  # fmt: skip
    tokens, inner, hidden = 4 + class_token, 8, 9
    layer = 2 * 6 + 6 * 24 + 24 + 8 * 6 + 6 + 2 * 6 + 6 * 9 + 9 + 9 * 6 + 6
    params = 12 * 6 + 6 + tokens * 6 + class_token * 6 + 2 * layer + 2 * 6 + 6 * 5 + 5
    products = tokens * 6 * 3 * inner + 2 * tokens * tokens * inner + tokens * inner * 6 + 2 * tokens * 6 * hidden
    macs = 4 * 12 * 6 + 2 * products + 6 * 5
    outputs = 4 * 6 + 5 + 2 * (3 * tokens * inner + 2 * tokens * tokens + tokens * inner + tokens * (6 + hidden + 6))
    cost = space.cost(np.array([space.largest.genes]))
    assert {k: int(v[0]) for k, v in cost.items()} == {"params": params, "macs": macs, "activation_bytes": 4 * outputs}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"patch_size": 3}, "space.patch_size: 3 does not divide the image size 8"),
        ({"head_dim": 0}, "space.head_dim: 0 is less than 1"),
        ({"heads": [2.5]}, "space.heads: 2.5 is not a whole number"),
        ({"mlp_ratio": [float("nan")]}, "space.mlp_ratio: nan is not finite"),
        ({"class_token": "yes"}, "space.class_token: 'yes' is not true or false"),
    ],
)
def test_settings_that_cannot_work_say_why(overrides, expected):
    with pytest.raises(UserError) as error:
        build_space("vit", "small", overrides)
    assert expected in str(error.value)
