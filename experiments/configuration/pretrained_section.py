"""The section `start`: an experiment that begins with what `supernest import` wrote, and not with fresh weights."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Array, Key
from pydantic import ValidationError

from experiments.configuration.sealed_section import SealedSection
from experiments.data import SOURCES
from experiments.data.tokenizer import may_be_bytes, same_tokenizer
from experiments.pretrained.directory import ImportedDirectory
from experiments.pretrained.encoders import check_cut, encoder_params
from experiments.user_input.problems import Problem, ProblemsError, problems_of, show
from experiments.user_input.yaml_files import override
from search_spaces import EncoderSpace, LanguageSpace, SearchSpace
from supernet.engine.supernet import Params, Supernet

PARENT = "parent"
"""What a teacher is called that is the network as it was imported."""

_SIZES = ("width", "depth", "kv_heads", "queries", "mlp_width")
_FREE = ("uniform", "keep", "layer_order", "context", "cache_context", "adapter_rank")


class StartSection(SealedSection):
    """A directory of `supernest import`, which space and first weights come from; sealed by its manifest."""

    @classmethod
    def _content(cls, path: Path, directory: Path, sealed: bool) -> tuple[Path, str]:
        try:
            return path, hashlib.sha256(ImportedDirectory(path).manifest.read_bytes()).hexdigest()
        except OSError:
            text = f"{path} is no directory that supernest import wrote. Import a checkpoint: supernest import --help"
            raise ProblemsError([Problem(("path",), text)]) from None

    @property
    def imported(self) -> ImportedDirectory:
        """Content of the imported directory."""
        return ImportedDirectory(Path(self.path))

    def check(self, space: SearchSpace) -> None:
        """Refuses a space that is not cut from the imported network, before its weights are read.

        Raises:
            UserError: There is a size that the network does not have.
        """
        if isinstance(space, EncoderSpace):
            check_cut(self.imported, space)

    def params(self, net: Supernet, key: Key[Array, ""]) -> Params:
        """Reads plain weights for a supernet: those that were imported, or cut from them for another family.

        Args:
            net: The supernet.
            key: Draws the weights that the imported network lacks.

        Raises:
            UserError: Files are missing or were altered, or the network is none that the supernet can start from.
        """
        if isinstance(net.space, LanguageSpace):
            return self.imported.params(net)
        return encoder_params(self.imported, net, key)


def with_pretrained(tree: Any, context: Mapping[str, Any] | None) -> Any:
    """Completes an experiment from its section `start`: space, tokenizer and path of the parent.

    Args:
        tree: Tree of the file as written.
        context: Context of its validation.

    Raises:
        ProblemsError: There is no such directory, a setting of the space would make another network of its weights, or
            the tokenizer is not that of the network.
    """
    if not isinstance(tree, Mapping) or tree.get("start") is None:
        return tree
    try:
        start = StartSection.model_validate(tree["start"], context=context)
    except ValidationError as error:
        problems = problems_of(error, StartSection)
        raise ProblemsError([Problem(("start", *problem.location), problem.text) for problem in problems]) from None
    tree = {**tree, "space": _space(start.imported.space, tree.get("space"))}
    data, directory = tree.get("data"), Path((context or {}).get("paths_from") or Path.cwd())
    source = _below(tree, "data", "source")
    if isinstance(source, str) and source in SOURCES and "tokenizer" in SOURCES[source].paths:
        tree["data"] = _data(start.imported, data, directory)
    teachers = _below(tree, "train", "distillation", "teachers")
    if not isinstance(teachers, list | tuple):
        return tree
    found = tuple(start.path if name == PARENT else name for name in teachers)
    return override(tree, ("train", "distillation", "teachers"), found)


def _below(tree: Any, *keys: str) -> Any:
    """What is under these keys; None where there is nothing."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _data(imported: ImportedDirectory, given: Mapping[str, Any], directory: Path) -> Mapping[str, Any]:
    """The section `data` of a text: its tokenizer is the one that was imported, if there is one."""
    own, name = imported.tokenizer, given.get("tokenizer")
    if own is not None and name is None:
        return {**given, "tokenizer": str(own)}
    text = None
    if name is None and not may_be_bytes(vocabulary := imported.space["vocabulary"]):
        text = f"missing. None was imported, and the {vocabulary} tokens are not bytes. Name the network's tokenizer."
    if own is not None and isinstance(name, str):
        path = Path(directory, Path(name).expanduser())
        if not path.exists() or not same_tokenizer(str(path), str(own)):
            text = f"{show(name)} is not the tokenizer that was imported, whose tokens the network knows. Leave it out."
    if text is not None:
        raise ProblemsError([Problem(("data", "tokenizer"), text)])
    return given


def _space(imported: Mapping[str, Any], given: Any) -> Any:
    """The section `space`: as it was imported, but for what is given.

    Sizes may be left out, or added below the largest, which is the one that there are weights for.
    """
    if given is not None and (not isinstance(given, Mapping) or given.get("family") == EncoderSpace.family):
        return given  # of encoders, whose weights are cut from those of the network, any sizes may be given
    defaults = {field.name: field.default for field in dataclasses.fields(LanguageSpace)}
    imported = {name: _frozen(value) for name, value in imported.items()}
    given = {name: _frozen(value) for name, value in (given or {}).items()}
    problems = []
    for name, value in given.items():
        own = imported.get(name, defaults.get(name))
        if name in _SIZES and isinstance(own, tuple) and isinstance(value, tuple):
            if not value or value[-1] != own[-1]:
                text = f"{show(value)} does not end with {own[-1]}, the size that was imported. Add it."
                problems.append(Problem(("space", name), text))
        elif name not in _FREE and value != own:
            text = f"{show(value)} would make another network than was imported, with {show(own)}. Leave it out."
            problems.append(Problem(("space", name), text))
    if problems:
        raise ProblemsError(problems)
    ranked = given.get("keep", imported.get("keep")) == "ranked"
    return {**{name: value for name, value in imported.items() if ranked or name != "layer_order"}, **given}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
