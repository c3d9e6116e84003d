"""Settings of a space are read by the types of its fields, whatever these are."""

from collections.abc import Iterator
from dataclasses import dataclass, make_dataclass
from functools import cached_property
from typing import Any, Literal

import pytest

from search_spaces import FAMILIES, Choice, SearchSpace, UserError, build_space
from search_spaces.typed_settings import typed


@pytest.fixture(scope="module", autouse=True)
def family() -> Iterator[None]:
    """A family whose names of types hold others: `point` has an `int` in it."""

    @FAMILIES.register("typed_settings_of_test")
    @dataclass(frozen=True)
    class Typed(SearchSpace):
        """A space whose fields have all kinds of types."""

        family = "typed_settings_of_test"

        depth: tuple[int, ...]
        pool: Literal["point", "mean"] = "mean"
        kind: Literal["a", "b"] = "a"
        pair: tuple[float, int] = (1.0, 2)
        limit: float | None = None
        order: Literal[1, 2] = 1

        @cached_property
        def choices(self) -> tuple[Choice, ...]:
            return (Choice("depth", self.depth),)

    yield
    FAMILIES._entries.pop("typed_settings_of_test")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("pool", "point", "point"),
        ("kind", "b", "b"),
        ("pair", [2, 3], (2.0, 3)),
        ("limit", None, None),
        ("limit", 3, 3.0),
        ("depth", [1, 2], (1, 2)),
        ("depth", (1, 2), (1, 2)),
        ("order", 2, 2),
    ],
)
def test_a_value_is_held_as_its_type_says(setting: str, value: Any, expected: Any) -> None:
    space = build_space("typed_settings_of_test", None, {"depth": [1], setting: value})
    found = getattr(space, setting)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("pool", "pint", "space.pool: 'pint' is not known. Did you mean 'point'? Known: mean, point."),
        ("pool", 3, "space.pool: 3 is not known. Known: mean, point."),
        ("kind", "c", "space.kind: 'c' is not known. Known: a, b."),
        ("order", 3, "space.order: 3 is not known. Known: 1, 2."),
        ("pair", [1.0], "space.pair: missing. Set it."),
        ("pair", [1.0, 2.5], "space.pair: 2.5 is not a whole number. Give a whole number."),
        ("limit", "x", "space.limit: 'x' is not a number. Give a number."),
        ("limit", float("nan"), "space.limit: nan is not finite. Give a number."),
        ("depth", 1, "space.depth: 1 is not a list. Give the values in brackets: [a, b]."),
        ("depth", [True], "space.depth: true is not a whole number. Give a whole number."),
    ],
)
def test_a_value_of_another_type_is_one_line(setting: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as error:
        build_space("typed_settings_of_test", None, {"depth": [1], setting: value})
    assert str(error.value) == expected


def test_a_missing_setting_of_a_family_without_presets_names_none() -> None:
    with pytest.raises(UserError) as error:
        build_space("typed_settings_of_test", None, {})
    assert str(error.value) == "space.depth: missing. Set it."


def test_a_type_that_no_file_can_hold_is_named() -> None:
    kind = make_dataclass("Plain", [])
    holder = type("Holder", (), {})
    assert typed("space.x", {}, kind) == kind()
    with pytest.raises(UserError, match=r"^space\.x: its type <class '.*Holder'> holds what no file can\."):
        typed("space.x", 1, holder)
