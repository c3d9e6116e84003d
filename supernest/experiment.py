"""Experiments in Python: read from YAML or built from settings, checked, and run stage by stage."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.configuration.experiment_config import ExperimentConfig, config_of, load_config
from experiments.pipeline.open_run import open_run
from experiments.process.freed_memory import keep_freed_memory
from search_spaces.errors import UserError
from supernest.finished_run import Run

STAGES = ("train", "search", "export")


class Experiment:
    """Everything that decides the outcome of a run.

    Args:
        source: An experiment file; None where `sections` give everything.
        settings: Settings that override the file's, by key: `{"train.steps": 500}`.
        sections: Sections of an experiment file, as they stand there, in place of a file:
            `Experiment(data={"source": "digits"}, space={...}, train={...})`. Paths in them are relative to the working
            directory.

    Raises:
        UserError: A setting is wrong or missing; a line each.
    """

    def __init__(
        self, source: str | Path | None = None, *, settings: Mapping[str, Any] | None = None, **sections: Any
    ) -> None:
        if (source is None) == (not sections):
            raise UserError("Experiment: give an experiment file, or its sections by name, and not both.")
        if source is None and settings:
            raise UserError("Experiment: settings override those of a file. Put them into the sections.")
        self.source = None if source is None else Path(source)
        if self.source is None:
            self.config: ExperimentConfig = config_of(sections, Path(), "Experiment")
        else:
            self.config = load_config(
                self.source, [f"{key}={_as_yaml(value)}" for key, value in (settings or {}).items()]
            )

    def check(self) -> Mapping[str, Any]:
        """Puts the experiment together without running it: data, sizes, costs and budgets, as `supernest check --json`.

        Raises:
            UserError: It cannot be run as it is.
        """
        from experiments.pipeline.check import describe

        with self._named():
            return describe(self.config).as_json()

    def run(self, out: str | Path | None = None, stages: Sequence[str] = STAGES, progress: bool = True) -> Run:
        """Runs stages in a run directory; stages that are done there are not done again.

        Args:
            out: The run directory, new or resumed; `runs/NAME` when None.
            stages: Any of `train`, `search`, `export`, `gradient` (in place of `train`) and `rank`.
            progress: Show progress bars where the output is a terminal.

        Raises:
            UserError: Something that the user can mend; nothing is lost.
            Interrupted: Ctrl-C; the same call resumes.
        """
        keep_freed_memory()
        out = Path(out) if out is not None else Path("runs") / self.config.name
        with self._named():
            directory = open_run(out, self.config, stages, str(self.source or "EXPERIMENT"))
            from experiments.pipeline import run as pipeline

            with directory:
                pipeline.run(self.config, directory, stages, quiet=not progress)
        return Run(out)

    def train(self, out: str | Path | None = None, progress: bool = True) -> Run:
        """Trains the supernet only; see `run`."""
        return self.run(out, ("train",), progress)

    def search(self, out: str | Path | None = None, progress: bool = True) -> Run:
        """Searches a trained supernet only; see `run`."""
        return self.run(out, ("search",), progress)

    def rank(self, out: str | Path | None = None, progress: bool = True) -> Run:
        """Compares a trained supernet's ranking with that of networks trained on their own; see `run`."""
        return self.run(out, ("rank",), progress)

    def export(self, out: str | Path | None = None, progress: bool = True) -> Run:
        """Exports the best subnet of each budget of a finished search; see `run`."""
        return self.run(out, ("export",), progress)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Puts the experiment's file before errors that are about one of its keys."""
        if self.source is None:
            yield
            return
        from experiments.commands.experiment_file import errors_about_file

        with errors_about_file(self.source):
            yield


def run(
    source: str | Path,
    out: str | Path | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    stages: Sequence[str] = STAGES,
    progress: bool = True,
) -> Run:
    """Runs an experiment file; see `Experiment` and `Experiment.run` for the arguments."""
    return Experiment(source, settings=settings).run(out, stages, progress)


def _as_yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("\n...\n").strip()
