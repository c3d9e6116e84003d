"""The language family: a count by hand, grouped queries, and its errors."""

import numpy as np
import pytest

from search_spaces import LanguageSpace, UserError, build_space

SIZES = {"width": (6,), "depth": (2,), "mlp_width": (9,), "vocabulary": 11, "context": 5, "head_size": 4}


def costs(**settings) -> dict[str, int]:
    space = LanguageSpace(**{**SIZES, **settings})
    return {name: int(value[0]) for name, value in space.cost(np.array([space.largest.genes])).items()}


def test_costs_of_a_decoder_counted_by_hand():
    # 2 key-value heads of size 4, 3 queries each: queries 24 wide, keys and values 8.
    layer = 6 + 6 * 24 + 2 * 6 * 8 + 24 * 6 + 6 + 3 * 6 * 9
    params = 11 * 6 + 2 * layer + 6
    products = 6 * (24 + 2 * 8) + 24 * 6 + 2 * 5 * 24 + 3 * 6 * 9
    outputs = 24 + 2 * 8 + 6 * 5 + 24 + 6 + 2 * 9 + 6
    assert costs(kv_heads=(2,), queries=(3,)) == {
        "params": params, "macs": 2 * products + 6 * 11, "activation_bytes": 4 * 5 * (2 * outputs + 11),
        "kv_cache_bytes": 4 * 2 * 2 * 8 * 5, "inference_bytes": 4 * (params + 2 * 2 * 8 * 5),
    }  # fmt: skip


def test_costs_of_an_encoder_counted_by_hand():
    found = costs(
        kv_heads=(2,), causal=False, positions="learned", max_positions=7, norm="layer", post_norm=True,
        activation="gelu", qkv_bias=True, out_bias=True, mlp_bias=True, token_types=2, head_transform=True,
    )  # fmt: skip
    layer = 4 * (6 * 8) + 3 * 8 + 6 + 12 + 6 * 9 + 9 + 9 * 6 + 6 + 12
    params = (11 + 7 + 2) * 6 + 12 + 2 * layer + 6 * 6 + 6 + 12 + 11
    assert (found["params"], found["kv_cache_bytes"]) == (params, 0)
    assert found["macs"] == 2 * (4 * 6 * 8 + 2 * 5 * 8 + 2 * 6 * 9) + 6 * 6 + 6 * 11


def test_fewer_groups_need_less_cache_and_fewer_queries_do_not():
    full, groups, queries = (costs(kv_heads=(g,), queries=(q,)) for g, q in ((2, 3), (1, 3), (2, 1)))
    assert 2 * groups["kv_cache_bytes"] == full["kv_cache_bytes"] == queries["kv_cache_bytes"]
    assert max(groups["macs"], queries["macs"]) < full["macs"]


def test_a_cache_is_counted_for_its_own_context():
    sizes = {"kv_heads": (2,), "max_positions": 20}
    usual, longer = costs(**sizes), costs(**sizes, cache_context=20)
    cache = 4 * 2 * 2 * 8 * 20
    assert longer == {**usual, "kv_cache_bytes": cache, "inference_bytes": 4 * usual["params"] + cache}
    assert costs(**sizes, causal=False, cache_context=20) == costs(**sizes, causal=False)
    for tokens in (0, 21):
        with pytest.raises(UserError, match=rf"space.cache_context: {tokens} is not in 1..20"):
            costs(**sizes, cache_context=tokens)


def test_what_is_not_set_leaves_fingerprints_as_they_were():
    space = build_space("language", "small")
    assert space.fingerprint == "431e0052f4a2063da1bff2e374eaaedd780caf63e1b16276702af460d63dc1ab"
    assert build_space("language", "small", {"cache_context": 128}).fingerprint != space.fingerprint


def test_uniform_layers_have_one_gene_a_choice():
    space = build_space("language", "language_step")
    assert space.num_genes == 5
    assert space.size == 3**4
    assert space.largest.description == {"width": 256, "depth": 8, "kv_heads": 8, "queries": 1, "mlp_width": 1024}


def test_heads_that_follow_the_width_are_no_choice_of_their_own():
    sizes = {"width": [8, 16], "kv_heads": [1, 2], "head_size": 8, "depth": [1, 3]}
    free, following = (build_space("language", "small", {**sizes, "heads_follow_width": f}) for f in (False, True))
    assert "kv_heads" not in following.largest.description
    assert following.size == 2 * (3 + 3**3)  # widths, and three MLP widths a layer
    for genes in following.sample(np.random.default_rng(0), 20):
        description = following.architecture(genes).description
        heads = [{8: 1, 16: 2}[description["width"]]] * description["depth"]
        same = free.encode({**description, "kv_heads": heads})
        for metric, value in free.cost(np.array([same.genes])).items():
            assert following.cost(genes[None])[metric] == value


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"positions": "rotary"}, "space.positions: 'rotary' is not known. Known: learned, rope."),
        ({"norm": "layr"}, "space.norm: 'layr' is not known. Did you mean 'layer'?"),
        ({"activation": "relu"}, "space.activation: 'relu' is not known."),
        ({"keep": "last"}, "space.keep: 'last' is not known."),
        ({"keep": "ranked"}, "space.layer_order: [] does not hold each of [0, 1, 2, 3, 4, 5] once"),
        ({"layer_order": [0, 1, 2, 3, 4, 5]}, "space.layer_order: [0, 1, 2, 3, 4, 5] does not hold each of [] once"),
        ({"rotary": 0.0}, "space.rotary: 0.0 is not in 0..1"),
        ({"head_size": 3}, "space.rotary: 3 of head_size 3 would rotate"),
        ({"max_positions": 64}, "space.context: 128 is longer than max_positions 64"),
        ({"rope_theta": 0.0}, "space.rope_theta: 0.0 is not positive"),
        ({"token_types": -1}, "space.token_types: -1 is negative"),
        ({"parallel": True, "post_norm": True}, "space.parallel: not together with post_norm"),
        ({"kv_heads": [0, 1]}, "space.kv_heads: [0, 1] has values that are not positive"),
        ({"heads_follow_width": True, "kv_heads": [2, 4]}, "space.kv_heads: [2, 4] are not as many as the widths"),
    ],
)
def test_settings_that_cannot_work_say_why(overrides, expected):
    with pytest.raises(UserError) as error:
        build_space("language", "small", overrides)
    assert expected in str(error.value)
