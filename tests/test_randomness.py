"""Random streams: two purposes never share one, and no code draws past the one place that makes them."""

import ast
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from search_spaces.randomness import Purpose, entropy, stream
from supernet.engine.randomness import key
from tests.test_imports import ALLOWED, REPOSITORY

SOURCES = sorted(path for package in ALLOWED for path in (REPOSITORY / package).rglob("*.py"))
FIRST_PATHS = [353, 608, 208, 566]
HERE = ("search_spaces/randomness.py", "supernet/engine/randomness.py")
SHAPES_ONLY = ("experiments/storage/checkpoint_arrays.py",)  # asks how large a key is
NUMBERS = ((), (0,), (0, 0), (1,), (0, 1), (1, 0), (2,), (2, 0, 0), (2**32,), (12,), (1, 2))
"""What may follow a purpose; to NumPy's seeds several of them are the same."""


def makes_randomness(name: str) -> bool:
    """Whether a call starts a random stream, or draws from a global one."""
    first, last = name.split(".")[0], name.split(".")[-1]
    made = last in {"default_rng", "SeedSequence", "RandomState", "PRNGKey", "wrap_key_data", "spawn"}
    of_numpy = name.startswith(("np.random.", "numpy.random."))
    return made or of_numpy or name == "jax.random.key" or first == "random"


def offences(name: str, source: str) -> list[str]:
    """Calls in a file that make randomness where they must not."""
    path = Path(name)
    found = []
    for node in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        called = ast.unparse(node.func)
        if not makes_randomness(called) or name in (*HERE, *SHAPES_ONLY):
            continue
        # A benchmark's draws belong to no run, and two builds that are compared need the same.
        whole = node.args and not isinstance(node.args[0], ast.List | ast.Tuple | ast.BinOp)
        if (
            path.parts[:2] == ("experiments", "benchmarks")
            and whole
            and called.endswith(("default_rng", "random.key", "Random"))
        ):
            continue
        found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    return found


def test_no_code_makes_randomness_but_the_one_place() -> None:
    found = [
        offence
        for path in SOURCES
        for offence in offences(path.relative_to(REPOSITORY).as_posix(), path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "np.random.default_rng([seed, 2])", "np.random.default_rng(0)", "default_rng(seed)", "np.random.normal(3)",
        "np.random.SeedSequence(seed)", "jax.random.key(seed)", "jax.random.PRNGKey(0)", "random.random()",
        "rng.spawn(2)",
    ],
)  # fmt: skip
def test_randomness_made_elsewhere_is_found(line: str) -> None:
    assert offences("samplers/other.py", f"def f():\n    return {line}\n")
    assert not offences(HERE[0], line)


def test_a_benchmark_may_draw_from_a_number_but_not_from_a_list() -> None:
    assert not offences("experiments/benchmarks/other.py", "np.random.default_rng(0)")
    assert offences("experiments/benchmarks/other.py", "np.random.default_rng([seed, 1])")
    assert offences("experiments/benchmarks/other.py", "np.random.default_rng(seed + 1)")


def test_every_purpose_is_used_and_none_is_made_up() -> None:
    used = set()
    for path in SOURCES:
        if path.relative_to(REPOSITORY).as_posix() in HERE:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Purpose":
                used.add(node.attr)
    assert used == set(Purpose.__members__)


def test_two_purposes_never_share_a_stream() -> None:
    """All pairs of purposes, with whatever numbers follow them: other entropy, other draws, other keys."""
    streams = list(itertools.product(Purpose, NUMBERS))
    assert len({entropy(7, purpose, *numbers) for purpose, numbers in streams}) == len(streams)
    drawn = {purpose: stream(7, purpose).integers(2**63, size=4).tobytes() for purpose in Purpose}
    keys = {purpose: np.asarray(jax.random.key_data(key(7, purpose))).tobytes() for purpose in Purpose}
    for one, other in itertools.combinations(Purpose, 2):
        assert drawn[one] != drawn[other], (one, other)
        assert keys[one] != keys[other], (one, other)


def test_numbers_and_seeds_tell_streams_of_one_purpose_apart() -> None:
    """Unlike NumPy's lists, which are filled up with zeros and cut into words of 32 bits."""
    np.testing.assert_array_equal(
        np.random.default_rng([7, 2]).integers(2**63, size=4),
        np.random.default_rng([7, 2, 0, 0]).integers(2**63, size=4),
    )
    seeds = (0, 1, 7, 12, 2**32, 2**32 + 1)
    drawn = {
        (seed, numbers): stream(seed, Purpose.PATHS, *numbers).integers(2**63, size=4).tobytes()
        for seed in seeds
        for numbers in NUMBERS
    }
    assert len(set(drawn.values())) == len(drawn)
    keys = {
        np.asarray(jax.random.key_data(key(seed, Purpose.PATHS, *numbers))).tobytes()
        for seed in seeds
        for numbers in NUMBERS
    }
    assert len(keys) == len(drawn)


def test_streams_are_the_same_in_every_run_and_of_whatever_type_numbers_are() -> None:
    assert stream(3, Purpose.PATHS, 5).integers(1000, size=4).tolist() == FIRST_PATHS
    same = stream(np.int64(3), Purpose.PATHS, np.int32(5)).integers(1000, size=4)
    assert same.tolist() == FIRST_PATHS
