"""Language models of every form that is imported: all forward passes agree, costs are exact, layers are right."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import LanguageSpace, UserError, build_space
from supernet.engine.supernet import build_supernet
from supernet.export.generate import generate
from supernet.families.language import LanguageSupernet
from supernet.standalone.language import ACTIVATIONS, LanguageModel
from tests.marks import slow_but
from tests.reference.counting import count
from tests.supernet.engine.test_parity import assert_close, assert_gradients_close
from tests.supernet.families import SETTINGS, Family

BIASES = {"qkv_bias": True, "out_bias": True, "mlp_bias": True}
LEARNED = {"positions": "learned", "max_positions": 9, "norm": "layer", "norm_epsilon": 1e-5, **BIASES}
FORMS = {
    "llama": {
        "tied": False, "rope_theta": 500.0, "max_positions": 12, "cache_context": 11, "keep": "equidistant",
        "depth": [2, 3, 4],
    },
    "llama_biases": {**BIASES, "uniform": True, "kv_heads": [1, 3], "head_size": 6},
    "qwen2": {"qkv_bias": True, "keep": "ranked", "layer_order": [2, 0, 1]},
    "qwen3": {"qk_norm": True, "tied": False},
    "gpt2": {**LEARNED, "activation": "gelu_tanh", "queries": [1], "heads_follow_width": True},
    "gpt_neox": {"parallel": True, "rotary": 0.25, "norm": "layer", "activation": "gelu", "tied": False, **BIASES},
    "gpt_neox_sequential": {"rotary": 0.5, "norm": "layer", "activation": "gelu", "tied": False, **BIASES},
    "bert": {
        **LEARNED, "causal": False, "activation": "gelu", "post_norm": True, "token_types": 2, "head_transform": True,
    },
}  # fmt: skip


@cache
def family_of(form: str) -> Family:
    return Family(build_supernet(build_space("language", "small", {**SETTINGS["language"], **FORMS[form]})))


@pytest.fixture(params=slow_but(["llama", "bert"], FORMS))
def family(request: pytest.FixtureRequest) -> Family:
    return family_of(request.param)


def run(module: LanguageModel, tokens: jax.Array) -> jax.Array:
    return jax.jit(lambda x: module(x))(tokens)


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_gelu_is_the_exact_one(dtype: str, within: float) -> None:
    x = jnp.linspace(-6, 6, 241).astype(dtype)
    for change in (lambda f: f, lambda f: jax.vmap(jax.grad(f))):
        found, expected = (
            np.asarray(change(f)(z)) for f, z in ((ACTIVATIONS["gelu"], x), (_exact_gelu, x.astype("float32")))
        )
        np.testing.assert_allclose(found.astype(np.float32), expected, rtol=within, atol=within / 10)


def _exact_gelu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=False)


def module_of(family: Family, genes: np.ndarray) -> LanguageModel:
    module, _ = family.net.extract(family.params, family.space.architecture(genes))
    assert isinstance(module, LanguageModel)
    return module


def test_all_forward_passes_agree(family: Family) -> None:
    narrow = [genes for genes in family.draw(24) if family.space.program(genes) == (16,)]
    assert len(narrow) > 6
    for i, genes in enumerate(narrow):
        logits, gradients = family.switched(genes, (16,))
        expected, expected_gradients = family.masked(genes, (16,))
        assert_close(logits, expected)
        assert_gradients_close(gradients, expected_gradients)
        textbook = family.truth(tuple(genes))
        for found, found_gradients in ((logits, gradients), (expected, expected_gradients)):
            assert_close(found, textbook.logits)
            assert_gradients_close(found_gradients, textbook.gradients)
        if i in (1, 2):  # each is a compilation
            assert_close(run(module_of(family, genes), family.x), expected)
            logits, gradients = family.sliced(genes)
            assert_close(logits, expected)
            assert_gradients_close(gradients, expected_gradients)


def test_costs_are_those_of_the_network(family: Family) -> None:
    space = family.space
    assert isinstance(space, LanguageSpace)
    drawn = family.draw(12)
    costs = space.cost(drawn)
    x = jax.ShapeDtypeStruct((1, space.context), jnp.int32)
    for i, genes in enumerate(drawn):
        module = nnx.eval_shape(lambda genes=genes: family.net.module(space.architecture(genes)))
        graph, state = nnx.split(module)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == costs["params"][i]
        counted = count(lambda state, x, graph=graph: nnx.merge(graph, state)(x), state, x)
        assert counted.macs == costs["macs"][i] * space.context
        assert 4 * counted.outputs == costs["activation_bytes"][i]
        cache = jax.eval_shape(lambda m=module: m.empty_cache(1, space.cached))
        numbers = sum(leaf.size for leaf in jax.tree.leaves(cache))
        assert costs["kv_cache_bytes"][i] == 4 * numbers * space.causal
        assert costs["inference_bytes"][i] == 4 * (costs["params"][i] + numbers * space.causal)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep": "first"}, {1: [0], 2: [0, 1], 4: [0, 1, 2, 3]}),
        ({"keep": "equidistant"}, {1: [0], 2: [0, 3], 4: [0, 1, 2, 3]}),
        ({"keep": "ranked", "layer_order": [3, 0, 2, 1]}, {1: [3], 2: [3, 0], 4: [3, 0, 2, 1]}),
    ],
)
def test_depth_keeps_these_layers_and_runs_them_in_order(settings: dict, kept: dict[int, list[int]]) -> None:
    sizes = {**SETTINGS["language"], "depth": [1, 2, 4]}
    space = build_space("language", "small", {**sizes, **settings})
    assert isinstance(space, LanguageSpace)
    assert {depth: space.layers(depth) for depth in space.depth} == kept
    net = build_supernet(space)
    assert isinstance(net, LanguageSupernet)
    params = net.init(jax.random.key(0))
    scale = params["layers"]["mlp"]["norm"]["scale"]
    params["layers"]["mlp"]["norm"]["scale"] = scale * jnp.arange(4)[:, None]
    for genes in space.sample(np.random.default_rng(0), 20):
        architecture = space.architecture(genes)
        weights = net.slice(params, architecture, {})
        found = [weights["layers"][i]["mlp"]["norm"]["scale"][0] for i in range(len(weights["layers"]))]
        assert found == sorted(kept[architecture.description["depth"]])
        widths = dict(zip(space.layers(len(found)), architecture.description["mlp_width"], strict=True))
        assert net.config(architecture)["mlp_width"] == [widths[layer] for layer in sorted(widths)]


@pytest.mark.parametrize("form", ["llama", "gpt2"])
def test_a_longer_or_shorter_sequence_than_the_context(form: str) -> None:
    family = family_of(form)
    genes = family.draw(3)[2]
    apply = jax.jit(family.net.apply, static_argnames="program")
    for length in (4, 9):
        tokens = jax.random.randint(jax.random.key(5), (2, length), 0, 19)
        logits, _ = apply(family.params, jnp.asarray(genes), tokens, program=family.space.program(genes))
        assert_close(run(module_of(family, genes), tokens), logits)


def test_a_causal_model_does_not_see_what_follows(family: Family) -> None:
    genes = family.draw(3)[2]
    module, changed = module_of(family, genes), family.x.at[:, 4].set((family.x[:, 4] + 1) % 19)
    before, after = np.asarray(run(module, family.x)), np.asarray(run(module, changed))
    same = np.max(np.abs(before - after), axis=-1) < 1e-6
    assert not np.any(same[:, 4])
    assert np.all(same[:, :4]) == family.space.causal  # type: ignore[attr-defined]


CAUSAL = [form for form in FORMS if FORMS[form].get("causal", True)]


@pytest.mark.parametrize("form", slow_but(["llama", "gpt2"], CAUSAL))
def test_cached_logits_are_those_of_the_whole_sequence(form: str) -> None:
    family = family_of(form)
    module = module_of(family, family.draw(3)[2])
    expected = run(module, family.x)
    decode = jax.jit(module.decode)
    logits, kept = decode(family.x[:, :3], module.empty_cache(len(family.x), 7), 0)
    found = [logits]
    for position in range(3, 7):
        logits, kept = decode(family.x[:, position : position + 1], kept, position)
        found.append(logits)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["llama", "gpt2"])
def test_greedy_generation_takes_the_likeliest_token_each_time(form: str) -> None:
    family = family_of(form)
    module = module_of(family, family.draw(3)[2])
    found = generate(module, family.x[:, :3], 4)
    whole = jnp.concatenate([family.x[:, :3], found], axis=1)
    np.testing.assert_array_equal(found, jnp.argmax(run(module, whole), axis=-1)[:, 2:-1])


def test_sampling_follows_the_distribution_at_its_temperature() -> None:
    family = family_of("llama")
    module = module_of(family, family.draw(2)[0])
    prompt = jnp.tile(family.x[:1, :3], (4000, 1))
    drawn = generate(module, prompt, 1, temperature=2.0, key=jax.random.key(0))[:, 0]
    np.testing.assert_array_equal(drawn, generate(module, prompt, 1, temperature=2.0, key=jax.random.key(0))[:, 0])
    expected = jax.nn.softmax(run(module, prompt[:1])[0, -1] / 2)
    shares = np.bincount(drawn, minlength=19) / 4000
    np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / 4000))
    cold = generate(module, prompt[:2], 3, temperature=1e-4, key=jax.random.key(1))
    np.testing.assert_array_equal(cold, generate(module, prompt[:2], 3))


def test_what_cannot_be_generated_says_why() -> None:
    decoder, encoder = (module_of(family_of(form), family_of(form).draw(2)[0]) for form in ("llama", "bert"))
    prompt = jnp.zeros((1, 3), jnp.int32)
    for model, number, keywords, message in [
        (encoder, 1, {}, "encoder"),
        (decoder, 10, {}, "more than the model takes, 12"),
        (decoder, 0, {}, "at least one"),
        (decoder, 1, {"temperature": -1.0}, "at least 0"),
        (decoder, 1, {"temperature": 1.0}, "needs a seed"),
    ]:
        with pytest.raises(UserError, match=message):
            generate(model, prompt, number, **keywords)
