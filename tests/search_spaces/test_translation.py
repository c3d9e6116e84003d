"""The translation space: HAT's published networks, what choices cost, and what is refused."""

import numpy as np
import pytest
import yaml

from search_spaces import TranslationSpace, UserError, build_space

SIZES = {
    "encoder_width": (16,), "decoder_width": (16,), "encoder_depth": (2,), "decoder_depth": (1, 2),
    "encoder_mlp_width": (32,), "encoder_heads": (2,), "decoder_mlp_width": (32,), "decoder_heads": (2,),
    "cross_heads": (2,), "memories": (1, 2), "query_size": 16, "vocabulary": 20, "length": 12, "context": 6,
}  # fmt: skip


def test_the_published_network_of_208_ms_has_its_49_4_million_parameters_without_embeddings():
    space = build_space("translation", "hat_wmt")
    assert isinstance(space, TranslationSpace)
    published = {
        "encoder_width": 512, "decoder_width": 512, "encoder_depth": 6, "decoder_depth": 5,
        "encoder_mlp_width": [3072] * 6, "encoder_heads": [8, 4, 8, 8, 8, 4],
        "decoder_mlp_width": [2048, 2048, 3072, 3072, 3072], "decoder_heads": [8, 8, 8, 4, 8],
        "cross_heads": [4, 8, 8, 8, 8], "memories": [1, 2, 2, 2, 1],
    }  # fmt: skip
    genes = np.array([space.encode(published).genes], np.int32)
    found = int(space.cost(genes)["params"][0])
    assert found - 512 * space.vocabulary == pytest.approx(49.4e6, rel=0.005)


@pytest.mark.parametrize("preset", ["hat_wmt", "hat_iwslt"])
def test_presets_have_the_published_choices(preset):
    space = build_space("translation", preset)
    per_layer, networks = 2 * 3, 0
    for depth in range(1, 7):
        networks += (3 * 2 * 2 * 3) ** depth
    assert space.size == 2 * 2 * per_layer**6 * networks


@pytest.mark.parametrize("vocabulary", [300, 8000, 32000])
def test_the_smallest_network_meets_the_budgets_of_the_template(vocabulary):
    space = build_space("translation", "small", {"vocabulary": vocabulary})
    budgets = yaml.safe_load(space.template.budgets)
    smallest, largest = space.cost(space.extremes)["macs"]
    for limits in budgets.values():
        assert smallest <= float(limits["macs"].rstrip("%")) / 100 * largest


def test_heads_change_neither_parameters_nor_multiply_adds_and_memories_only_the_latter():
    space = build_space("translation", None, {**SIZES, "decoder_heads": (2, 4), "cross_heads": (2, 4)})

    def costs(**changed):
        description = {**space.largest.description, **changed}
        genes = np.array([space.encode(description).genes], np.int32)
        return {name: int(values[0]) for name, values in space.cost(genes).items()}

    largest, few, last = costs(), costs(decoder_heads=[2, 2], cross_heads=[2, 2]), costs(memories=[1, 1])
    assert (few["params"], few["macs"]) == (largest["params"], largest["macs"])
    assert few["activation_bytes"] < largest["activation_bytes"]
    assert last["params"] == largest["params"]
    assert last["macs"] < largest["macs"]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"cross_heads": (2, 3)}, "space.cross_heads: 3 heads do not share out query_size 16. Give divisors"),
        ({"memories": (1, 4)}, "space.memories: 4 outputs to attend to, and an encoder_depth of 2 has 3, embeddings"),
        ({"context": 13}, "space.context: 13 is longer than sentences may be, 12."),
        ({"pad": 20}, "space.pad: 20 is none of the 20 tokens, 0 to 19."),
        ({"query_size": 0}, "space.query_size: 0 is less than 1."),
        ({"decoder_width": (0, 16)}, r"space.decoder_width: \[0, 16\] has values that are not positive."),
    ],
)
def test_what_cannot_be_is_refused(changed, text):
    with pytest.raises(UserError, match=text):
        build_space("translation", None, {**SIZES, **changed})
