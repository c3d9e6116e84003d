"""The contract of a sampler: paths of the right shape and type, repeated by seed and step, and a state of arrays."""

from typing import Any

import numpy as np

from experiments.contracts import require
from samplers import ROLES, Paths, Sampler, StepFeedback

KEY = "sampler.type"
_STEPS, _EXAMPLES = 3, 8


def check_sampler(sampler: Sampler, steps: int = _STEPS) -> None:
    """Draws and updates for a few steps, with feedback that depends on the genes.

    Args:
        sampler: With its space, seed and plan.
        steps: Number of steps.

    Raises:
        ContractError: The sampler returns another shape or type than all samplers', or draws do not repeat.
    """
    name, state = type(sampler).__name__, sampler.init()
    require(
        isinstance(state, dict) and all(isinstance(value, np.ndarray) for value in state.values()),
        KEY,
        f"{name}.init returns {_shown(state)}, not a dictionary of NumPy arrays, which checkpoints hold.",
    )
    for step in range(steps):
        score = _score if "scores" in sampler.needs else None
        paths = sampler.sample(state, step, score=score)
        check_paths(sampler, paths)
        again = sampler.sample(state, step, score=score)
        same = np.array_equal(paths.genes, again.genes) and np.array_equal(paths.weights, again.weights)
        require(
            same, KEY, f"{name}.sample draws other paths when step {step} is asked again. Draw from self.rng(step)."
        )
        after = sampler.update(state, _feedback(sampler, step, paths))
        require(
            isinstance(after, dict)
            and {k: (np.shape(v), np.asarray(v).dtype) for k, v in after.items()}
            == {k: (v.shape, v.dtype) for k, v in state.items()},
            KEY,
            f"{name}.update returns {_shown(after)}, and init {_shown(state)}. Arrays of a state keep shape and type.",
        )
        state = after


def check_paths(sampler: Sampler, paths: Any) -> None:
    """Checks the paths of one step.

    Raises:
        ContractError: The paths are not paths of the sampler's space.
    """
    name, space = f"{type(sampler).__name__}.sample", sampler.space
    require(isinstance(paths, Paths), KEY, f"{name} returns {_shown(paths)}, not samplers.Paths.")
    genes, weights = np.asarray(paths.genes), np.asarray(paths.weights)
    require(
        genes.ndim == 2 and genes.shape[1] == space.num_genes and np.issubdtype(genes.dtype, np.integer),
        KEY,
        f"{name} returns genes {genes.dtype}{genes.shape}, expected int32(paths, {space.num_genes}). Use the space's "
        "own sample, encode and canonical.",
    )
    require(bool(space.contains(genes).all()), KEY, f"{name} returns genes outside of the space. Draw from its values.")
    require(
        np.array_equal(genes, space.canonical(genes)),
        KEY,
        f"{name} returns genes of layers that are off. Return space.canonical(genes).",
    )
    require(
        1 <= len(genes) <= sampler.paths_per_step,
        KEY,
        f"{name} returns {len(genes)} paths, and paths_per_step is {sampler.paths_per_step}. Correct one of them.",
    )
    require(
        isinstance(paths.roles, tuple) and len(paths.roles) == len(genes) and set(paths.roles) <= set(ROLES),
        KEY,
        f"{name} returns roles {paths.roles!r} of {len(genes)} paths. Give a tuple, each one of {', '.join(ROLES)}.",
    )
    require(
        weights.shape == (len(genes),) and weights.dtype == np.float32 and bool(np.isfinite(weights).all()),
        KEY,
        f"{name} returns weights {weights.dtype}{weights.shape}, expected finite float32({len(genes)},).",
    )


def _score(genes: np.ndarray) -> np.ndarray:
    return 1 + np.cos(genes.sum(axis=1))


def _feedback(sampler: Sampler, step: int, paths: Paths) -> StepFeedback:
    losses, needs = _score(paths.genes), sampler.needs
    rows = np.arange(_EXAMPLES, dtype=np.int64)
    per_example = losses[:, None] * (1 + rows % 3)
    examples = (rows, per_example, per_example / 4) if "examples" in needs else (None, None, None)
    norms = losses[:, None] * (1 + paths.genes) if "gene_norms" in needs else None
    return StepFeedback(step, paths, losses, norms, *examples, None, _score if "scores" in needs else None)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}"
    return type(value).__name__
