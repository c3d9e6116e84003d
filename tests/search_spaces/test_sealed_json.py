"""Reading JSON that anybody may have written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces.errors import UserError
from search_spaces.sealed_json import parse_json, read_json
from supernet.storage.manifest import MANIFEST, verify_manifest

DEEP = "[" * 100_000


@pytest.mark.parametrize("text", [DEEP, DEEP.encode(), '{"a": ' * 100_000])
def test_what_is_too_deep_to_read_is_an_error_of_the_text(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(text)


READERS: list[Callable[[Path], Any]] = [
    lambda path: read_json(path, "Mend it."),
    lambda path: verify_manifest(path.parent),
]


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_too_deep_is_named(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    path = tmp_path / MANIFEST
    path.write_text(DEEP)
    with pytest.raises(UserError) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert "damaged" in str(caught.value)
