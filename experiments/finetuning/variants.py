"""Variants of a finetuning: one network trained on several times, as a list in YAML says; ingredients of a soup.

Each variant is an exported network of its own, below one directory. Where finetunings may stop early, each must promise
to beat the best of those before it. The seed of a variant decides the order of its
examples and their changes; what is held out stays the same for all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from experiments.configuration.experiment_config import config_of
from experiments.configuration.plugin_section import STRICT
from experiments.finetuning.early_stopping import best_of
from experiments.finetuning.settings import Finetuning
from experiments.finetuning.stage import check_finetuning, finetune
from experiments.objective import objective_of
from experiments.process.compilation import use_compilation_cache
from experiments.process.interrupt import StopRequest
from experiments.process.progress import progress_bar
from experiments.records import FinetunedNetwork
from experiments.user_input.problems import ConfigError, Problem, problems_of
from experiments.user_input.yaml_files import override, read_yaml_list, shown_key
from search_spaces import UserError
from search_spaces.names import name_fault
from search_spaces.typed_settings import show
from supernet.storage.manifest import discard_directory

_MAY_DIFFER = ("train.", "data.augmentation.")
_NO_EFFECT = "has no effect in a finetuning. Leave it out."
_REFUSED = {
    "train.steps": "is that of the supernet. Write steps instead.",
    "train.epochs": "is that of the supernet. Write steps instead.",
    "train.optimizer.learning_rate": "is that of the supernet. Write learning_rate instead.",
    "train.distillation.teachers": "has no effect in a finetuning. Name the teacher on the command line: --teacher",
    **dict.fromkeys(
        ("train.path_batch", "train.diagnose_every", "train.incubation", "train.method", "train.evolution_strategy"),
        _NO_EFFECT,
    ),
}
"""Keys that a finetuning gives values of its own, and what to do instead."""
_MOST = 1000


class _Settings(BaseModel):
    """Settings of a variant that are not keys of the experiment."""

    model_config = STRICT

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    steps: Annotated[int, Field(ge=1, le=10**9)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1000)] | None = None


@dataclass(frozen=True)
class Variant:
    """One of several finetunings of a network.

    Attributes:
        name: Name of its directory.
        settings: Settings of its training, and directory of its export.
    """

    name: str
    settings: Finetuning


def read_variants(path: Path, base: Finetuning) -> list[Variant]:
    """Reads a list of variants.

    Args:
        path: YAML file with a list. Each entry has a `name`, may have `seed`, `steps` and `learning_rate`, and keys of
            the experiment below `train` and `data.augmentation` that have an effect.
        base: Settings that all have in common; `out` is the directory that gets a directory for each.

    Raises:
        UserError: An entry is wrong, with its number; or a name comes twice.
    """
    entries = read_yaml_list(path, "variants, such as `- {name: slow, learning_rate: 0.0001}`")
    if not 1 <= len(entries) <= _MOST:
        raise UserError(f"{path}: holds {len(entries)} variants. Give 1 to {_MOST:,}.")
    variants: list[Variant] = []
    for number, entry in enumerate(entries):
        variant = _variant(path, number, entry, base)
        if any(variant.name == known.name for known in variants):
            raise UserError(f"{path}: [{number}].name: {show(variant.name)} is there already. Give each its own name.")
        variants.append(variant)
    return variants


def _variant(path: Path, number: int, entry: Any, base: Finetuning) -> Variant:
    if not isinstance(entry, dict):
        raise UserError(f"{path}: [{number}]: {show(entry)} is no group of settings. Write {{name: slow, seed: 1}}.")
    own = {key: value for key, value in entry.items() if "." not in key}
    try:
        given = _Settings.model_validate(own)
    except ValidationError as error:
        problems = [Problem((number, *problem.location), problem.text) for problem in problems_of(error, _Settings)]
        raise ConfigError(problems, lambda _: str(path)) from None
    fault = name_fault(given.name)
    if fault is not None:
        raise UserError(f"{path}: [{number}].name: {show(given.name)} {fault}")
    tree = base.config.as_dict()
    for key, value in entry.items():
        if key in own:
            continue
        if not key.startswith(_MAY_DIFFER):
            raise UserError(
                f"{path}: [{number}]: {shown_key(key)}: may not differ between variants, which share network and data. "
                "Set keys of train and of data.augmentation."
            )
        _check_effect(f"{path}: [{number}]", key, value, base)
        tree = override(tree, key.split("."), value)
    try:
        config = config_of(tree, path.absolute().parent, path.name)
    except UserError as error:
        _, _, text = str(error).splitlines()[0].partition(": ")
        raise UserError(f"{path}: [{number}]: {text}") from None
    if "train.distillation.weight" in _keys(entry) and config.train.distillation.type == "none":
        raise UserError(
            f"{path}: [{number}]: train.distillation.weight: has no effect where train.distillation.type is none, and "
            "the teacher gives half of the loss. Set the type to largest too."
        )
    config.bind(base.config.identity)
    settings = replace(
        base, config=config, out=base.out / given.name, seed=given.seed, steps=given.steps or base.steps,
        learning_rate=given.learning_rate or base.learning_rate,
    )  # fmt: skip
    return Variant(given.name, settings)


def _check_effect(where: str, key: str, value: Any, base: Finetuning) -> None:
    """Refuses a key whose value a finetuning does not use."""
    for full in _keys({key: value}):
        for refused, text in _REFUSED.items():
            if f"{full}.".startswith(f"{refused}."):
                raise UserError(f"{where}: {shown_key(full)}: {text}")
        if f"{full}.".startswith("train.distillation.") and base.teacher is None:
            raise UserError(f"{where}: {shown_key(full)}: has no effect without a teacher. Give one: --teacher")


def _keys(tree: Mapping[Any, Any]) -> Iterator[str]:
    """Yields the dotted keys of all values of nested groups."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from (f"{key}.{below}" for below in _keys(value))
        else:
            yield str(key)


def finetune_variants(variants: Sequence[Variant], stop: StopRequest, quiet: bool) -> list[FinetunedNetwork]:
    """Trains variants that are not there yet, on the workers of the section `ray` or one after the other.

    Args:
        variants: Variants that `read_variants` returns.
        stop: Read between steps.
        quiet: No progress bar.

    Returns:
        What `finetune` returns, for each.

    Raises:
        UserError: `finetune` raises it; problems that can be found without training are reported before any training.
        Interrupted: `stop` was requested; the same call resumes.
    """
    base, work = variants[0].settings.config, work_of(variants)
    loaded = base.data.load(base.seed)
    for variant in variants:
        check_finetuning(variant.settings, loaded)
    if base.ray is not None:
        from experiments.finetuning.on_ray import finetune_on_ray

        found = finetune_on_ray(variants, loaded, work, stop, quiet)
    else:
        use_compilation_cache(work / "cache")  # networks of one shape share their programs
        higher, done = objective_of(loaded).higher, dict[str, FinetunedNetwork]()
        with progress_bar(variants, desc="variants", unit="network", quiet=quiet) as bar:
            for variant in bar:
                done[variant.name] = finetune(variant.settings, stop, True, loaded, best_of(done, higher))
        found = list(done.values())
    if work.exists():
        discard_directory(work)
    return found


def work_of(variants: Sequence[Variant]) -> Path:
    """Returns the directory of what variants share while they are trained, which is removed in the end."""
    return variants[0].settings.out.absolute().parent / ".variants"
