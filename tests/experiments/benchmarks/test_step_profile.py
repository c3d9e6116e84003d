"""The profile of a step: instructions get their kinds from a real program, and time is divided, not counted twice."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.profile import Evaluation, Event, Training, divided, events, instructions, measure
from search_spaces import build_space


@jax.named_scope("normalisation")
def _normalised(x: jax.Array) -> jax.Array:
    return x - jnp.mean(x, axis=-1, keepdims=True)


def _work(x: jax.Array) -> jax.Array:
    return jnp.tanh(_normalised(x @ x))


def test_a_traced_program_falls_into_kinds(tmp_path: Path) -> None:
    x = jnp.ones((600, 600))
    program = jax.jit(_work).lower(x).compile()
    known = instructions(program.as_text() or "")
    assert {"gemm", "normalisation"} <= {one.kind for one in known.values()}
    program(x).block_until_ready()
    with jax.profiler.trace(tmp_path):
        program(x).block_until_ready()
    shared = divided(events(tmp_path, known))
    assert {"gemm", "normalisation"} <= shared.keys()
    assert all(value > 0 for value in shared.values())


def test_time_with_several_instructions_is_divided_among_them() -> None:
    found = divided(iter([Event(0, 10, "gemm"), Event(4, 6, "copies"), Event(20, 25, "copies")]))
    assert found == pytest.approx({"gemm": 9, "copies": 6})


@pytest.mark.parametrize("work", [Training, Evaluation])
def test_the_work_of_a_space_is_measured_and_its_time_is_shared_out(work: type[Training | Evaluation]) -> None:
    space = build_space("vit", "small", {"width": [16], "depth": [1, 2], "heads": [1], "head_dim": 8})
    figures = measure(work(space, 2), space.sample(np.random.default_rng(0), 1))
    assert figures["ms"] > 0
    assert sum(figures["shares"].values()) == pytest.approx(1, abs=0.01)
    assert {"gemm", "normalisation", "attention"} <= figures["shares"].keys()
    assert ("optimiser" in figures["shares"]) == (work is Training)
