"""Residual blocks: what each adds, what is left, and how they are packed."""

from itertools import pairwise

import numpy as np
import pytest

from supernet.weights import residual_blocks
from supernet.weights.residual_blocks import Block, decomposed, packed_bytes, rank_of

SHAPES = [(2, 128), (16, 16), (33, 70), (300, 260)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_block_makes_the_residual_smaller(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    left, norms = matrix.astype(np.float64), [np.linalg.norm(matrix)]
    for block in decomposed(matrix, 6):
        left = left - block.values
        norms.append(np.linalg.norm(left))
    # Without signs, normal numbers are within 0.6 of their own norm of a constant (1 - 2 / pi under a root).
    assert norms[1] < 0.61 * norms[0]
    assert all(after < before for before, after in pairwise(norms))


def test_magnitudes_of_the_rank_are_exact_with_their_signs() -> None:
    rng = np.random.default_rng(1)
    outer = rng.uniform(0.5, 1, (40, 1)) * rng.uniform(0.5, 1, (1, 30))
    matrix = (np.where(rng.random((40, 30)) < 0.5, -1, 1) * outer).astype(np.float32)
    (block,) = decomposed(matrix, 1)
    np.testing.assert_allclose(block.values, matrix, rtol=0, atol=2e-3)  # two factors of float16


@pytest.mark.parametrize("shape", SHAPES)
def test_packing_keeps_every_bit(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    (block,) = decomposed(matrix, 1)
    content = block.packed()
    assert content.nbytes == packed_bytes(*shape)
    again = Block.unpacked(content, *shape)
    np.testing.assert_array_equal(again.values, block.values)
    np.testing.assert_array_equal(block.values < 0, (matrix < 0) & (block.values != 0))


def test_a_block_has_little_more_than_a_bit_a_weight_where_both_sides_are_large() -> None:
    assert rank_of(4096, 4096) == 16
    assert 8 * packed_bytes(4096, 4096) / 4096**2 == pytest.approx(1.125)
    for shape in ((128, 128), (128, 4000), (300, 260), (2000, 999)):
        assert 8 * packed_bytes(*shape) / np.prod(shape) <= 1.25
    assert {side: 8 * packed_bytes(side, side) / side**2 for side in (16, 32, 64)} == {16: 3.0, 32: 2.0, 64: 1.5}


@pytest.mark.parametrize("shape", [(20, 30), (256, 300)])
def test_zeros_stay_zeros(shape: tuple[int, int]) -> None:
    for block in decomposed(np.zeros(shape, np.float32), 2):
        np.testing.assert_array_equal(block.values, 0)


def test_where_the_iteration_fails_the_whole_decomposition_steps_in(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(3).normal(size=(300, 260)).astype(np.float32)
    (expected,) = decomposed(matrix, 1)

    def fails(*_: object, **__: object) -> None:
        raise residual_blocks.ArpackError(-9)

    monkeypatch.setattr(residual_blocks, "svds", fails)
    (block,) = decomposed(matrix, 1)
    assert block.left.shape == expected.left.shape
    # Singular vectors are known up to a sign of both; the product of two factors of float16 is the same.
    np.testing.assert_allclose(block.values, expected.values, rtol=0, atol=1e-2)
