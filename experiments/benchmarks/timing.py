"""Timing on a noisy machine: compared calls alternate, and medians count."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import jax

from experiments.process.compilation import tidy_after_compilation
from experiments.process.freed_memory import keep_freed_memory


def memory_as_in_runs(family: str) -> None:
    """Sets the C library's memory settings as the command line does; call it before JAX computes anything."""
    keep_freed_memory(family)
    tidy_after_compilation()


def seconds(call: Callable[[], Any]) -> float:
    """Measures the wall-clock seconds until the result of `call` is ready."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def alternate(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Measures the median seconds of each call in turn, after one round that does not count."""
    taken = [[seconds(call) for call in calls] for _ in range(rounds + 1)][1:]
    return [median(column) for column in zip(*taken, strict=True)]


def compile_seconds(function: Any, *arguments: Any, **static: Any) -> tuple[float, Any]:
    """Returns the seconds to trace and compile, and the compiled program. Call `without_cache` first."""
    start = time.perf_counter()
    compiled = function.lower(*arguments, **static).compile()
    return time.perf_counter() - start, compiled


def without_cache() -> None:
    """Turns the compilation cache off in this process, even if the environment configures one."""
    jax.config.update("jax_enable_compilation_cache", False)


def peak_bytes(compiled: Any) -> int:
    """Returns the compiler's figure for the memory of a program: arguments, results and temporaries, aliases once."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )
