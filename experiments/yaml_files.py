"""Experiment files: YAML read safely and strictly, `--set` overrides, and the resolved form that is written down."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from experiments.paths import shown
from experiments.problems import show
from search_spaces.errors import UserError

_LARGEST_FILE = 1 << 18
_DEEPEST = 64  # levels; experiments have six


# Plain scalars that YAML 1.1, YAML 1.2 and people read in different ways.
_AMBIGUOUS = (
    (re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?"), "is a number to base 60 in YAML 1.1"),
    (re.compile(r"[-+]?0\d[\d_.]*"), "begins with 0, which makes a number to base 8 in YAML 1.1"),
    (re.compile(r"[-+]?0o[0-7_]+"), "is a number to base 8 in YAML 1.2, and a text in YAML 1.1"),
    (re.compile(r"[-+]?(0b[01_]+|0x[\da-fA-F_]+)"), "is not to base 10"),
    (re.compile(r"[-+]?[\d.]*\d_[\d_.]*(e[-+]?\d+)?", re.IGNORECASE), "holds '_', which YAML 1.1 leaves out"),
    (re.compile(r"yes|no|on|off", re.IGNORECASE), "is true or false in YAML 1.1, and a text in YAML 1.2"),
)


def _ambiguity(text: str) -> str | None:
    """Returns in which other way a plain scalar can be read, or None."""
    return next((said for form, said in _AMBIGUOUS if form.fullmatch(text)), None)


class _StrictLoader(yaml.SafeLoader):
    """`SafeLoader` that refuses a key given twice, and has neither anchors nor merge keys nor ambiguous scalars."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_DEEPEST} deep", problem_mark=event.start_mark)
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(problem="anchors and aliases are not read", problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode) and node.style is None and (said := _ambiguity(node.value)):
            number = re.fullmatch(r"[-+\d_.:]*", node.value)
            wanted = "a plain number, or a text in quotes" if number else "true, false, or a text in quotes"
            wanted = wanted if number or node.value.isalpha() else "a number to base 10, or a text in quotes"
            raise yaml.MarkedYAMLError(
                problem=f"{shown(node.value)} {said}; write {wanted}", problem_mark=node.start_mark
            )
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            fault = "is no text; write it in quotes" if not isinstance(key, str) else "is given twice; keep one"
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a group as a key", problem_mark=key_node.start_mark)
            if not isinstance(key, str) or key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {shown(str(key_node.value))} {fault}", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """Returns the value of a YAML text: mappings, lists, texts, numbers, flags and null; nothing else.

    Raises:
        UserError: It is no YAML, holds a key twice or one that is no text, or a value of another kind.
    """
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{where}: {place}{error.problem or error.context}. Correct the YAML there.") from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}. Correct the YAML.") from None
    except ValueError as error:
        raise UserError(f"{where}: a value cannot be read ({error}). Correct the YAML.") from None
    _check_kinds(value, where, "")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Returns the mapping that a YAML file holds.

    Raises:
        UserError: There is no such file, it cannot be read, or holds no mapping.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)  # no more, as a device has no end
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give an experiment file; `supernest init {path}` writes one.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory. Give an experiment file.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give a file that can.") from None
    if len(content) > _LARGEST_FILE:
        raise UserError(f"{path}: more than {_LARGEST_FILE:,} bytes, too large for an experiment file. Give another.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        found = "is empty" if value is None else "holds no settings by name"
        raise UserError(f"{path}: {found}. Write settings as `key: value`; `supernest init` shows how.")
    return value


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Returns the keys and the value of `a.b=value`; the value is YAML.

    Raises:
        UserError: It has another form.
    """
    key, equals, value = text.partition("=")
    keys = tuple(key.strip().split("."))
    if not equals or not all(keys):
        raise UserError(f"--set {shown(text)}: is not of the form key=value. Write for example --set train.steps=1000.")
    return keys, parse_yaml(value, f"--set {shown_key('.'.join(keys))}")


def override(tree: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Returns a copy of a nested mapping with one value set; groups on the way are made where there are none.

    Raises:
        UserError: A key on the way holds a value that is no group.
    """
    return _override(tree, list(keys), 0, value)


def _override(tree: Mapping[str, Any], keys: Sequence[str], depth: int, value: Any) -> dict[str, Any]:
    key = keys[depth]
    if depth == len(keys) - 1:
        return {**tree, key: value}
    below = tree.get(key)
    if below is not None and not isinstance(below, Mapping):
        parent = ".".join(keys[: depth + 1])
        raise UserError(
            f"--set {shown_key('.'.join(keys))}: {shown_key(parent)} is {show(below)}, which has no settings "
            f"below it. Set {shown_key(parent)} itself."
        )
    return {**tree, key: _override(below or {}, keys, depth + 1, value)}


def dump_yaml(tree: Mapping[str, Any]) -> str:
    """Returns YAML that `parse_yaml` reads back as the same; keys in the order given, short lists on one line."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, width=120, default_flow_style=False)


class _Dumper(yaml.SafeDumper):
    """Lists of plain values on one line; no aliases; floats so that every YAML reader takes them for floats."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _list(dumper: yaml.SafeDumper, value: Sequence[Any]) -> yaml.Node:
    flat = not any(isinstance(item, Mapping) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", list(value), flow_style=flat)


def _str(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "'" if _ambiguity(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _str)
_Dumper.add_representer(list, _list)
_Dumper.add_representer(tuple, _list)


def shown_key(key: str) -> str:
    """Returns a key as it is written, or quoted and cut where it holds what no key does."""
    return key if re.fullmatch(r"[\w.%-]{1,100}", key) else shown(key)


def _check_kinds(value: Any, where: str, key: str) -> None:
    if isinstance(value, dict):
        for name, below in value.items():
            _check_kinds(below, where, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_kinds(item, where, f"{key}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where}: {key}: {value} is not finite. Give a number.")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise UserError(f"{where}: {key}: {value} is a {type(value).__name__}. Write it in quotes if it is a text.")
