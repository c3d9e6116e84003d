"""JAX's persistent compilation cache, so that a resumed run does not compile again."""

from pathlib import Path

import jax


def use_compilation_cache(directory: Path) -> None:
    """Keeps compiled programs below `directory`; leaves a cache that the user configured as it is."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
