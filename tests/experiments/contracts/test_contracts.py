"""Contracts hold for everything that Supernest has, and refuse what breaks them in one line."""

import dataclasses
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.contracts import ContractError
from experiments.data import SOURCES
from samplers import SAMPLERS, Plan
from search import SEARCHERS, Budget
from search.random_search import RandomSearch
from search_spaces import build_space
from supernest.testing import check_sampler, check_searcher, check_sharing, check_source, check_task
from supernet.engine.supernet import SUPERNETS, build_supernet
from supernet.sharing import SHARING, WeightSharing
from supernet.sharing.nested_kernels import NestedKernels
from supernet.tasks.classes import Classes
from tests.supernet.families import SETTINGS

SPACE = build_space("vit", "small", {"depth": [1, 2], "width": [16, 32]})
BUDGETS = (Budget.parse("full", "macs<=100%", ("params", "macs")).resolve(SPACE),)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_sampler_fulfils_its_contract(name: str) -> None:
    check_sampler(SAMPLERS[name](SPACE, 0, Plan(steps=40, examples=50, batch_size=8)))


@pytest.mark.parametrize("name", list(SEARCHERS))
def test_every_searcher_fulfils_its_contract(name: str) -> None:
    check_searcher(SEARCHERS[name](SPACE, BUDGETS, 0))


def documented(registry: str, name: str) -> Any:
    """What the documentation's code for a plug-in defines."""
    text = (Path(__file__).parents[3] / "docs" / "extending.md").read_text("utf-8")
    (block,) = (part for part in text.split("```python\n") if f'@{registry}.register("' in part)
    module = types.ModuleType(f"documented_{name}")
    sys.modules[module.__name__] = module  # where dataclasses look types up
    exec(block.partition("```")[0], module.__dict__)
    return getattr(module, name)


def test_the_sampler_and_the_searcher_of_the_documentation_fulfil_their_contracts() -> None:
    check_sampler(documented("SAMPLERS", "Pair")(SPACE, 0, Plan(steps=40, examples=50, batch_size=8)))
    climber = documented("SEARCHERS", "Climber")(SPACE, BUDGETS, 0)
    check_searcher(climber)
    state, genes = climber.init(), climber.ask(climber.init())
    for _ in range(20):  # the smallest network is the best, and it is found
        state = climber.tell(state, genes, SPACE.cost(genes)["macs"][:, None] / 1e9)
        genes = climber.ask(state)
    np.testing.assert_array_equal(state.genes[np.argmin(state.errors)], SPACE.smallest.genes)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda genes: genes / 2, "search.type: Wrong.ask returns float64("),
        (lambda genes: genes[:, :2], "search.type: Wrong.ask returns int32("),
        (lambda genes: genes + 9, "search.type: Wrong.ask returns genes outside of the space."),
        (lambda genes: np.concatenate([genes, genes]), "search.type: Wrong.ask returns a candidate twice"),
        (lambda genes: genes[:0], "search.type: Wrong.ask returns no candidate at first."),
    ],
)
def test_a_wrong_searcher_is_one_line(wrong: Any, expected: str) -> None:
    @dataclass(frozen=True)
    class Wrong(RandomSearch):
        def ask(self, state: Any) -> Any:
            return wrong(super().ask(state))

    with pytest.raises(ContractError) as error:
        check_searcher(Wrong(SPACE, BUDGETS, 0))
    assert str(error.value).startswith(expected)


# ---------------------------------------------------------------- sharing schemes

KERNELS = {
    "resolution": [6], "depth": [1, 2], "kernel": [3, 5], "expand": [1], "widths": [8], "strides": [2],
    "squeeze_excite": [False], "activations": ["relu"], "stem_width": 8, "first_width": 8, "final_width": 8,
    "feature_width": 8, "image_size": 8,
}  # fmt: skip
BOTH = ["conv_1x1", "conv_3x3"]
CELL = {
    "stages": 1,
    "width": 4,
    "image_size": 4,
    "edge_1_0": BOTH,
    "edge_2_1": BOTH,
    "edge_3_1": BOTH,
    "edge_3_2": BOTH,
}
SHARED = {
    "nested_kernels": ("nas_bench_201", CELL),
    "elastic_rank": ("language", {**SETTINGS["language"], "adapter_rank": [1, 2]}),
    "mixture": ("vit", SETTINGS["vit"]),
    "linear_expansion": ("vit", SETTINGS["vit"]),
    "stage_expansion": ("vit", SETTINGS["vit"]),
}
"""Family and settings of a scheme that elastic kernels are not for."""


@pytest.mark.parametrize("scheme", list(SHARING))
def test_every_sharing_scheme_fulfils_its_contract(scheme: str) -> None:
    family, settings = SHARED.get(scheme, ("mobilenet", KERNELS))
    check_sharing(build_supernet(build_space(family, "small", settings), scheme))


def test_only_the_weights_that_a_scheme_says_it_changes_may_be_others_than_plain_ones() -> None:
    net = build_supernet(build_space("nas_bench_201", "small", CELL), "nested_kernels")

    class Claims(NestedKernels):
        keeps_plain = True

    net.sharing = Claims(net.space)
    with pytest.raises(ContractError, match=r"Claims\.init gives fresh weights .* or set keeps_plain = False"):
        check_sharing(net)


class Doubled(WeightSharing):
    """The head's kernel, twice."""

    def init(self, plain: Any, key: Any) -> Any:
        return plain

    def effective(self, params: Any, genes: Any) -> Any:
        return {**params, "head": {**params["head"], "kernel": 2 * params["head"]["kernel"]}}


class Named(Doubled):
    changed = frozenset({"head/kernel"})  # type: ignore[assignment]


class Unknown(Doubled):
    changed = frozenset({"tail/kernel"})  # type: ignore[assignment]


class Longer(Doubled):
    def effective(self, params: Any, genes: Any) -> Any:
        return {**params, "more": params["head"]["bias"]}


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (Doubled, "Doubled.effective changes head/kernel, which Doubled.changed does not name."),
        (Named, "Named.init gives fresh weights whose head/kernel in a subnet is not that of the plain network."),
        (Longer, "Longer.effective gives more as float32[10], expected nothing."),
        (Unknown, "Unknown.changed names ['tail/kernel'], which is no weight."),
    ],
)
def test_a_wrong_sharing_scheme_is_one_line(scheme: Any, expected: str) -> None:
    with pytest.raises(ContractError, match=r"^supernet\.sharing: [^\n]*$") as error:
        check_sharing(SUPERNETS["vit"](SPACE, scheme(SPACE)))
    assert expected in str(error.value)


# ---------------------------------------------------------------- sources and tasks


def source(name: str, path: Path) -> Any:
    """A small source of a task."""
    rng = np.random.default_rng(0)
    if name == "arrays":
        np.save(path / "x.npy", rng.normal(size=(40, 3)).astype(np.float32))
        np.save(path / "y.npy", rng.normal(size=40))
    if name == "text":
        (path / "t.txt").write_text("to be or not to be, " * 100)
    settings = {"arrays": {"path": str(path)}, "text": {"path": str(path / "t.txt"), "context": 8}}
    return SOURCES[name](**settings.get(name, {}))


@pytest.mark.parametrize(
    ("name", "family", "settings", "from_data"),
    [
        ("digits", "vit", {"depth": [1, 2], "width": [16, 32]}, ("classes", "channels", "image_size")),
        (
            "text",
            "language",
            {"depth": [1], "width": [16], "kv_heads": [1], "mlp_width": [8], "head_size": 8},
            ("vocabulary", "context", "causal"),
        ),
        ("arrays", "residual_mlp", {}, ("classes", "input_shape")),
    ],
)
def test_tasks_and_their_sources_fulfil_their_contracts(
    name: str, family: str, settings: dict[str, Any], from_data: tuple[str, ...], tmp_path: Path
) -> None:
    if family == "residual_mlp":
        code = (Path(__file__).parents[2] / "supernest" / "own_modules" / "residual_mlp.py").read_text("utf-8")
        exec(code, {"__name__": "own_residual_mlp"})
    check_source(found := source(name, tmp_path))
    data = found.load(0, 0.2)
    space = build_space(family, "small" if settings else None, {**settings, **data.settings(from_data)})
    check_task(data, build_supernet(space))


@pytest.mark.parametrize(
    ("fingerprint", "expected"),
    [
        (lambda data: f"{id(data):064x}", "Wrong: fingerprints differ between two readings."),
        (lambda data: "short", "Wrong: fingerprint 'short' is no SHA-256 in hexadecimal."),
    ],
)
def test_a_wrong_source_is_one_line(fingerprint: Any, expected: str, tmp_path: Path) -> None:
    class Wrong(SOURCES["text"]):
        kept: ClassVar[list[Any]] = []

        def load(self, *arguments: Any, **settings: Any) -> Any:
            data: Any = super().load(*arguments, **settings)
            self.kept.append(data)
            return dataclasses.replace(data, fingerprint=fingerprint(data))

    source("text", tmp_path)
    with pytest.raises(ContractError, match=r"^data\.source: [^\n]*$") as error:
        check_source(Wrong(path=str(tmp_path / "t.txt"), context=8))  # type: ignore[call-arg]
    assert expected in str(error.value)


class Summed(Classes):
    def losses(self, logits: Any, targets: Any) -> Any:
        return jnp.sum(super().losses(logits, targets), keepdims=True)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (Summed(), "Summed.losses has shape (1,) for outputs (4, 10): one number for each output, (4,)."),
        (Classes("odd"), "Classes.objective is 'odd', none of error, loss, rmse, bleu_error, relation_loss."),
    ],
)
def test_wrong_outputs_of_a_task_are_one_line(outputs: Any, expected: str, tmp_path: Path) -> None:
    digits = source("digits", tmp_path).load(0, 0.2)
    object.__setattr__(digits, "outputs", outputs)
    with pytest.raises(ContractError, match=r"^space\.family: [^\n]*$") as error:
        check_task(digits, build_supernet(SPACE))
    assert expected in str(error.value)
