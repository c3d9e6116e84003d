"""The section `train.incubation`: training that starts from a network whose modules were trained one by one."""

import dataclasses
from typing import Annotated

from pydantic import BaseModel, Field

from experiments.configuration.number_types import Positive
from experiments.configuration.plugin_section import STRICT
from experiments.user_input.problems import Problem, ProblemsError
from supernet.training.optimizer import OptimizerSettings

PARTS = "incubation"
"""Directory of a run that holds the parts of an incubation."""
META_PART = "meta"
"""Name of the meta-model's training."""


def module_part(index: int) -> str:
    """Returns the name of the training of a module, from 0."""
    return f"module_{index + 1}"


class IncubationSection(BaseModel):
    """Start of the training: the largest network, put together from modules that were trained one by one.

    A meta-model with one layer a module is trained first. Then each module is trained in its place between the frozen
    layers of the meta-model, on the workers of `ray` at the same time. The training goes on from all modules together.

    Attributes:
        modules: Number of modules, which divides the number of layers (K).
        meta_steps: Number of training steps of the meta-model.
        module_steps: Number of training steps of each module.
        learning_rate: Peak learning rate of these trainings; null for that of `train.optimizer`.
        warmup_steps: Number of steps of these trainings from rate 0 to the peak rate; null for that of
            `train.optimizer`.
    """

    model_config = STRICT

    modules: Annotated[int, Field(ge=2, le=10**4)]
    meta_steps: Positive
    module_steps: Positive
    learning_rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] | None = None

    @property
    def steps(self) -> dict[str, int]:
        """Training steps of each part, by the name of its directory in `incubation/` of a run."""
        modules = {module_part(index): self.module_steps for index in range(self.modules)}
        return {META_PART: self.meta_steps, **modules}

    def optimizer(self, settings: OptimizerSettings) -> OptimizerSettings:
        """Returns the settings of these trainings' optimizer.

        Args:
            settings: Settings of `train.optimizer`.
        """
        rate = settings.learning_rate if self.learning_rate is None else self.learning_rate
        return dataclasses.replace(
            settings,
            learning_rate=rate,
            final_learning_rate=min(settings.final_learning_rate, rate),
            warmup_steps=settings.warmup_steps if self.warmup_steps is None else self.warmup_steps,
        )

    def check_warmup(self, settings: OptimizerSettings) -> None:
        """Refuses a warm-up that does not end.

        Args:
            settings: Settings of `train.optimizer`.

        Raises:
            ProblemsError: The warm-up has as many steps as one of the trainings, or more.
        """
        shortest, warmup = min(self.meta_steps, self.module_steps), self.optimizer(settings).warmup_steps
        if warmup >= shortest:
            text = (
                f"{warmup} is not less than the {shortest} steps of a training of incubation. Give at most "
                f"{shortest - 1}."
            )
            if self.warmup_steps is None:
                text = f"not set, and the {warmup} of train.optimizer are{text.removeprefix(f'{warmup} is')}"
            raise ProblemsError([Problem(("incubation", "warmup_steps"), text)])
