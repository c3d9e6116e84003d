"""SealedSection: a section that names something on disk, and stays with the content that the experiment began with."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationInfo, model_validator

from experiments.configuration.plugin_section import STRICT
from experiments.user_input.paths import path_fault, shown
from experiments.user_input.problems import Problem, ProblemsError


class SealedSection(BaseModel):
    """Something on disk that an experiment begins with; a text stands for the path alone.

    Attributes:
        path: File or directory; relative to the experiment file.
        sha256: SHA-256 of the content in hexadecimal; filled in by a run, so that it continues with the same content
            only.
    """

    model_config = STRICT

    path: str
    sha256: str | None = None

    @classmethod
    def _content(cls, path: Path, directory: Path, sealed: bool) -> tuple[Path, str]:
        """Where the content is found, and its SHA-256.

        Args:
            path: The path, absolute.
            directory: Directory of the experiment file.
            sealed: Whether a hash is known, as it is in a run directory.

        Raises:
            ProblemsError: There is nothing of the kind.
            UserError: Nothing of the kind is there.
        """
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any, info: ValidationInfo) -> Any:
        given = {"path": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping) or not isinstance(given.get("path"), str):
            return given
        fault = path_fault(given["path"])
        if fault is not None:
            raise ProblemsError([Problem(("path",), f"{shown(given['path'])} {fault}")])
        directory = Path((info.context or {}).get("paths_from") or Path.cwd())
        path = Path(os.path.normpath(directory / Path(given["path"]).expanduser()))
        sealed = given.get("sha256")
        path, found = cls._content(path, directory, bool(sealed))
        if sealed not in (None, found):
            text = f"{path} is not what the experiment began with. Restore it, or begin a new run."
            raise ProblemsError([Problem(("sha256",), text)])
        return {**given, "path": str(path), "sha256": found}
