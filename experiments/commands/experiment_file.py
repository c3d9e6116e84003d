"""Reading of experiment files for commands, and errors that name the file."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.configuration.experiment_config import ExperimentConfig

_SECTION = re.compile(
    r"(?:search\.(?=budgets\b))?(?=(?:data|device|start|spaces?|supernet|evaluation|export|sampler|train|search|gradient|budgets|rank|ray)[.:])"
)


def load(path: Path, overrides: Sequence[str], without: Sequence[str] = ()) -> "ExperimentConfig":
    """Loads the configuration; see `experiments.configuration.experiment_config.load_config`."""
    from experiments.configuration.experiment_config import load_config

    return load_config(path, overrides, without)


@contextlib.contextmanager
def errors_about_file(config: Path) -> Iterator[None]:
    """Puts the experiment file before errors that are about one of its keys."""
    from search_spaces.errors import UserError

    try:
        yield
    except UserError as error:
        match = _SECTION.match(str(error))
        if match is None:
            raise
        raise UserError(f"{config}: {str(error)[match.end() :]}") from None
