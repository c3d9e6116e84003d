"""Every preset and every form of every family goes from YAML to an export that loads and runs without its supernet.

The cases follow from the registries and from the fields of each space: a new family, preset or form is tested once it
is registered. Sizes are shrunk, by the YAML alone, so that presets of one form are one case. By default as few cases as
hold each value of each field are run; SUPERNEST_FORMS=all runs each value on its own with each preset too.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from flax import nnx

from experiments import cli
from experiments.configuration.experiment_config import load_config
from search_spaces import FAMILIES, SearchSpace, UserError, build_space
from supernet.export.subnet import flatten, load_subnet
from tests.experiments.device_files import write_device
from tests.experiments.parallel_text import write_pairs
from tests.marks import slow_but

COMPLETE = os.environ.get("SUPERNEST_FORMS") == "all"
IMAGES, TEXT = (8, 32), {"source": "text", "path": "text.txt", "context": 6, "test_fraction": 0.2}
LARGE = 16  # a size above it is shrunk
# Numbers that make another network than their default does; flags, names and lists of them are found by themselves.
NUMBERS: dict[str, dict[str, list[Any]]] = {
    "language": {
        "queries": [[1], [2]], "rotary": [1.0, 0.5], "rope_scaling": [[], [8.0, 1.0, 4.0, 4.0]], "token_types": [0, 2],
        "max_positions": [0, 9],
    },
    "mobilenet": {"stem_stride": [1, 2], "first_stride": [1, 2], "width_multiplier": [1.0, 0.5]},
}  # fmt: skip
CELLS = {"width": 4, "cells": 1, "stages": 2}
SHRUNK: dict[str, dict[str, Any]] = {  # sizes that are no choices, or that others would not fit
    "nas_bench_201": CELLS, "nas_bench_201_ensemble": CELLS, "vit_ensemble": {"private": [1]},
    "darts": {"width": 4, "cells": 3},
    "translation": {"query_size": 16, "memories": [1]}, "encoder": {"head_size": 8, "relation_heads": 2},
}  # fmt: skip
PAIRS = {"source": "pairs", "path": "corpus", "vocabulary": 300, "length": 60}
TRAIN = {"steps": 2, "batch_size": 8, "diagnose_every": None}
BESIDES = ("nothing", "device", "teacher", "largest")


@dataclass(frozen=True)
class Case:
    """An experiment, but for where its data lie.

    Attributes:
        family: Of the space.
        preset: One of the family's.
        settings: Fields of the space as JSON.
        image: Pixels on a side; 0 for text.
        besides: What else the experiment names.
    """

    family: str
    preset: str
    settings: str
    image: int
    besides: str = BESIDES[0]

    def __str__(self) -> str:
        changed = json.loads(self.settings)
        shown = {name: changed[name] for name in changed if name in forms(self.family, self.preset)}
        return f"{self.family}-{self.preset}-{shown}-{self.besides}"


@cache
def small_sizes(family: str, preset: str) -> dict[str, list[Any]]:
    """The smallest lists of sizes that build."""
    space = build_space(family, preset)
    settings: dict[str, Any] = dict(SHRUNK.get(family, {}))
    gates = {"depth", *(choice.gate for choice in space.choices)}
    names = {field.name for field in dataclasses.fields(space)}  # type: ignore[arg-type]
    for choice in (choice for choice in space.choices if choice.name in names):
        first = choice.values[0]
        if choice.name in gates:
            settings[choice.name] = [1, 2]
        elif isinstance(first, float):
            settings[choice.name] = [1.0]
        elif isinstance(first, str):
            settings[choice.name] = list(choice.values[1:3])
        elif isinstance(first, int):
            tried = (2, 3, first) if first <= LARGE else (16, 32, 64, first)
            builds = (size for size in tried if build(family, preset, {**settings, choice.name: [size]}) is not None)
            settings[choice.name] = [next(builds)]
    return settings


def build(family: str, preset: str, settings: Mapping[str, Any], image: int = 0) -> SearchSpace | None:
    """The space, or None where the family refuses the settings."""
    names = {field.name for field in dataclasses.fields(FAMILIES[family])}  # type: ignore[arg-type]
    of_data = {"image_size": image} if image else {"context": TEXT["context"]}
    sizes = {name: value for name, value in of_data.items() if value and name in names}
    try:
        return build_space(family, preset, {**sizes, **settings})
    except UserError:
        return None


@cache
def forms(family: str, preset: str) -> dict[str, list[Any]]:
    """The values of each field that decides what all networks of a space are like."""
    space = build_space(family, preset, small_sizes(family, preset))
    sizes, found = {choice.name for choice in space.choices}, dict(NUMBERS.get(family, {}))
    for field in dataclasses.fields(space):  # type: ignore[arg-type]
        if field.name in sizes or field.name in found:
            continue
        kind, value = str(field.type), getattr(space, field.name)
        values = [False, True] if "bool" in kind else names(family, preset, field.name) if "str" in kind else []
        if values:
            found[field.name] = [[one] * len(value) for one in values] if "tuple" in kind else values
    return found


def names(family: str, preset: str, field: str) -> list[str]:
    """The names that a field may have, as the family tells who gives a wrong one."""
    value = getattr(build_space(family, preset), field)
    wrong = "?" if isinstance(value, str) else ["?"] * len(value)
    with pytest.raises(UserError) as refused:
        build_space(family, preset, {field: wrong})
    known = re.search(r"Known: (.*)\.$", str(refused.value))
    assert known, f"{family}.{field}: {refused.value}"
    return known[1].split(", ")


def completed(family: str, preset: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with those that they cannot be without."""
    whole = {**small_sizes(family, preset), **settings}
    if whole.get("keep") == "ranked":
        whole["layer_order"] = list(reversed(range(whole["depth"][-1])))
    if whole.get("heads_follow_width"):
        whole["kv_heads"] = whole["kv_heads"] * len(whole["width"])
    return whole


def case(family: str, preset: str, settings: Mapping[str, Any]) -> Case | None:
    """The case of these settings; None where the family refuses them."""
    whole = completed(family, preset, settings)
    for image in IMAGES if FAMILIES[family].inputs == "images" else (0,):
        if build(family, preset, whole, image) is not None:
            return Case(family, preset, json.dumps(whole, sort_keys=True), image)
    return None


def covering(family: str, preset: str) -> Iterator[Case]:
    """As few cases as hold each value of each field; each case takes what goes together with what it has."""
    pending = [(name, value) for name, values in forms(family, preset).items() for value in values]
    while pending:
        settings: dict[str, Any] = {}
        for name, value in list(pending):
            if name not in settings and case(family, preset, {**settings, name: value}) is not None:
                settings[name] = value
                pending.remove((name, value))
        assert settings, f"{family}: no network of {pending}"
        found = case(family, preset, settings)
        assert found is not None
        yield found


def singles(family: str, preset: str) -> Iterator[Case]:
    """Each value of each field alone."""
    for name, values in forms(family, preset).items():
        yield from (found for value in values if (found := case(family, preset, {name: value})) is not None)


def cases() -> list[Case]:
    """All that are run, each space once; what else an experiment names changes from case to case."""
    found: dict[Any, Case] = {}
    for family in FAMILIES:
        presets = list(FAMILIES[family].presets)
        wanted = [case(family, preset, {}) for preset in presets] + list(covering(family, presets[0]))
        if COMPLETE:
            wanted += [one for preset in presets for one in (*covering(family, preset), *singles(family, preset))]
        assert None not in wanted, f"{family}: a preset cannot be shrunk"
        for one in wanted:
            assert one is not None
            space = build(family, one.preset, json.loads(one.settings), one.image)
            found.setdefault((space, one.image), one)
    # The first of a family has nothing besides, so that it can teach the others.
    rank = dict.fromkeys(FAMILIES, 0)
    for key, one in found.items():
        found[key] = dataclasses.replace(one, besides=BESIDES[rank[one.family] % len(BESIDES)])
        rank[one.family] += 1
    return list(found.values())


CASES = cases()
FIRST = [next(one for one in CASES if one.family == family) for family in FAMILIES]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Case], Path]:
    """Runs the experiment of a case, once; returns where its files lie."""
    done: dict[Case, Path] = {}

    def run(one: Case) -> Path:
        if one not in done:
            here = tmp_path_factory.mktemp("case")
            file = written(here, one, run)
            assert cli.main(["run", str(file), "--out", str(here / "run"), "--quiet"]) == 0, file.read_text()
            done[one] = here
        return done[one]

    return run


def written(here: Path, one: Case, run: Callable[[Any], Path]) -> Path:
    """Writes the experiment of a case, with its data."""
    rng, space = np.random.default_rng(0), {"family": one.family, "preset": one.preset, **json.loads(one.settings)}
    if one.image:
        data: dict[str, Any] = {"source": "npz", "path": "images.npz"}
        arrays = {}
        for split, count in (("train", 30), ("test", 10)):
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, one.image, one.image, 3), np.uint8)
            arrays[f"{split}_labels"] = np.arange(count) % 3
        np.savez(here / "images.npz", **arrays)
    elif FAMILIES[one.family].takes("pairs"):
        data = dict(PAIRS)
        write_pairs(here / "corpus")
    elif FAMILIES[one.family].takes("labelled_text"):
        data = {"source": "labelled_text", "path": "texts.tsv", "context": TEXT["context"], "test_fraction": 0.2}
        rows = "".join(f"{word} {i}\t{word}\n" for i in range(20) for word in ("good", "bad"))
        (here / "texts.tsv").write_text("sentence\tlabel\n" + rows)
    else:
        data = dict(TEXT)
        (here / "text.txt").write_text("To be, or not to be: that is the question. " * 12)
        if space.pop("causal", True) is False:
            data["masked"] = 0.3
    experiment: dict[str, Any] = {
        "data": data,
        "space": space,
        "train": dict(TRAIN),
        "search": {"type": "random", "evaluations": 2},
        "evaluation": {"batch_size": 8, "calibration_batches": 1},
    }
    file = here / "case.yaml"
    if one.besides == "device":
        file.write_text(yaml.safe_dump(experiment))
        config = load_config(file)
        write_device(here / "device.json", config.space.build(config.data.load(0)))
        experiment |= {"device": "device.json", "budgets": {"full": {"latency_ms": "100%"}}}
    if one.besides == "largest":
        experiment["train"] |= {"distillation": {"type": "largest", "weight": 0.5}}
    if one.besides == "teacher":
        teacher = next(other for other in CASES if other.family == one.family)
        names = [str(run(teacher) / "run" / "subnets" / "full")]
        experiment["train"] |= {"distillation": {"type": "external", "teachers": names}}
    file.write_text(yaml.safe_dump(experiment))
    return file


@pytest.mark.parametrize("one", slow_but(FIRST, CASES), ids=str)
def test_from_yaml_to_an_export_that_runs(one: Case, finished: Callable[[Case], Path]) -> None:
    here = finished(one)
    exported = here / "run" / "subnets" / "full"
    report = json.loads((exported / "report.json").read_text())
    kept = json.loads((here / "run" / "search" / "space.json").read_text())["settings"]
    for name, value in json.loads(one.settings).items():
        assert kept[name] == value
    subnet = load_subnet(exported)
    weights = flatten(subnet.weights)
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(subnet.module, nnx.Param)))
    assert counted == report["costs"]["params"]
    program = jax.export.deserialize(bytearray((exported / "forward.jax_export").read_bytes()))
    rng, shape = np.random.default_rng(1), tuple(subnet.config["input"]["shape"])
    if one.image:
        given = [rng.integers(0, 256, (count, *shape), np.uint8) for count in (1, 3)]
    else:
        sizes = ((1, *shape), (3, *shape[:-1], 2))
        given = [rng.integers(0, subnet.config["preprocessing"]["vocabulary"], size).astype(np.int32) for size in sizes]
    for examples in given:
        logits = program.call(weights, subnet.preprocessing(jnp.asarray(examples)))
        expected = subnet.predict(examples)
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(np.asarray(logits) / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_presets_are_sound_at_their_own_sizes(family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for preset in FAMILIES[family].presets:
        here, one = tmp_path / preset, case(family, preset, {})
        assert one is not None
        here.mkdir()
        image = one.image and getattr(build_space(family, preset), "image_size", one.image)
        file = written(here, dataclasses.replace(one, settings="{}", image=image), Path)
        assert cli.main(["check", str(file), "--json"]) == 0, capsys.readouterr().err
        assert json.loads(capsys.readouterr().out)["space"]["family"] == family
