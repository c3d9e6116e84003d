"""Every family: switched, masked, statically sliced and extracted are one network, with the same gradients.

Switched and masked are compared on 200 architectures, the others on fewer: `SUPERNEST_PARITY=all` has all of them.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from search_spaces import Architecture, build_space
from supernet.engine.supernet import SUPERNETS, Params, Statistics, build_supernet
from supernet.export.subnet import compiled
from supernet.layers.resolution import resize
from tests.marks import COMPLETE, OF_THEIR_OWN, sampled, slow_but
from tests.reference.counting import count
from tests.supernet.families import Family, small

ARCHITECTURES = 200
# Of the usual run, fewer, chosen so that they hold as many pairs of values of two choices as so few can.
UNROLLED = ARCHITECTURES if COMPLETE else 10  # for passes that run op by op, each with programs for its own shapes
TRACED = ARCHITECTURES if COMPLETE else 20  # for modules that are traced anew for each
OUTSIDE = 40 if COMPLETE else 10  # for gradients outside of a subnet, where `kept` runs op by op
TOLERANCE = 1e-4  # of a network in fp32, relative to the size of what is compared


QUICK = [name for name in SUPERNETS if name != "mobilenet" and not name.endswith("_ensemble")]


@pytest.fixture(params=slow_but(QUICK, sampled(SUPERNETS, OF_THEIR_OWN)))
def family(request: pytest.FixtureRequest) -> Family:
    return small(request.param)


@pytest.fixture
def library_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    """Depthwise products as the library's convolution, which a count recognises."""

    def convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int = 1) -> jax.Array:
        side = kernel.shape[0] // 2 * dilation
        return jax.lax.conv_general_dilated(
            x, kernel[:, :, None], (stride, stride), [(side, side)] * 2, rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=x.shape[-1],
        )  # fmt: skip

    for place in ("standalone.mobilenet", "standalone.darts", "families.bottleneck"):
        monkeypatch.setattr(f"supernet.{place}.depthwise", convolve)
    monkeypatch.setattr("supernet.standalone.darts.dilated_depthwise", partial(convolve, dilation=2))


def assert_close(a: Any, b: Any) -> None:
    a, b = np.asarray(a), np.asarray(b)
    np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * np.abs(b).max())


def assert_gradients_close(a: Any, b: Any) -> None:
    """To 1e-4 of each leaf's largest entry. A leaf whose gradient is 0 but for rounding (a bias before a batch norm)
    may differ by rounding errors, about ten units in the last place of the largest gradients in the sum."""
    a, b = (jax.tree.map(np.asarray, tree) for tree in (a, b))  # JAX's own functions take longer for so few numbers
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(b))
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        bound = TOLERANCE * np.abs(other).max() + 10 * np.finfo(np.float32).eps * largest
        np.testing.assert_allclose(leaf, other, rtol=0, atol=bound, err_msg=jax.tree_util.keystr(path))


def kept(params: Params, family: Family, architecture: Architecture, statistics: Statistics) -> jax.Array:
    """Sum of the weights of the extracted network: its gradient is 1 for what the network uses."""
    leaves = jax.tree.leaves(family.net.slice(params, architecture, statistics))
    return jnp.stack([jnp.sum(leaf) for leaf in leaves]).sum()


def test_switched_equals_masked_with_gradients(family: Family) -> None:
    for genes in family.draw(ARCHITECTURES):
        program = family.space.program(genes)
        logits, gradients = family.switched(genes, program)
        expected, expected_gradients = family.masked(genes, program)
        assert_close(logits, expected)
        assert_gradients_close(gradients, expected_gradients)


def test_weights_outside_the_subnet_have_no_gradient(family: Family) -> None:
    for genes in family.covering(OUTSIDE):
        program, architecture = family.space.program(genes), family.space.architecture(genes)
        used = jax.grad(kept)(family.params, family, architecture, family.moments or {})
        for gradients in (family.switched(genes, program)[1], family.masked(genes, program)[1]):
            for (path, leaf), inside in zip(
                jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(used), strict=True
            ):
                assert not np.any(np.asarray(leaf)[np.asarray(inside) == 0]), jax.tree_util.keystr(path)
                assert np.any(np.asarray(leaf)) == np.any(np.asarray(inside)), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_sliced_and_extracted_equal_switched(family: Family) -> None:
    for genes in family.covering(UNROLLED):
        program, architecture = family.space.program(genes), family.space.architecture(genes)
        trained, _ = family.switched(genes, program)
        statistics, logits = family.calibrated(genes, program)
        assert_close(family.net.apply_sliced(family.params, architecture, family.x), trained)
        assert_close(family.net.apply_sliced(family.params, architecture, family.x, statistics), logits)
        assert_close(logits, trained)  # the statistics are those of this very batch
        module, _ = family.net.extract(family.params, architecture, statistics)
        assert_close(module(family.input(architecture)), logits)


@pytest.mark.slow
def test_gradients_of_static_slices_equal_switched(family: Family) -> None:
    for genes in family.covering(4):
        logits, gradients = family.switched(genes, family.space.program(genes))
        expected, expected_gradients = family.sliced(genes)
        assert_close(logits, expected)
        assert_gradients_close(gradients, expected_gradients)


def test_extracted_networks_cost_what_the_model_says(family: Family, library_convolution: None) -> None:
    drawn = family.covering(TRACED)
    costs = family.space.cost(drawn)
    for i, genes in enumerate(drawn):
        architecture = family.space.architecture(genes)
        module = nnx.eval_shape(lambda architecture=architecture: family.net.module(architecture))
        graph, state = nnx.split(module)
        weights = jax.tree.leaves(nnx.to_pure_dict(nnx.state(module, nnx.Param)))
        assert sum(leaf.size for leaf in weights) == costs["params"][i]

        example = family.net.example(architecture)
        x = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
        counted = count(lambda state, x, graph=graph: nnx.merge(graph, state)(x), state, x)
        assert counted.macs == costs["macs"][i] * family.positions
        assert 4 * counted.outputs == costs["activation_bytes"][i]


def test_extracted_weights_have_the_shapes_of_the_module(family: Family) -> None:
    for genes in family.covering(8):
        architecture = family.space.architecture(genes)
        module, weights = family.net.extract(family.params, architecture, family.moments)
        fresh = nnx.to_pure_dict(nnx.state(family.net.module(architecture)))
        shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
        assert shapes(weights) == shapes(fresh) == shapes(nnx.to_pure_dict(nnx.state(module)))


def test_the_derived_network_is_the_one_written_by_hand(family: Family) -> None:
    genes = family.draw(3)[2]
    architecture = family.space.architecture(genes)
    statistics, _ = family.calibrated(genes, family.space.program(genes))
    written, weights = family.net.extract(family.params, architecture, statistics)
    derived = nnx.eval_shape(lambda: family.net.derived(architecture, nnx.Rngs(0)))  # type: ignore[attr-defined]
    assert jax.tree.map(jnp.shape, weights) == jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(derived)))
    nnx.update(derived, weights)
    x = family.input(architecture)
    assert_close(compiled(derived)(x), compiled(written)(x))


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [8, 28])
def test_preset_small(image_size: int) -> None:
    settings = {"image_size": image_size}
    if image_size == 8:
        settings |= {"resolution": [6, 8], "strides": [1, 2, 1]}
    family = Family(build_supernet(build_space("mobilenet", "small", settings)))
    for genes in family.draw(4):
        program, architecture = family.space.program(genes), family.space.architecture(genes)
        statistics, logits = family.calibrated(genes, program)
        module, _ = family.net.extract(family.params, architecture, statistics)
        assert_close(module(resize(family.x, int(program[0]))), logits)
        assert_close(family.net.apply_masked(family.params, jnp.asarray(genes), family.x, program=program), logits)
