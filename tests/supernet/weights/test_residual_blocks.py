"""Residual blocks: what each adds, what is left, and how they are packed."""

from itertools import pairwise

import numpy as np
import pytest

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


def test_a_block_has_little_more_than_a_bit_a_weight() -> None:
    assert rank_of(4096, 4096) == 16
    assert 8 * packed_bytes(4096, 4096) / 4096**2 == pytest.approx(1.125)
    assert rank_of(32, 32) == 1


def test_zeros_stay_zeros() -> None:
    for block in decomposed(np.zeros((20, 30), np.float32), 2):
        np.testing.assert_array_equal(block.values, 0)
