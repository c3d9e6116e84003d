"""Experiment files: YAML read safely and strictly, `--set` overrides, and the resolved form that is written down."""

import math
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml

from experiments.user_input.paths import shown
from experiments.user_input.problems import Problem, show
from search_spaces.errors import UserError
from search_spaces.sealed_json import JsonObject

_LARGEST_FILE = 1 << 18
_DEEPEST = 64  # levels; experiments have six
_MOST_DIGITS = 100


# Plain scalars that YAML 1.1, YAML 1.2 and people read in different ways.
_AMBIGUOUS = (
    (re.compile(r"[-+]?\d+(:[0-5]?\d)+(\.\d*)?"), "is a number to base 60 in YAML 1.1"),
    (re.compile(r"[-+]?0\d[\d_.]*"), "begins with 0, which makes a number to base 8 in YAML 1.1"),
    (re.compile(r"[-+]?0o[0-7_]+"), "is a number to base 8 in YAML 1.2, and a text in YAML 1.1"),
    (re.compile(r"[-+]?(0b[01_]+|0x[\da-fA-F_]+)"), "is not to base 10"),
    (re.compile(r"[-+]?[\d.]*\d_[\d_.]*(e[-+]?\d+)?", re.IGNORECASE), "holds '_', which YAML 1.1 leaves out"),
    (re.compile(r"yes|no|on|off", re.IGNORECASE), "is true or false in YAML 1.1, and a text in YAML 1.2"),
)


_NO_VALUES = {
    "tag:yaml.org,2002:merge": "is a merge key, which is not read; write the settings out",
    "tag:yaml.org,2002:value": "is no value; write it in quotes for a text",
}


def _ambiguity(text: str) -> str | None:
    """Returns in which other way a plain scalar can be read, or None."""
    if len(text) > _MOST_DIGITS and re.fullmatch(r"[-+]?[\d.]+", text):
        return f"has {len(text)} digits, which programs round differently"
    return next((said for form, said in _AMBIGUOUS if form.fullmatch(text)), None)


def _plainly(text: str) -> str:
    """Returns how to write a scalar that was written so that it can be read in two ways."""
    digits, sign = text.replace("_", "").lstrip("+-"), "-" if text.startswith("-") else ""
    if text.isalpha():
        return "true or false"
    if ":" in digits:
        value = 0.0
        for part in digits.split(":"):
            value = 60 * value + float(part)
        return f"{sign}{value:g}"
    if re.fullmatch(r"0o?[0-7]+", digits):
        octal = digits.replace("o", "")
        return f"{sign}{octal.lstrip('0') or 0} or {sign}{int(octal, 8)}"
    if re.fullmatch(r"0b[01]+|0x[\da-f]+", digits, re.IGNORECASE):
        return f"{sign}{int(digits, 0)}"
    return f"{sign}{digits.lstrip('0') or 0}" if len(digits) <= _MOST_DIGITS else "fewer"


class _StrictLoader(yaml.SafeLoader):
    """`SafeLoader` without anchors, merge keys, tags, deep nesting, a key given twice and ambiguous scalars."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._location: list[int | str] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            self._refuse("anchors and aliases are not read", event)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!") and (tag, type(event)) != ("tag:yaml.org,2002:str", yaml.ScalarEvent):
            self._refuse(f"could not determine a constructor for {shown(tag)}, as tags are not read", event)
        if len(self._location) > _DEEPEST:
            self._refuse(f"nested more than {_DEEPEST} deep", event)
        self._location.append(index if isinstance(index, int) else getattr(index, "value", ""))
        try:
            node = super().compose_node(parent, cast(Any, index))
            if isinstance(node, yaml.ScalarNode):
                self._check(node)
        finally:
            self._location.pop()
        return node

    def _refuse(self, problem: str, at: Any) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)

    def _check(self, node: yaml.ScalarNode) -> None:
        """Refuses a scalar that can be read in two ways, or that is none; the message names its key."""
        said, text = None, node.value
        if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
            said = "holds half of a surrogate pair, which is no character; write a whole one"
        elif node.tag in _NO_VALUES:
            said = _NO_VALUES[node.tag]
        elif node.tag.endswith(":timestamp"):
            try:
                self.construct_yaml_timestamp(node)
            except ValueError:
                said = "is no date that there is; write it in quotes for a text"
        elif node.style is None and (ambiguity := _ambiguity(text)):
            said = f"{ambiguity}; write {_plainly(text)}, or {shown(text)} in quotes for a text"
        if said:
            key = Problem(tuple(part for part in self._location if part != ""), f"{shown(text)} {said}")
            self._refuse(str(key), node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            fault = "is no text; write it in quotes" if not isinstance(key, str) else "is given twice; keep one"
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a list or a group is no key; write a name before the colon",
                    problem_mark=key_node.start_mark,
                )
            if not isinstance(key, str) or key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {shown(str(key_node.value))} {fault}", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, where: str) -> Any:
    """Returns the value of a YAML text: mappings, lists, texts, numbers, flags and null; nothing else.

    Raises:
        UserError: The text is not YAML, holds a key twice or one that is no text, or a value of another kind.
    """
    try:
        value = yaml.load(text, Loader=_StrictLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{where}: {place}{error.problem or error.context}. Correct the YAML there.") from None
    except yaml.reader.ReaderError as error:
        line, code = text.count("\n", 0, error.position) + 1, error.character
        code = code if isinstance(code, int) else ord(code)
        raise UserError(
            f"{where}: unacceptable character U+{code:04X} in line {line}. Remove it, or write an escape in quotes."
        ) from None
    except yaml.YAMLError as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}. Correct the YAML.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: a value cannot be read ({error}). Correct the YAML.") from None
    _check_kinds(value, where, "")
    return value


def read_yaml(path: Path) -> JsonObject:
    """Returns the mapping that a YAML file holds.

    Raises:
        UserError: There is no such file, it cannot be read, or holds no mapping.
    """
    value = _read(path, "an experiment file", f"; `supernest init {path}` writes one")
    if not isinstance(value, dict):
        found = "is empty" if value is None else "holds no settings by name"
        raise UserError(f"{path}: {found}. Write settings as `key: value`; `supernest init` shows how.")
    return value


def read_yaml_list(path: Path, what: str) -> list[Any]:
    """Returns the list that a YAML file holds.

    Args:
        path: The file.
        what: Its entries in messages, with an example.

    Raises:
        UserError: There is no such file, it cannot be read, or holds no list.
    """
    value = _read(path, f"a file with a list of {what}")
    if not isinstance(value, list):
        raise UserError(f"{path}: {'is empty' if value is None else 'holds no list'}. Write a list of {what}.")
    return value


def _read(path: Path, kind: str, how: str = "") -> Any:
    """Returns what a YAML file holds; `kind` says in messages what it should be, and `how` where one comes from."""
    try:
        if stat.S_ISFIFO(path.stat().st_mode):
            raise UserError(f"{path}: is a pipe, which may never end. Save the experiment in a file.")
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)  # no more, as a device has no end
    except FileNotFoundError:
        raise UserError(f"{path}: no such file. Give {kind}{how}.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory. Give {kind}.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Give a file that can.") from None
    if len(content) > _LARGEST_FILE:
        raise UserError(f"{path}: more than {_LARGEST_FILE:,} bytes, too large for {kind}. Give another.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    return parse_yaml(text, str(path))


def parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    """Returns the keys and the value of `a.b=value`; the value is YAML.

    Raises:
        UserError: The text has another form.
    """
    key, equals, value = text.partition("=")
    keys = tuple(key.strip().split("."))
    if not equals or not all(keys):
        raise UserError(f"--set {shown(text)}: is not of the form key=value. Write for example --set train.steps=1000.")
    return keys, parse_yaml(value, f"--set {shown_key('.'.join(keys))}")


def override(tree: Mapping[str, Any], keys: Sequence[str], value: Any) -> JsonObject:
    """Returns a copy of a nested mapping with one value set; groups on the way are made where there are none.

    Raises:
        UserError: A key on the way holds a value that is no group.
    """
    return _override(tree, list(keys), 0, value)


def _override(tree: Mapping[str, Any], keys: Sequence[str], depth: int, value: Any) -> JsonObject:
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
    at = f"{where}: {key}" if key else where  # a value of --set is whole, and its key is in `where`
    if isinstance(value, dict):
        for name, below in value.items():
            _check_kinds(below, where, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_kinds(item, where, f"{key}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{at}: {value} is not finite. Give a number.")
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise UserError(f"{at}: {value} is a {type(value).__name__}. Write it in quotes if it is a text.")
