"""RaySection: where an experiment runs, and on how many workers; it does not decide what comes out."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator, model_validator

from experiments.configuration.plugin_section import STRICT
from experiments.user_input.problems import Problem, ProblemsError, show

_CLUSTER = re.compile(r"(ray://)?[\w.\-]+:\d{1,5}|(ray://)?\[[0-9a-fA-F:]+\]:\d{1,5}")
_URI = re.compile(r"[a-z][a-z0-9+.\-]+://")


class RaySection(BaseModel):
    """Settings of the Ray workers that run the stages.

    A run goes on on another number of workers, or elsewhere, by the same command: the run directory keeps the section
    that it began with, and does not compare it.

    Attributes:
        address: Ray cluster. `local` starts Ray on this machine and stops it; `auto` joins a cluster that runs here;
            otherwise an address, host:port or ray://host:port.
        workers: Number of worker processes; not used if `elastic` is given.
        cpus_per_worker: Number of cores of each worker; XLA uses no more threads.
        gpus_per_worker: Number of accelerators of each worker, over which it spreads its rows of the batch.
        accelerator_type: Type of the accelerators, as Ray names it, such as A100; null for any.
        max_failures: Number of times that training restarts after workers died; -1 for any number.
        storage: Directory or URI of the checkpoints, accessible to all workers; null for the run directory, on a shared
            file system.
        parallel: Division of a step. `paths`: the workers share the step's paths, and as few paths as possible are
            divided between workers. `data`: every worker trains every path on its rows of the batch.
        elastic: Smallest and largest number of workers, such as [2, 8]; training continues with the available ones.
            Null: always `workers`.
        host: Network address that a Ray cluster started by Supernest listens on. Anyone who reaches it and has its
            token (~/.ray/auth_token) can run code.
    """

    model_config = STRICT

    address: str = "local"
    workers: Annotated[int, Field(ge=1, le=4096)] = 1
    cpus_per_worker: Annotated[float, Field(ge=1e-3, le=4096)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0, le=1024)] = 0
    accelerator_type: str | None = None
    max_failures: Annotated[int, Field(ge=-1, le=10**6)] = 3
    storage: str | None = None
    parallel: Literal["paths", "data"] = "paths"
    elastic: tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]] | None = None
    host: str = "127.0.0.1"

    @property
    def sizes(self) -> range:
        """Numbers of workers that training may have."""
        low, high = self.elastic or (self.workers, self.workers)
        return range(low, high + 1)

    @field_validator("address")
    @classmethod
    def _known(cls, address: str) -> str:
        if address not in ("local", "auto") and not _CLUSTER.fullmatch(address):
            text = f"{show(address)} is no address. Give local, auto, host:port or ray://host:port."
            raise ProblemsError([Problem((), text)])
        return address

    @field_validator("storage")
    @classmethod
    def _located(cls, storage: str | None, info: ValidationInfo) -> str | None:
        directory = (info.context or {}).get("paths_from")
        if storage is None or directory is None or _URI.match(storage):
            return storage
        return os.path.normpath(Path(directory, Path(storage).expanduser()))

    @field_validator("accelerator_type")
    @classmethod
    def _used(cls, name: str | None) -> str | None:
        if name is not None and name.upper().startswith("TPU"):
            text = f"{show(name)}: workers would compute on its host's processor. Only CPUs and GPUs are supported."
            raise ProblemsError([Problem((), text)])
        return name

    @model_validator(mode="after")
    def _whole_above_one(self) -> "RaySection":
        for name in ("cpus_per_worker", "gpus_per_worker"):
            value = getattr(self, name)
            if value > 1 and value != int(value):
                text = f"{value} is neither a whole number nor less than 1. Give {round(value)}."
                raise ProblemsError([Problem((name,), text)])
        return self

    @field_validator("elastic")
    @classmethod
    def _ascends(cls, elastic: tuple[int, int] | None) -> tuple[int, int] | None:
        if elastic is not None and elastic[0] > elastic[1]:
            text = f"{list(elastic)} does not ascend. Give {[elastic[1], elastic[0]]}."
            raise ProblemsError([Problem((), text)])
        return elastic
