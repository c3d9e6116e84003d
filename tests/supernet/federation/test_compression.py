"""Convolutional compression and dilation: a delta is a slice, the two are adjoint, and every shape is the network's."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from search_spaces import ViTSpace, build_space
from supernet.engine.supernet import build_supernet
from supernet.federation.compression import Filters, compressed, dilated, fresh_filters, sliced
from supernet.federation.shapes import FlatWeights, WeightShapes, flattened, is_compressible, nested, weight_shapes

SPACE = ViTSpace(
    (12, 16), (2, 3), (1, 2), (1.0, 2.0), head_dim=4, patch_size=2, image_size=4, channels=1, classes=3,
)  # fmt: skip
SERVER = replace(SPACE, width=(16,), depth=(3,), heads=(2,), mlp_ratio=(2.0,))
CLIENT = replace(SPACE, width=(12,), depth=(2,), heads=(1,), mlp_ratio=(1.0,))
SHAPES = weight_shapes(SERVER, CLIENT)
MATRIX = WeightShapes((6, 5), (4, 2), layered=False)


@pytest.fixture(scope="module")
def server() -> FlatWeights:
    """Random weights of the server's network."""
    shapes = flattened(build_supernet(SERVER).plain_shapes)
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {path: jax.random.normal(k, shape.shape) for k, (path, shape) in zip(keys, shapes.items(), strict=True)}


@pytest.fixture(scope="module")
def filters() -> Filters:
    """Random filters, mixtures among them."""
    fresh = fresh_filters(SHAPES)
    leaves, structure = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        structure, [leaf + 0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    )


def test_shapes_are_those_of_both_networks() -> None:
    for space, side in ((SERVER, "server"), (CLIENT, "client")):
        expected = {path: leaf.shape for path, leaf in flattened(build_supernet(space).plain_shapes).items()}
        assert {path: getattr(of, side) for path, of in SHAPES.items()} == expected
    qkv = SHAPES["layers/attention/qkv/kernel"]
    assert (qkv.server, qkv.client, qkv.taps, qkv.kernel, qkv.filters) == (
        (3, 16, 3, 8),
        (2, 12, 3, 4),
        (2,),
        (5, 5),
        6,
    )
    head = SHAPES["head/kernel"]
    assert (head.server, head.client, head.kernel, head.filters) == ((16, 3), (12, 3), (5, 1), 1)
    assert not SHAPES["head/bias"].smaller
    only_shallower = weight_shapes(SERVER, replace(SERVER, depth=(2,)))
    assert not any(of.smaller for of in only_shallower.values())
    assert only_shallower["layers/fc1/kernel"].client == (2, 16, 32)


@pytest.mark.parametrize("family", ["vit", "mobilenet"])
def test_networks_of_one_stack_without_batch_statistics_are_compressed(family: str) -> None:
    given = {"image_size": 8, "patch_size": 2} if family == "vit" else {}
    assert is_compressible(build_space(family, "small", given)) == (family == "vit")


def test_a_fresh_filter_is_the_slice_of_the_supernet_to_the_bit(server: FlatWeights) -> None:
    delta = compressed(SHAPES, fresh_filters(SHAPES), server)
    slices = sliced(SHAPES, server)
    for path, of in SHAPES.items():
        assert delta[path].shape == of.client
        np.testing.assert_array_equal(delta[path], slices[path], err_msg=path)
    # The slice is the subnet that the supernet has for this size.
    x = jax.random.normal(jax.random.key(2), (3, 4, 4, 1))
    net, alone = build_supernet(SPACE), build_supernet(CLIENT)
    architecture = SPACE.encode(CLIENT.largest.description)
    expected = net.apply_sliced(nested(server), architecture, x)
    np.testing.assert_allclose(alone.apply_sliced(nested(delta), CLIENT.largest, x), expected, atol=1e-5)


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("column", [0, 3])
def test_a_delta_elsewhere_is_the_slice_that_begins_there(row: int, column: int) -> None:
    weight = jax.random.normal(jax.random.key(0), (6, 5))
    (fresh,) = fresh_filters({"w": MATRIX}).values()
    moved = {**fresh, "kernel": jnp.zeros((1, 3, 4)).at[0, row, column].set(5.0)}  # of any length: it is normalised
    found = compressed({"w": MATRIX}, {"w": moved}, {"w": weight})["w"]
    np.testing.assert_array_equal(found, weight[row : row + 4, column : column + 2])
    back = dilated({"w": MATRIX}, {"w": moved}, {"w": found})["w"]
    expected = np.zeros((6, 5), np.float32)
    expected[row : row + 4, column : column + 2] = found
    np.testing.assert_array_equal(back, expected)


def test_a_filter_is_its_direction_times_the_gain() -> None:
    weight = jax.random.normal(jax.random.key(0), (6, 5))
    kernel = jax.random.normal(jax.random.key(1), (1, 3, 4))
    found = compressed({"w": MATRIX}, {"w": {"kernel": kernel, "gain": jnp.full((1, 1, 1), 2.0)}}, {"w": weight})["w"]
    unit = 2 * np.asarray(kernel[0], np.float64) / np.linalg.norm(kernel[0])
    expected = [[np.sum(unit * weight[i : i + 3, j : j + 4]) for j in range(2)] for i in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_dilation_is_the_transpose_of_compression(server: FlatWeights, filters: Filters) -> None:
    """<compressed(w), u> = <w, dilated(u)> for every weight, and so mixtures are transposed too."""
    client = {path: jax.random.normal(jax.random.key(i), of.client) for i, (path, of) in enumerate(SHAPES.items())}
    small, large = compressed(SHAPES, filters, server), dilated(SHAPES, filters, client)
    for path, of in SHAPES.items():
        deep = server[path][: of.layers] if of.layered else server[path]
        assert large[path].shape == deep.shape
        one, other = np.vdot(small[path], client[path]), np.vdot(deep, large[path])
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3, err_msg=path)


def test_projections_of_a_layer_are_mixed_and_those_of_another_are_not() -> None:
    of = WeightShapes((2, 4, 3), (2, 3, 3), layered=True, taps=(2,))
    (fresh,) = fresh_filters({"w": of}).values()
    swap = {**fresh, "mixture": fresh["mixture"].at[0, 1, 2].set(2.0)}  # in layer 0, projection 1 gets twice the third
    weight = jax.random.normal(jax.random.key(0), (2, 4, 3))
    found = compressed({"w": of}, {"w": swap}, {"w": weight})["w"]
    expected = np.asarray(weight[:, :3]).copy()
    expected[0, :, 1] += 2 * expected[0, :, 2]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_leaky_function_is_the_published_one() -> None:
    weight = jnp.array([[1.0, -1.0, 9.0]])
    of = WeightShapes((1, 3), (1, 2), layered=False)
    found = compressed({"w": of}, fresh_filters({"w": of}), {"w": weight}, "leaky")["w"]
    np.testing.assert_allclose(found, [[0.85, -0.001]])
