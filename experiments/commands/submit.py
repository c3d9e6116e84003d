"""`supernest submit`."""

from collections.abc import Sequence
from pathlib import Path

import click

from experiments.commands.experiment_file import errors_about_file, load
from experiments.commands.options import set_option
from experiments.user_input.paths import UserPath

STAGES = ("run", "train", "search", "export", "rank", "gradient")


@click.command()
@click.argument("config", type=UserPath(), required=False)
@click.option("--address", required=True, help="Address of the cluster's dashboard, such as http://127.0.0.1:8265.")
@click.option(
    "--out",
    metavar="PATH",
    help="Run directory on the cluster: an absolute path that all of its nodes can read and write.",
)
@click.option(
    "--stage", type=click.Choice(STAGES), default="run", show_default=True, help="Command that runs on the cluster."
)
@click.option("--detach", is_flag=True, help="Do not follow the job's log.")
@click.option("--attach", metavar="JOB", help="Follow the log of a submitted job.")
@click.option("--stop", metavar="JOB", help="Stop a job; it saves a checkpoint.")
@set_option
def submit(
    config: Path | None, address: str, out: str | None, stage: str, detach: bool, attach: str | None,
    stop: str | None, overrides: Sequence[str],
) -> int:  # fmt: skip
    """Run an experiment as a job of a Ray cluster, and follow its log; Ctrl-C leaves the job running.

    The experiment is sent with the Python files beside it. Submit it again with the same --out to resume.
    """
    from experiments.pipeline import jobs
    from search_spaces.errors import UserError

    given = [name for name, value in (("CONFIG", config), ("--attach", attach), ("--stop", stop)) if value]
    if len(given) != 1:
        raise UserError(
            f"submit: {' and '.join(given) or 'nothing to do'}. Give one of CONFIG, --attach JOB, --stop JOB."
        )
    if stop is not None:
        jobs.stop(jobs.Job(address, stop))
        return 0
    if config is not None:
        if out is None:
            raise UserError("--out: missing. Give a directory that all nodes of the cluster share.")
        experiment = load(config, overrides)
        with errors_about_file(config):
            jobs.check(experiment, stage)
        job = jobs.submit(experiment, config.absolute().parent, stage, out, address)
        click.echo(f"{job.name}: submitted. To follow it: {jobs.attaching(job)}", err=detach)
        if detach:
            click.echo(job.name)
            return 0
    else:
        job = jobs.Job(address, str(attach))
    ended = jobs.follow(job)
    click.echo(f"{job.name}: {ended}", err=True)
    return 0 if ended == "SUCCEEDED" else 1
