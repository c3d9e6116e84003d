"""What tests of commands share; each file makes the working directory `here` that it needs."""

from pathlib import Path
from typing import Any

import pytest

from experiments import cli


@pytest.fixture
def supernest(here: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process; returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
