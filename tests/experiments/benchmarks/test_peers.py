"""The PyTorch peers compute what our supernets compute, outputs and gradients; and one that does not is not timed."""

import json
import sys
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.peers import comparison
from experiments.benchmarks.peers.comparison import config_of
from experiments.benchmarks.peers.process import flat
from experiments.benchmarks.stepper import noise
from search_spaces import LanguageSpace, build_space
from supernet.engine.supernet import build_supernet
from tests.marks import slow_but

torch = pytest.importorskip("torch", reason="the peers need PyTorch: pip install 'supernest[bench]'")

SMALL: dict[str, tuple[str, dict[str, Any], int]] = {
    "vit": ("autoformer_tiny", {"image_size": 16, "patch_size": 4, "classes": 5, "depth": [2, 3], "width": [24, 48],
                                "heads": [1, 2], "head_dim": 8}, 4),
    "mobilenet": ("ofa_mbv3", {"width_multiplier": 0.25, "image_size": 32, "resolution": [32], "classes": 5,
                               "depth": [1, 2], "expand": [3, 6], "widths": [24, 40], "strides": [2, 1],
                               "squeeze_excite": [False, True], "activations": ["relu", "hard_swish"]}, 4),
    "language": ("language_step", {"context": 12, "depth": [2, 3]}, 2),
    "translation": ("small", {"vocabulary": 20, "context": 6, "encoder_width": [16, 24], "decoder_width": [24],
                              "encoder_depth": [2], "decoder_depth": [1, 2], "query_size": 16,
                              "encoder_mlp_width": [16, 32], "decoder_mlp_width": [16, 32]}, 3),
}  # fmt: skip


@pytest.fixture(params=slow_but(["vit"], sorted(SMALL)))
def family(request, monkeypatch) -> str:
    monkeypatch.setattr(comparison, "SETTINGS", SMALL)
    monkeypatch.setattr(comparison, "_GEMM", 256)
    return request.param


def test_logits_and_gradients_are_ours(family):
    preset, settings, batch = SMALL[family]
    net = build_supernet(build_space(family, preset, settings))
    params, data = net.init(jax.random.key(1)), noise(net.space, batch)
    extra = {"frequencies": net.space.frequencies} if isinstance(net.space, LanguageSpace) else {}
    peer = import_module(f"experiments.benchmarks.peers.{family}").Peer({**flat(params), **extra})
    inputs = peer.prepare(data["x"])

    def loss(params: Any, row: jax.Array, program: Any) -> tuple[jax.Array, jax.Array]:
        logits, _ = net.apply(params, row, jnp.asarray(data["x"]), program=program)
        return jnp.sum(logits**2), logits

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=2)
    for row in net.space.sample(np.random.default_rng(0), 4):
        (_, expected), grads = gradient(params, jnp.asarray(row), net.space.program(row))
        logits = peer(inputs, config_of(net, net.space.architecture(row)))
        np.testing.assert_allclose(logits.detach().numpy(), expected, atol=1e-4 * np.abs(expected).max())
        logits.square().sum().backward()
        ours = float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grads))) ** 0.5
        theirs = sum(float(leaf.grad.square().sum()) for leaf in peer.parameters if leaf.grad is not None) ** 0.5
        assert theirs == pytest.approx(ours, rel=1e-3)
        for leaf in peer.parameters:
            leaf.grad = None


def test_both_are_stepped_and_evaluated_in_turn(family):
    figures = comparison.compare(family, 3, 2, 0, family, sys.executable)
    assert figures["largest_difference"] < 1e-4
    assert figures["ratio"] == pytest.approx(figures["peer_ms"] / figures["ours_ms"])
    assert figures["evaluation_ratio"] > 0
    assert 0 < figures["gemm_share"] < 1
    json.dumps(figures)


def test_a_peer_of_another_function_is_not_timed(monkeypatch):
    monkeypatch.setattr(comparison, "SETTINGS", SMALL)
    monkeypatch.setattr(comparison, "_TOLERANCE", 0.0)
    with pytest.raises(SystemExit, match="nothing was timed"):
        comparison.compare("vit", 3, 1, 0, "vit", sys.executable)


def test_language_step_alone_needs_no_peer(monkeypatch):
    monkeypatch.setattr(comparison, "SETTINGS", SMALL)
    monkeypatch.setattr(comparison, "_GEMM", 256)
    figures = comparison.compare("language", 3, 1, 0, None, "no such interpreter")
    assert {"steps_per_s", "programs_compiled", "compile_seconds"} <= figures.keys()
    assert figures["device"]["model"]
    assert "ratio" not in figures
