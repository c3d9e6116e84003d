"""Every pass of every family against the textbook pass of `tests/reference`: logits, gradients and costs."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from search_spaces import Architecture, build_space
from supernet.engine.superposed import build_superposed, one_hot
from supernet.export.subnet import ARCHITECTURE, CONFIG, WEIGHTS, flatten, read_subnet
from supernet.tasks.images import Preprocessing
from supernet.tasks.tokens import Tokens
from tests.marks import COMPLETE
from tests.reference import Truth, counted, reference
from tests.supernet.engine.test_parity import ARCHITECTURES, assert_close, assert_gradients_close
from tests.supernet.families import SETTINGS, Family

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit", {}),
    "vit_class_token": ("vit", {"class_token": True}),
    "mobilenet": ("mobilenet", {}),
    "language": ("language", {}),
    "translation": ("translation", {}),
    "translation_post_norm": (
        "translation",
        {
            "post_norm": True,
            "shared_embeddings": False,
            "encoder_width": [16, 24],
            "decoder_width": [16],
            "encoder_depth": [1, 2],
            "memories": [1],
        },
    ),
    "encoder": ("encoder", {}),
    "nas_bench_201": ("nas_bench_201", {}),
    "darts": ("darts", {}),
}
"""Family and further settings of each small space."""
SLOW = {"mobilenet"}  # a program for each shape of a convolution
FORM_ARCHITECTURES = 6  # of a space with further settings
SAMPLED = 10  # architectures of a family: the reference runs op by op, anew for each
SAMPLED_OF = {"mobilenet": 5, "nas_bench_201": 5, "darts": 5}  # of one whose reference is slow
UNROLLED = {"mobilenet": 2, "nas_bench_201": 2, "darts": 2}  # of 3 architectures for passes that are traced anew


class Compared(Family):
    """Small family with every pass that it has, and the architectures that are compared."""

    def __init__(self, name: str) -> None:
        family, settings = CASES[name]
        space = build_space(family, "small", {**SETTINGS[family], **settings})
        super().__init__(build_superposed(space))
        sampled = ARCHITECTURES if COMPLETE else SAMPLED_OF.get(family, SAMPLED)
        self.drawn = (
            self.draw(sampled) if COMPLETE else self.covering(min(FORM_ARCHITECTURES, sampled) if settings else sampled)
        )
        self.unrolled = self.drawn if COMPLETE else self.drawn[: UNROLLED.get(family, 3)]


@cache
def compared(name: str) -> Compared:
    return Compared(name)


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CASES])
def case(request: pytest.FixtureRequest) -> Compared:
    return compared(request.param)


def assert_equal(found: Any, expected: Truth) -> None:
    logits, gradients = found
    assert_close(logits, expected.logits)
    assert_gradients_close(gradients, expected.gradients)


def test_switched_and_masked_equal_the_reference_with_gradients(case: Compared) -> None:
    for genes in case.drawn:
        program, expected = case.space.program(genes), case.truth(tuple(genes))
        assert_equal(case.switched(genes, program), expected)
        assert_equal(case.masked(genes, program), expected)


def test_superposed_at_one_hot_equals_the_reference_with_gradients(case: Compared) -> None:
    net: Any = case.net
    run = jax.jit(lambda relaxed: case.with_gradients(lambda params: net.apply_superposed(params, relaxed, case.x)))
    for genes in case.drawn:
        assert_equal(run(one_hot(case.space, genes)), case.truth(tuple(genes)))


@pytest.mark.slow
def test_sliced_equals_the_reference_with_gradients(case: Compared) -> None:
    for genes in case.unrolled:
        architecture = case.space.architecture(genes)
        found = case.with_gradients(lambda params, a=architecture: case.net.apply_sliced(params, a, case.x))
        assert_equal(found, case.truth(tuple(genes)))


@pytest.mark.slow
def test_extracted_and_reloaded_equal_the_reference(case: Compared, tmp_path: Path) -> None:
    for genes in case.unrolled:
        architecture, expected = case.space.architecture(genes), case.truth(tuple(genes), constant_statistics=True)
        statistics, _ = case.calibrated(genes, case.space.program(genes))  # those of this very batch
        module, weights = case.net.extract(case.params, architecture, statistics)
        x = case.input(architecture)

        def extracted(
            params: Any, a: Any = architecture, s: Any = statistics, module: Any = module, x: Any = x
        ) -> jax.Array:
            graph, state = nnx.split(module)
            nnx.replace_by_pure_dict(state, case.net.slice(params, a, s or {}))
            return nnx.merge(graph, state)(x)

        assert_close(module(x), expected.logits)
        assert_equal(case.with_gradients(extracted), expected)

        reloaded = written_and_read(case, architecture, weights, tmp_path)
        assert_close(reloaded.module(x), expected.logits)
        read = flatten(reloaded.weights)
        for name, leaf in flatten(weights).items():
            np.testing.assert_array_equal(leaf, read[name], err_msg=name)


def written_and_read(case: Compared, architecture: Any, weights: Any, directory: Path) -> Any:
    """Returns the network as `load_subnet` reads it from the files of an export that decide what it computes."""
    tokens = case.net.example(architecture).dtype == np.int32
    inputs = Tokens(19, 7) if tokens else Preprocessing((8, 8), (0.0,), (1.0,))
    config = {
        "family": case.space.family, "module": case.net.config(architecture), "task": inputs.task,
        "input": {"dtype": inputs.dtype}, "preprocessing": inputs.as_dict(),
    }  # fmt: skip
    (directory / CONFIG).write_text(json.dumps(config), "utf-8")
    (directory / ARCHITECTURE).write_text(json.dumps({"architecture": architecture.description}), "utf-8")
    save_file({name: np.ascontiguousarray(leaf) for name, leaf in flatten(weights).items()}, directory / WEIGHTS)
    return read_subnet(directory)


def test_costs_are_those_of_the_reference(case: Compared) -> None:
    drawn = case.drawn
    costs = case.space.cost(drawn)
    example = case.net.example(case.space.largest)
    x = jax.ShapeDtypeStruct((1, *example.shape), example.dtype)
    for i, genes in enumerate(drawn):
        description = dict(case.space.architecture(genes).description)
        found = counted(reference(case.space.family), case.net.shapes, x, description, case.space)
        expected = {name: costs[name][i] for name in found}
        assert found == {**expected, "macs": expected["macs"] * case.positions}


def test_a_gradient_outside_the_cut_would_be_seen(case: Compared) -> None:
    """The reference's gradients are exactly 0 for what the smallest subnet lacks, and not 0 for what it has."""
    space, weights = case.space, getattr(case.net, "weights")  # noqa: B009

    def owned(architecture: Architecture) -> set[str]:
        paths = [*space.network.outside_layers.weights]
        for stack, _, values in space.active_layers(architecture):
            there = [sublayer for sublayer in stack.sublayers if sublayer.on(values)]
            paths += [weights.path(stack, sublayer, path) for sublayer in there for path in sublayer.weights]
        return {path.replace("/", ".") for path in paths}

    smallest, largest = (flatten(case.truth(one.genes).gradients) for one in (space.smallest, space.largest))
    inside = {path: np.count_nonzero(leaf) for path, leaf in smallest.items()}
    assert sum(inside.values()) < sum(leaf.size for leaf in largest.values()) / 2
    assert {path for path, count in inside.items() if count} == owned(space.smallest)
    # Gradients of keys' biases are 0 but for rounding, so a few may be exactly 0.
    assert {path for path, leaf in largest.items() if np.count_nonzero(leaf) > leaf.size / 2} == owned(space.largest)


def test_a_family_without_a_reference_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"tests\.reference\.other"):
        reference("other")
