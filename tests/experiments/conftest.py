"""What tests of commands share; each file makes the working directory `here` that it needs."""

import math
from pathlib import Path
from typing import Any

import pytest

from experiments import cli
from experiments.process import progress


@pytest.fixture
def supernest(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command in this process; returns exit code, standard output and standard error without progress."""
    monkeypatch.setattr(progress, "SECONDS", math.inf)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
