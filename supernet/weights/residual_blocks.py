"""Residual blocks: a matrix as a sum of blocks of a bit and some more a weight, each of what those before have left.

A block keeps the signs of a residual, a bit each, and its magnitudes as a product of two thin matrices, the truncated
singular value decomposition of the absolute values. Since signs only mirror, the residual that is left is never larger
than the one before, in the Frobenius norm.

References:
    Wang et al., "BitStack: Any-Size Compression of Large Language Models in Variable Memory Environments", 2024,
    arXiv:2410.23918 (iterative absolute value decomposition).
Differs: weights are not scaled by the norms of activations first. The rank follows from the size of the matrix (theirs
is 16), so that the thin matrices of small ones do not outweigh the signs.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float16, UInt8
from scipy.sparse.linalg import ArpackError, svds

_MOST_RANK = 16
_WHOLE = 256  # smallest side of a matrix of which only the largest singular values are sought
_LARGEST = 60000.0  # that float16 holds, with some room


def rank_of(rows: int, columns: int) -> int:
    """Returns the rank of a block's magnitudes.

    Where both sides are 128 or more, its two float16 matrices take at most a quarter of the bytes of the signs. They
    cannot take less than rank 1 does: as much as the signs at 32 by 32, twice as much at 16 by 16.
    """
    return max(1, min(_MOST_RANK, rows * columns // (64 * (rows + columns)), rows, columns))


@dataclass(frozen=True)
class Block:
    """A block: signs times magnitudes of low rank.

    Attributes:
        signs: A bit a weight, row after row, 1 where it is negative; padded to whole bytes.
        left: float16[rows, rank].
        right: float16[rank, columns].
    """

    signs: UInt8[np.ndarray, " s"]
    left: Float16[np.ndarray, "m r"]
    right: Float16[np.ndarray, "r n"]

    @property
    def values(self) -> Float[np.ndarray, "m n"]:
        """Matrix that the block adds, in float32."""
        magnitudes = self.left.astype(np.float32) @ self.right.astype(np.float32)
        negative = np.unpackbits(self.signs, count=magnitudes.size).reshape(magnitudes.shape)
        return np.where(negative, -magnitudes, magnitudes)

    def packed(self) -> UInt8[np.ndarray, " b"]:
        """Returns the block as bytes."""
        return np.concatenate([self.signs, self.left.view(np.uint8).ravel(), self.right.view(np.uint8).ravel()])

    @classmethod
    def unpacked(cls, content: UInt8[np.ndarray, " b"], rows: int, columns: int) -> "Block":
        """Reads what `packed` gives.

        Args:
            content: The bytes.
            rows: Rows of the matrix.
            columns: Its columns.
        """
        rank, signs = rank_of(rows, columns), -(-rows * columns // 8)
        thin = np.frombuffer(content[signs:].tobytes(), "<f2").astype(np.float16)
        return cls(content[:signs], thin[: rows * rank].reshape(rows, rank), thin[rows * rank :].reshape(rank, columns))


def packed_bytes(rows: int, columns: int) -> int:
    """Returns the size of a block in bytes."""
    return -(-rows * columns // 8) + 2 * rank_of(rows, columns) * (rows + columns)


def decomposed(matrix: Float[np.ndarray, "m n"], count: int) -> Iterator[Block]:
    """Yields the first blocks of a matrix, the most important one first.

    Args:
        matrix: Finite numbers.
        count: Number of blocks.
    """
    residual = matrix.astype(np.float64)
    for _ in range(count):
        block = _block(residual)
        yield block
        residual -= block.values


def _block(residual: Float[np.ndarray, "m n"]) -> Block:
    magnitudes = np.abs(residual)
    u, s, v = _largest_singular(magnitudes, rank_of(*residual.shape))
    root = np.sqrt(np.maximum(s, 0))
    thin = (np.clip(part, -_LARGEST, _LARGEST).astype(np.float16) for part in (u * root, root[:, None] * v))
    return Block(np.packbits(residual < 0), *map(np.ascontiguousarray, thin))


def _largest_singular(
    magnitudes: Float[np.ndarray, "m n"], rank: int
) -> tuple[Float[np.ndarray, "m r"], Float[np.ndarray, " r"], Float[np.ndarray, "r n"]]:
    """Returns the largest singular values, in falling order, with their vectors."""
    rows, columns = magnitudes.shape
    if not magnitudes.any():
        return np.zeros((rows, rank)), np.zeros(rank), np.zeros((rank, columns))
    if min(rows, columns) >= _WHOLE:
        start = np.ones(min(rows, columns)) / np.sqrt(min(rows, columns))
        try:
            u, s, v = svds(magnitudes, k=rank, v0=start)
        except ArpackError:  # such as numbers too small for its iteration; the whole decomposition knows no such case
            pass
        else:
            assert u is not None
            assert v is not None
            order = np.argsort(-s)
            return u[:, order], s[order], v[order]
    u, s, v = np.linalg.svd(magnitudes, full_matrices=False)
    return u[:, :rank], s[:rank], v[:rank]
