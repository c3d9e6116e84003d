"""The command `submit`: an experiment as a job of a Ray cluster, followed from here, left alone, or followed again."""

import asyncio
import contextlib
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.configuration.ray_section import RaySection
from experiments.distributed.connect import import_ray
from experiments.pipeline.check import validate
from experiments.process.interrupt import Interrupted
from search_spaces import UserError

_EXPERIMENT = "experiment.yaml"
_PATIENCE, _ANSWER = 60.0, 10.0  # seconds
# Ray gives a job three seconds from SIGTERM to SIGKILL otherwise; a checkpoint may take longer.
_VARIABLES = {"PYTHONUNBUFFERED": "1", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
_NO_AGENT = (
    f"None in {_PATIENCE:.0f} s. Another Ray on that machine may have its port: start the head with "
    "--dashboard-agent-listen-port=PORT"
)


class Job(NamedTuple):
    """A job of a cluster.

    Attributes:
        address: Address of the cluster's dashboard.
        name: The job's name there.
    """

    address: str
    name: str


def check(config: ExperimentConfig, stage: str) -> None:
    """Puts an experiment together as far as its data is here; it may be on the cluster only.

    Raises:
        UserError: The experiment cannot run as it is.
    """
    try:
        validate(config, (stage,))
    except UserError as error:
        if not str(error).startswith("data"):
            raise


def submit(config: ExperimentConfig, modules: Path, stage: str, out: str, address: str) -> Job:
    """Packs an experiment and the modules beside it, and submits them to a cluster whose nodes have Supernest.

    Args:
        config: The experiment. There, its section `ray` joins that cluster, with one worker if it has none.
        modules: Directory whose Python files are packed, for plug-ins.
        stage: Command to run, such as `run` or `search`.
        out: Run directory on the cluster, absolute, where all nodes see it.
        address: Address of the dashboard, such as http://127.0.0.1:8265.

    Raises:
        UserError: The cluster cannot be reached, or refuses.
    """
    if not Path(out).is_absolute():
        raise UserError(f"--out: {out} is not absolute. Give a directory that all nodes of the cluster share.")
    client = _client(address)
    with _packed(config, modules) as directory:
        name = _when_ready(
            address,
            client.submit_job,
            entrypoint=f"supernest {stage} {_EXPERIMENT} --out {shlex.quote(out)}",
            runtime_env={"working_dir": str(directory), "env_vars": _VARIABLES},
            metadata={"experiment": config.name, "out": out},
        )
    return Job(address, name)


def follow(job: Job) -> str:
    """Prints the log of a job until it ends.

    Returns:
        How it ended: SUCCEEDED, FAILED or STOPPED.

    Raises:
        UserError: There is no such job.
        Interrupted: Ctrl-C; the job goes on.
    """
    client = _client(job.address)
    _known(client, job)
    try:
        asyncio.run(_print_log(client, job.name))
    except KeyboardInterrupt:
        raise Interrupted(f"left; the job goes on. To see it again: {attaching(job)}") from None
    return str(client.get_job_status(job.name).value)


def stop(job: Job) -> None:
    """Asks a job to stop, as Ctrl-C would here: a checkpoint is saved.

    Raises:
        UserError: There is no such job.
    """
    client = _client(job.address)
    _known(client, job)
    client.stop_job(job.name)


def attaching(job: Job) -> str:
    """Returns the command that follows a job again."""
    return f"supernest submit --attach {job.name} --address {job.address}"


def _client(address: str) -> Any:
    ray = import_ray()
    from ray.job_submission import JobSubmissionClient

    try:
        _reach(address)
        return JobSubmissionClient(address)
    except (OSError, HTTPException, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        text = " ".join(str(getattr(error, "reason", error)).split())[:200].rstrip(".")
        raise UserError(
            f"--address: {address}: {text}. Give that of the dashboard, such as http://127.0.0.1:8265 (a cluster's is "
            "reached through ssh -L or kubectl port-forward)."
        ) from None


def _reach(address: str) -> None:
    """Asks once; Ray's client would wait for an answer however long it takes."""
    url = address if "://" in address else f"http://{address}"
    with contextlib.suppress(HTTPError):  # that is an answer
        urlopen(f"{url.rstrip('/')}/api/version", timeout=_ANSWER).close()


def _when_ready(address: str, submit_job: Callable[..., str], **job: Any) -> str:
    """Submits; a dashboard answers some seconds before the agent that starts jobs has told it of itself."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return submit_job(**job)
        except RuntimeError as error:
            starting = "No available agent" in str(error)
            if not starting or time.monotonic() > end:
                text = " ".join(str(error).split())[:200].rstrip(".")
                remedy = _NO_AGENT if starting else "Nothing was started"
                raise UserError(f"--address: {address}: {text}. {remedy}.") from None
        time.sleep(1.0)


def _known(client: Any, job: Job) -> None:
    try:
        client.get_job_status(job.name)
    except RuntimeError:
        raise UserError(
            f"--attach: {job.name} is no job of {job.address}. `ray job list --address {job.address}` names them."
        ) from None


@contextlib.contextmanager
def _packed(config: ExperimentConfig, modules: Path) -> Iterator[Path]:
    """A directory with the resolved experiment, the Python files beside it, and the packages of its plug-ins."""
    ray = (config.ray or RaySection()).model_copy(update={"address": "auto"})
    with tempfile.TemporaryDirectory(prefix="supernest-job-") as scratch:
        directory = Path(scratch)
        for file in modules.glob("*.py"):
            shutil.copy(file, directory)
        for name in {plugin.partition(".")[0] for plugin in config.plugins}:
            if (modules / name).is_dir():
                shutil.copytree(modules / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        text = config.model_copy(update={"ray": ray}).dump()
        (directory / _EXPERIMENT).write_text(text, encoding="utf-8")
        yield directory


async def _print_log(client: Any, name: str) -> None:
    async for lines in client.tail_job_logs(name):
        print(lines, end="", flush=True)
