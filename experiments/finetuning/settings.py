"""Settings of a finetuning: the network, its data and training, and the hash of all that decides its outcome."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from experiments.configuration.experiment_config import ExperimentConfig
from experiments.exporting.lineage import TrainedOn
from experiments.finetuning.frame import alone
from experiments.training.learning_curve import evaluation_interval
from search_spaces import UserError
from supernet.export.subnet import ARCHITECTURE, CONFIG, WEIGHTS
from supernet.storage.manifest import MANIFEST
from supernet.tasks.distillation import Distillation

FINETUNED = "finetuned"
"""Key of the report of an exported network that holds its finetuning."""
SHARE = 10
"""Divisor of the supernet's steps and learning rate, which gives a finetuning's defaults."""
_TEACHER_WEIGHT = 0.5  # share of the loss where the experiment has no distillation of its own


@dataclass(frozen=True)
class Finetuning:
    """Settings of a finetuning.

    Attributes:
        source: Directory of the exported network.
        out: Directory to which the finetuned network is exported.
        config: Experiment that the network is from: data, space and settings of training.
        where: Its file, for messages.
        steps: Number of training steps; a tenth of the supernet's when None.
        learning_rate: Peak learning rate; a tenth of the supernet's when None.
        teacher: Exported network to learn from, or a run whose supernet's largest network teaches; labels alone when
            None.
        origin: Network whose weights `source` has with a head for another task; None where `source` has its own.
        seed: Seed of the order of examples and of their changes; the experiment's when None, which always decides what
            is held out.
    """

    source: Path
    out: Path
    config: ExperimentConfig
    where: str
    steps: int | None = None
    learning_rate: float | None = None
    teacher: Path | None = None
    seed: int | None = None
    origin: Path | None = None

    @property
    def work(self) -> Path:
        """Directory of checkpoints, which is removed in the end."""
        return self.out.absolute().with_name(f".{self.out.name}.finetuning")

    def check(self) -> None:
        """Refuses to write over something.

        Raises:
            UserError: `out` is there already, or would lie in the source.
        """
        source, out = self.source.resolve(), self.out.resolve()
        if out == source or source in out.parents:
            raise UserError(f"--out: {self.out} is the network that is trained on, or in it. Choose another directory.")
        if self.out.exists() and not (self.out / MANIFEST).is_file():
            raise UserError(f"--out: {self.out} exists, and is no exported network. Choose another directory.")

    def experiment(self, examples: int, teacher: Path | None) -> ExperimentConfig:
        """Returns the experiment that trains the network.

        Args:
            examples: Number of training examples.
            teacher: Directory of the exported network that teaches.
        """
        settings = self.config.train
        steps = self.steps or max(settings.total_steps(examples) // SHARE, 1)
        rate = self.learning_rate or settings.optimizer.learning_rate / SHARE
        optimizer = dataclasses.replace(
            settings.optimizer,
            learning_rate=rate,
            final_learning_rate=min(settings.optimizer.final_learning_rate, rate),
            warmup_steps=min(settings.optimizer.warmup_steps, steps // SHARE),
        )
        own, early = settings.distillation, self.config.finetune.early_stopping
        distillation = Distillation()
        if teacher is not None:
            weight = own.weight if own.type != "none" else _TEACHER_WEIGHT
            distillation = dataclasses.replace(own, type="external", weight=weight, teachers=(str(teacher),))
        train = settings.model_copy(
            update={
                "steps": steps, "epochs": None, "optimizer": optimizer, "distillation": distillation,
                "path_batch": "whole", "diagnose_every": None, "exits": (), "incubation": None, "method": "gradient",
            }
        )  # fmt: skip
        if early is not None:
            every = evaluation_interval(steps, early.evaluations)
            # Only what is evaluated and saved can be the best one.
            saves = every if settings.checkpoint == "best" else settings.checkpoint_every
            train = train.model_copy(update={"evaluate_every": every, "checkpoint_every": saves})
        seed = self.config.seed if self.seed is None else self.seed
        return alone(self.config).model_copy(update={"train": train, "seed": seed})

    def identity(self, config: ExperimentConfig, data: TrainedOn, teacher: Path | None) -> str:
        """Returns the hash of all that decides the outcome.

        Args:
            config: Experiment that trains the network.
            data: The data, as they were loaded.
            teacher: Directory of the exported network that teaches.
        """
        decides = {
            "data": dataclasses.asdict(data),
            "source": content_of(self.source),
            "teacher": None if teacher is None else content_of(teacher),
            "experiment": {**config.as_dict(), "name": None},
        }
        decides["experiment"]["train"]["distillation"]["teachers"] = []
        del decides["experiment"]["finetune"]
        early = self.config.finetune.early_stopping
        if early is not None:
            decides["early_stopping"] = early.model_dump()
        for name in ("log_every", "checkpoint_every", "keep_last", "keep_best"):
            del decides["experiment"]["train"][name]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def content_of(directory: Path) -> str:
    """Returns the hash of what decides what an exported network computes."""
    digest = hashlib.sha256()
    for name in (CONFIG, ARCHITECTURE, WEIGHTS):
        digest.update((directory / name).read_bytes())
    return digest.hexdigest()
