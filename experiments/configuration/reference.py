"""The reference of an experiment file in Markdown: its JSON schema, as tables to read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.configuration.schema import Schema

_HEAD = """\
# Every key of an experiment file

<!-- Written by `supernest schema --format markdown`; edit the docstrings of the sections and plug-ins instead. -->

An experiment file is YAML. Keys that are left out have their defaults. `supernest check FILE` says of each wrong key
where it is, what was expected and what to do. A key without a default has to be given, unless its text says where it
comes from; the sizes of a space come from its preset, too. Paths are relative to the file.
"""


def reference(schema: Schema) -> str:
    """Returns the page, from what `experiment_schema` returns."""
    plain = {name: key for name, key in schema["properties"].items() if not _group(key) and name != "budgets"}
    groups = {name: _group(key) or key for name, key in schema["properties"].items() if name not in plain}
    lines = [_HEAD, "## At the top", "", *_table(plain, schema["required"])]
    for name, group in groups.items():
        lines += ["", f"## `{name}`", "", schema["properties"][name]["description"], ""]
        lines += list(_budgets(group) if name == "budgets" else _section(name, group))
    return "\n".join(lines).rstrip() + "\n"


def _group(key: Schema) -> Schema | None:
    """Returns the group of settings that a key stands for, also where a text or null may stand there."""
    forms = [key, *key.get("anyOf", [])]
    return next((form for form in forms if "properties" in form), None)


def _section(name: str, group: Schema) -> Iterator[str]:
    if "oneOf" not in group:
        yield from _table(group["properties"], group["required"])
        return
    (selector,) = group["properties"]
    forms = group["oneOf"]
    first = forms[0]["properties"]
    shared = {key: one for key, one in first.items() if all(form["properties"].get(key) == one for form in forms)}
    yield from _table({selector: group["properties"][selector], **shared})
    for form in forms:
        theirs = {key: value for key, value in form["properties"].items() if key not in {selector, "preset", *shared}}
        yield from ("", f"### `{name}: {selector}: {form['title']}`", "", form["description"], "")
        presets = [one for one in form["properties"].get("preset", {}).get("anyOf", ()) if "enum" in one]
        if presets:
            yield from (f"Presets: {', '.join(f'`{one}`' for one in presets[0]['enum'])}.", "")
        yield from _table(theirs, form["required"]) if theirs else ["No settings."]


def _budgets(group: Schema) -> Iterator[str]:
    forms = group["additionalProperties"]["anyOf"]
    limits = next(form["properties"] for form in forms if "properties" in form)
    yield from (f"Default: `{_yaml(group['default'])}`.", "", "| metric | limit |", "|---|---|")
    yield from (f"| `{metric}` | {limit['description']} |" for metric, limit in limits.items())


def _table(keys: Schema, required: list[str] | None = None, above: str = "") -> Iterator[str]:
    """Yields a table of keys; keys of groups within stand in it as `group.key`."""
    if not above:
        yield from ("| key | value | default | |", "|---|---|---|---|")
    for name, key in keys.items():
        group = _group(key)
        if group is not None and not above:
            yield f"| `{name}` | group | | {_cell(key['description'])} |"
            yield from _table(group["properties"], group["required"], f"{name}.")
            continue
        default = f"`{_yaml(key['default'])}`" if "default" in key else ""
        yield f"| `{above}{name}` | {_cell(_kind(key))} | {default} | {_cell(key['description'])} |"
        members = key.get("additionalProperties")
        if isinstance(members, Mapping) and "properties" in members:
            yield from _table(members["properties"], members["required"], f"{above}{name}.NAME.")


def _kind(key: Schema) -> str:
    """Returns the type of a value and its range, in words."""
    if "enum" in key:
        return ", ".join(f"`{_yaml(one)}`" for one in key["enum"])
    if "const" in key:
        return f"`{_yaml(key['const'])}`"
    if "anyOf" in key:
        return " or ".join(dict.fromkeys(_kind(one) for one in key["anyOf"]))
    kind: str = key["type"]
    if kind == "array":
        items = key.get("items", {})
        return f"list of {key['minItems']}" if isinstance(items, list) else f"list, each {_kind(items)}"
    words: dict[str, str] = {
        "integer": "whole number",
        "boolean": "`true` or `false`",
        "string": "text",
        "object": "group",
    }
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    ranges = [f"{sign} {key[name]:,}" for name, sign in limits.items() if name in key]
    return " ".join([words.get(kind, kind), ", ".join(ranges)]).strip()


def _yaml(value: Any) -> str:
    """Returns a value as it stands in an experiment file."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
