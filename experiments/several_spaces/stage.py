"""The run of an experiment of several spaces: a run for each space, then the best subnet of all for each budget.

Each space has a run directory of its own, `RUN/spaces/NAME`, which stages and commands work with as with any other. So
every one resumes as a run does, and the choice is made again from what they exported.
"""

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from experiments.configuration.experiment_config import SPACES, ExperimentConfig
from experiments.configuration.several_spaces import write_spaces
from experiments.pipeline.check import validate
from experiments.pipeline.open_run import open_run, resumption_notes
from experiments.pipeline.run import STAGES
from experiments.pipeline.run import run as run_one
from experiments.records import Summary
from experiments.reporting import write_report
from experiments.run_directory import check_run_directory
from experiments.several_spaces.budgets import about_space, with_absolute_budgets
from experiments.several_spaces.overview import ChosenSubnet, Overview, members, write_members
from experiments.storage.earlier import set_export_aside
from search_spaces import UserError
from search_spaces.sealed_json import read_json
from supernet.export.subnet import REPORT
from supernet.storage.manifest import MANIFEST, atomic_directory, disk_errors_for, sweep_temporaries, verify_manifest


def run_spaces(
    configs: Mapping[str, ExperimentConfig], name: str, out: Path, file: str, quiet: bool = False
) -> Overview:
    """Trains, searches and exports each space, then chooses; what is already done is not done again.

    Args:
        configs: Experiment of each space, from `load_spaces`.
        name: Name of the experiment.
        out: Directory of all runs, new or resumed.
        file: Name of the experiment's file, for messages.
        quiet: No progress bars.

    Returns:
        The chosen subnets; they are also in `out/subnets`, with `summary.json` and `report.html`.

    Raises:
        UserError: Something that the user can mend; what is refused at once leaves the directory as it was.
        Interrupted: Ctrl-C or SIGTERM; the same call resumes.
    """
    _check_place(out, list(configs))
    absolute = with_absolute_budgets(configs)
    runs = {space: out / SPACES / space for space in configs}
    for space, config in absolute.items():
        with about_space(space):
            if check_run_directory(runs[space], config) is None:
                validate(config, STAGES)
    with disk_errors_for(out):
        out.mkdir(parents=True, exist_ok=True)
        write_members(out, list(configs))
        write_spaces(configs, name, out)
    summaries = {}
    for space, config in absolute.items():
        with about_space(space), open_run(runs[space], config, STAGES, file) as directory:
            for note in resumption_notes(directory):
                print(f"note: space {space}: {note}", file=sys.stderr)
            summaries[space] = run_one(config, directory, quiet=quiet)
    budgets = [budget.name for budget in next(iter(configs.values())).budgets]
    with disk_errors_for(out):
        chosen = [_chosen(budget, summaries, out) for budget in budgets]
        sizes = {space: summary.space.size for space, summary in summaries.items() if summary.space is not None}
        overview = Overview(name, next(iter(summaries.values())).objective, sizes, chosen)
        overview.write(out)
        write_report(list(runs.values()), out / "report.html", "\n".join(overview.lines()))
    return overview


def _check_place(out: Path, names: list[str]) -> None:
    """Refuses a directory that holds something else."""
    found = members(out)
    if found is None and out.exists() and not (out.is_dir() and all(entry.name[0] == "." for entry in out.iterdir())):
        raise UserError(f"{out}: is not empty, and holds no runs of several spaces. Choose a new directory with --out.")
    if found is not None and list(found) != names:
        raise UserError(
            f"{out}: holds runs of spaces {', '.join(found)}, and the experiment has {', '.join(names)}. Choose "
            "another directory with --out."
        )


def _chosen(budget: str, summaries: Mapping[str, Summary], out: Path) -> ChosenSubnet:
    """Chooses the best of what the spaces exported for a budget, the first one of equals, and copies it."""
    exported = {
        space: network
        for space, summary in summaries.items()
        for network in summary.subnets or ()
        if network.budget == budget
    }
    objectives = {}
    for space, network in exported.items():
        report = read_json(Path(network.directory) / REPORT, "Delete it to export it again.")
        objectives[space] = float(report[f"search_{summaries[space].objective}"])
    space = min(objectives, key=lambda name: objectives[name])
    final = out / "subnets" / budget
    _copy(Path(exported[space].directory), final, out)
    return ChosenSubnet(space, objectives, dataclasses.replace(exported[space], directory=str(final)))


def _copy(source: Path, final: Path, out: Path) -> None:
    """Copies an exported subnet, unless it is there; another one that is there is set aside."""
    final.parent.mkdir(exist_ok=True)
    sweep_temporaries(final.parent, final.name)
    if final.exists():
        verify_manifest(final, f"Delete {final} to copy it again.")
        if (final / MANIFEST).read_bytes() == (source / MANIFEST).read_bytes():
            return
        set_export_aside(out, final.name)
    with atomic_directory(final) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
