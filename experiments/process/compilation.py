"""Compilation: JAX's persistent cache, so that a resumed run does not compile again, and filling of free memory."""

import warnings
from pathlib import Path

import jax

from experiments.process.freed_memory import fill_holes

_COMPILED = "/jax/core/compile/backend_compile_duration"
_OFTEN = 1.0  # seconds of compilation from one time that holes are filled to the next

_since = 0.0
_tidies = False


def use_compilation_cache(directory: Path) -> None:
    """Keeps compiled programs below `directory`; leaves a cache that the user configured as it is."""
    tidy_after_compilation()
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        # Without an entry a program is compiled again; what else a full disk prevents is told where it matters.
        warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")


def tidy_after_compilation() -> None:
    """Has the holes that compilation leaves in kept memory filled from now on (`fill_holes`)."""
    global _tidies
    if not _tidies:
        jax.monitoring.register_event_duration_secs_listener(_tidy)
        _tidies = True


def _tidy(event: str, duration_secs: float, **_: str | int) -> None:
    global _since
    if event == _COMPILED:
        _since += duration_secs
        if _since >= _OFTEN:
            _since = 0.0
            fill_holes()
