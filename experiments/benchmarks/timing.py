"""Timing that survives a noisy machine: alternate what is compared, and take medians."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jax

from experiments.process.compilation import tidy_after_compilation
from experiments.process.freed_memory import keep_freed_memory


def memory_as_in_runs(family: str) -> None:
    """Has the C library keep and tidy memory as the command line does; call it before JAX computes anything."""
    keep_freed_memory(family)
    tidy_after_compilation()


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds until the result of `call` is ready."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def alternate(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Median seconds of each call, measured in turn; one round before does not count."""
    taken = [[seconds(call) for call in calls] for _ in range(rounds + 1)][1:]
    return [median(column) for column in zip(*taken, strict=True)]


def compile_seconds(function: Any, *arguments: Any, **static: Any) -> tuple[float, Any]:
    """Seconds to trace and compile, and the compiled program. Honest only after `without_cache`."""
    start = time.perf_counter()
    compiled = function.lower(*arguments, **static).compile()
    return time.perf_counter() - start, compiled


def without_cache() -> None:
    """Compiles everything anew in this process, whatever cache the environment configures."""
    jax.config.update("jax_enable_compilation_cache", False)


def peak_bytes(compiled: Any) -> int:
    """The compiler's own figure for a program's memory: arguments, results and temporaries, aliases once."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
