"""Sharing `mixture`: encodings and mixtures against the paper's formulas, and what its contract does not say."""

import itertools
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from search_spaces import UserError, build_space
from supernet.engine.supernet import Supernet, build_supernet
from supernet.engine.superposed import one_hot
from supernet.sharing.mixture import ArchitectureEncoding, Mixture, MixtureSettings
from supernet.training.evaluation import Evaluator
from tests.supernet.engine.test_parity import assert_close, assert_gradients_close
from tests.supernet.families import SETTINGS, Family

LAYER = MixtureSettings(router_width=8)
NEURON = MixtureSettings(experts=3, router="neuron", encoding="genes", router_width=8)
SPACE: Any = build_space("language", "small", SETTINGS["language"] | {"width": [16], "depth": [1, 2], "mlp_bias": True})
HAT: Any = build_space("translation", "hat_wmt")


def supernet(settings: MixtureSettings) -> Supernet:
    return build_supernet(SPACE, Mixture(SPACE, settings))


@cache
def made(settings: MixtureSettings) -> Family:
    return Family(supernet(settings))


@cache
def encoding(space: Any, kind: Any) -> Any:
    return jax.jit(ArchitectureEncoding(space, kind).__call__)


def encoded(space: Any, kind: Any, genes: np.ndarray) -> np.ndarray:
    return np.asarray(encoding(space, kind)(one_hot(space, genes)))


def test_means_are_the_paper_s_ten_numbers_in_its_space() -> None:
    for genes in HAT.sample(np.random.default_rng(0), 10):
        d = HAT.architecture(genes).description
        expected = {
            "encoder_width": d["encoder_width"] / 640, "decoder_width": d["decoder_width"] / 640,
            "encoder_depth": d["encoder_depth"] / 6, "decoder_depth": d["decoder_depth"] / 6,
            "encoder_mlp_width": np.mean(d["encoder_mlp_width"]) / 2048,
            "encoder_heads": np.mean(d["encoder_heads"]) / 6,
            "decoder_mlp_width": np.mean(d["decoder_mlp_width"]) / 2048,
            "decoder_heads": np.mean(d["decoder_heads"]) / 6, "cross_heads": np.mean(d["cross_heads"]) / 6,
            "memories": np.mean(d["memories"]) / 2,
        }  # fmt: skip
        names = [choice.name for choice in HAT.choices]
        np.testing.assert_allclose(encoded(HAT, "means", genes), [expected[name] for name in names], rtol=1e-6)


def test_all_genes_are_scaled_from_their_smallest_value_and_zero_in_layers_that_are_off() -> None:
    genes = np.array(HAT.largest.genes)
    assert ArchitectureEncoding(HAT, "genes").features == 40
    single = HAT.column("encoder_depth")
    expected = np.ones(40)
    expected[single] = 0  # it has one value
    np.testing.assert_array_equal(encoded(HAT, "genes", genes), expected)
    genes[HAT.column("encoder_mlp_width", 0, 2)] = 1
    assert encoded(HAT, "genes", genes)[HAT.column("encoder_mlp_width", 0, 2)] == 0.5
    genes[HAT.column("decoder_depth")] = 1
    off = HAT.columns["decoder_heads"][2:]
    assert not encoded(HAT, "genes", genes)[off].any()
    canonical = HAT.canonical(genes[None])[0]
    assert (canonical != genes).any()
    for kind in ("means", "genes"):
        np.testing.assert_array_equal(encoded(HAT, kind, genes), encoded(HAT, kind, canonical))


@pytest.mark.parametrize(
    "settings",
    [MixtureSettings(experts=1), MixtureSettings(3, start="equal"), MixtureSettings(2, "neuron", start="equal")],
)
def test_one_expert_and_equal_experts_are_plain_sharing_exactly(settings: MixtureSettings) -> None:
    plain = build_supernet(SPACE)
    params: Any = jax.jit(plain.init)(jax.random.key(0))
    net = supernet(settings)
    own = jax.jit(net.shared)(params, jax.random.key(1))
    effective = jax.jit(net.sharing.effective)
    for genes in SPACE.extremes:
        jax.tree.map(np.testing.assert_array_equal, effective(own, jnp.asarray(genes)), params)


@pytest.mark.parametrize("family", ["encoder", "language", "translation", "vit", "vit_ensemble"])
def test_every_feed_forward_matrix_has_experts(family: str) -> None:
    space = build_space(family, "small", SETTINGS.get(family, {}))
    matrices = {path for path in Mixture(space).changed if path.endswith("kernel")}
    assert matrices
    assert len(matrices) == 2 * len({path.rsplit("/", 2)[0] for path in matrices}) + (family == "language")


def by_formula(case: Family, genes: np.ndarray, matrix: str, layer: int) -> tuple[np.ndarray, np.ndarray]:
    """The shares of the experts [n, m], and the kernel, by the formulas of the paper."""
    sharing: Any = case.net.sharing
    settings, of_layers = sharing.settings, case.params["layers"]["mlp"]
    router = of_layers["routers"]["mlp" if settings.router == "layer" else matrix]
    first, last = (
        {n: np.asarray(leaf[layer], np.float64) for n, leaf in router[of].items()} for of in ("first", "last")
    )
    hidden = np.maximum(first["kernel"].T @ encoded(SPACE, settings.encoding, genes) + first["bias"], 0)
    logits = (last["kernel"].T @ hidden + last["bias"]).reshape(-1, settings.experts)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    experts = np.asarray(of_layers[matrix]["kernel"][layer], np.float64)
    rows = np.broadcast_to(shares, (experts.shape[-1], settings.experts))
    # diag(R_i) acts on the output neurons, which are the columns of a kernel here.
    kernel = np.sum([experts[i] @ np.diag(rows[:, i]) for i in range(settings.experts)], axis=0)
    return rows, kernel


@pytest.mark.parametrize("settings", [LAYER, NEURON])
def test_effective_weights_are_the_mixture_of_the_formula(settings: MixtureSettings) -> None:
    case = made(settings)
    effective = jax.jit(case.net.sharing.effective)
    for genes in case.draw(4):
        whole: Any = effective(case.params, jnp.asarray(genes))
        for layer, matrix in itertools.product((0, 1), ("gate", "up", "down")):
            shares, kernel = by_formula(case, genes, matrix, layer)
            np.testing.assert_allclose(whole["layers"]["mlp"][matrix]["kernel"][layer], kernel, rtol=1e-5, atol=1e-6)
            biases = np.asarray(case.params["layers"]["mlp"][matrix]["bias"][layer])
            bias = (biases.T * shares).sum(axis=1)
            np.testing.assert_allclose(whole["layers"]["mlp"][matrix]["bias"][layer], bias, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)


def test_shares_of_neurons_are_those_of_a_router_cut_to_the_network() -> None:
    """The last layer's first `m n` outputs, row by row, are the shares of `n` neurons."""
    case = made(NEURON)
    genes = np.array(SPACE.smallest.genes)
    rows, _ = by_formula(case, genes, "up", 0)
    router = case.params["layers"]["mlp"]["routers"]["up"]
    n, m = 16, NEURON.experts
    hidden = jax.nn.relu(encoded(SPACE, "genes", genes) @ router["first"]["kernel"][0] + router["first"]["bias"][0])
    cut = hidden @ router["last"]["kernel"][0, :, : m * n] + router["last"]["bias"][0, : m * n]
    np.testing.assert_allclose(jax.nn.softmax(cut.reshape(n, m), axis=-1), rows[:n], rtol=1e-5)


def test_passes_are_one_network_with_shares_of_neurons() -> None:
    case = made(NEURON)
    net: Any = case.net
    for i, genes in enumerate(case.draw(3)):
        program, architecture = SPACE.program(genes), SPACE.architecture(genes)
        logits, gradients = case.switched(genes, program)
        masked, masked_gradients = case.masked(genes, program)
        assert_close(masked, logits)
        assert_gradients_close(masked_gradients, gradients)
        module, _ = net.extract(case.params, architecture)
        error = np.abs(np.asarray(module(case.x)) - np.asarray(logits)).max() / np.abs(np.asarray(logits)).max()
        assert error <= 1e-5
        if i == 2:
            assert_close(case.sliced(genes)[0], logits)


@pytest.mark.parametrize("settings", [LAYER, NEURON])
def test_gradients_of_routers_and_of_experts_are_those_of_finite_differences(settings: MixtureSettings) -> None:
    case = made(settings)
    genes, sharing = jnp.asarray(case.draw(3)[2]), case.net.sharing
    with jax.enable_x64(True):
        params: Any = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), case.params)
        mlp = params["layers"]["mlp"]

        @jax.jit
        def smooth(changed: Any) -> jax.Array:
            own = {**params, "layers": {**params["layers"], "mlp": {**mlp, **changed}}}
            leaves = jax.tree.leaves(sharing.effective(own, genes)["layers"]["mlp"])
            return sum((jnp.sum(jnp.sin(3 * leaf)) for leaf in leaves), jnp.zeros(()))

        for part in ("routers", "up", "down"):
            assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(jax.grad(smooth)({part: mlp[part]})))
            check_grads(smooth, ({part: mlp[part]},), order=1, modes=["rev"], rtol=1e-5)


def test_effective_weights_are_computed_once_for_each_network_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    net, traced = supernet(LAYER), []
    effective = net.sharing.effective
    monkeypatch.setattr(net.sharing, "effective", lambda *given: traced.append(None) or effective(*given))
    rng = np.random.default_rng(0)
    x, labels = (rng.integers(0, SPACE.vocabulary, (12, 7)).astype(np.int32) for _ in range(2))
    scores = Evaluator(net, x, labels, 4, x[None, :4])(made(LAYER).params, SPACE.extremes)
    assert len(traced) == 1  # within the loop over networks, outside that over batches
    for genes, loss in zip(SPACE.extremes, scores.loss, strict=True):
        module: Any = net.extract(made(LAYER).params, SPACE.architecture(genes))[0]
        logits = jax.nn.log_softmax(module(jnp.asarray(x)))
        expected = -np.take_along_axis(np.asarray(logits), labels[..., None], axis=-1).mean()
        assert loss == pytest.approx(expected, rel=1e-5)


def test_independent_experts_hold_the_entries_of_the_plain_weight_in_other_orders() -> None:
    net = supernet(MixtureSettings(3))
    params: Any = net.init(jax.random.key(0))
    experts = np.asarray(params["layers"]["mlp"]["up"]["kernel"])
    assert experts.shape == (2, 3, 16, 32)
    assert net.stacked == "layers"
    ordered = np.sort(experts.reshape(2, 3, -1), axis=-1)
    np.testing.assert_array_equal(ordered[:, 1:], ordered[:, :1].repeat(2, axis=1))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(experts[0, i].ravel(), experts[0, j].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("settings", [{"experts": 0}, {"experts": 65}, {"router_width": 0}])
def test_settings_out_of_range_are_refused(settings: Any) -> None:
    (name,) = settings
    with pytest.raises(UserError, match=rf"^supernet\.mixture\.{name}: {settings[name]} is out of range\. Give 1 to "):
        MixtureSettings(**settings)
