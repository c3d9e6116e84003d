"""Networks of small spaces as they would be loaded from an export, and what their supernet computes."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from supernet.export.subnet import Subnet
from supernet.tasks.classes import CLASSES
from supernet.tasks.images import Preprocessing
from supernet.tasks.labelled_text import TextTokens
from supernet.tasks.pairs import Pairs
from supernet.tasks.tokens import OUTPUTS, Tokens
from tests.supernet.families import Family


def subnet_of(family: Family, genes: np.ndarray) -> Subnet:
    """A network of a small space, as it would be loaded from an export; pictures are resized for it."""
    architecture = family.space.architecture(genes)
    module, weights = family.net.extract(family.params, architecture, family.moments)
    task, example = family.space.tasks()[0], family.net.example(architecture)
    config: dict[str, Any] = {"family": family.space.family, "task": "images", "labels": ["a"], "outputs": {}}
    config["module"] = family.net.config(architecture)
    if task == "pairs":
        before = Pairs(getattr(family.space, "vocabulary"), example.shape[1], 0, 1, "")  # noqa: B009
        config |= {"input": {"shape": [*example.shape]}, "preprocessing": before.as_dict(), "task": "pairs"}
        return Subnet(config, {}, module, weights, before, OUTPUTS)
    if example.dtype == np.int32:
        of, outputs = {"tokens": (Tokens, OUTPUTS), "labelled_text": (TextTokens, CLASSES)}[task]
        before = of(getattr(family.space, "vocabulary"), example.shape[0])  # noqa: B009
        config |= {"input": {"shape": [example.shape[0]]}, "preprocessing": before.as_dict(), "task": task}
        return Subnet(config, {}, module, weights, before, outputs)
    channels = example.shape[-1]
    before = Preprocessing(example.shape[:2], (0.4,) * channels, (0.3,) * channels)
    config |= {"input": {"shape": [9, 9, channels]}, "preprocessing": before.as_dict()}
    return Subnet(config, {}, module, weights, before, CLASSES)


@cache
def supernet_of(family: Family) -> Any:
    """The supernet's pass, compiled once for all networks of a program."""
    return jax.jit(
        lambda genes, x, statistics, program: family.net.apply(
            family.params, genes, x, program=program, statistics=statistics
        )[0],
        static_argnames="program",
    )


def expected_of(family: Family, genes: np.ndarray, subnet: Subnet, examples: np.ndarray) -> np.ndarray:
    x = subnet.preprocessing(jnp.asarray(examples))
    program = family.space.program(genes)
    return np.asarray(supernet_of(family)(jnp.asarray(genes), x, family.moments, program=program))


def examples_of(subnet: Subnet, count: int) -> np.ndarray:
    generator = np.random.default_rng(5)
    if isinstance(subnet.preprocessing, Pairs):
        return generator.integers(0, subnet.preprocessing.vocabulary, (count, 2, 5)).astype(np.int32)
    if isinstance(subnet.preprocessing, Tokens):
        return generator.integers(0, subnet.preprocessing.vocabulary, (count, 5)).astype(np.int32)
    return generator.integers(0, 256, (count, *subnet.config["input"]["shape"]), dtype=np.uint8)
