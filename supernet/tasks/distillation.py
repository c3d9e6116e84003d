"""Distillation: what teaches a path besides its labels, and the divergence that it minimises.

References:
    Yu, Huang. Universally Slimmable Networks and Improved Training Techniques. ICCV 2019, arXiv:1903.05134.
    Wang, Gong, Li, Liu, Chandra. AlphaNet: Improved Training of Supernets with Alpha-Divergence. ICML 2021,
    arXiv:2102.07954.
    Tang et al. ElasticViT: Conflict-aware Supernet Training for Deploying Fast Vision Transformer on Diverse Mobile
    Devices. ICCV 2023, arXiv:2303.09730.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from search_spaces import UserError
from supernet.tasks.classes import CLASSES
from supernet.tasks.labels import Targets, are_classes
from supernet.tasks.outputs import Outputs

Teacher = Callable[[Shaped[Array, "b ..."]], Float[Array, "b *t c"]]
"""What the network takes (normalised images, or tokens) to logits; any callable."""


@dataclass(frozen=True)
class Distillation:
    """Teachers of a step's paths.

    Args:
        type: Teachers. `none`: labels only. `largest`: every path learns from the largest subnet; if that is the step's
            first path, it learns from labels and its pass is used; otherwise it gets its own forward pass. `ensemble`:
            the last path learns from the mean distribution of the random paths before it, as ElasticViT's smallest
            does; the others learn from `teachers`, or from labels if there are none. `external`: every path learns from
            `teachers`.
        weight: Teacher's share of the loss; 1 leaves no label term, as in US-Nets.
        temperature: Temperature that softens both distributions; the loss term is multiplied by its square.
        loss: Divergence. `kl`: forward Kullback-Leibler (as cross-entropy with the teacher's distribution). `alpha`:
            AlphaNet's adaptive alpha-divergence, for what the paths teach each other, and for `external` teachers.
        alpha_min: Order of the divergence that punishes a student's mass where the teacher has none; below 0.
        alpha_max: Order of the divergence that punishes missing mass; above 0.
        clip: Bound of the importance ratio (teacher ÷ student)^alpha at `alpha_min`; AlphaNet uses 5.
        teachers: External teachers, whose distributions are averaged: directories of exported subnets; `parent`, the
            network that the experiment starts from; or `module:function`, a function that maps the network's input to
            logits: normalised images float32[b, h, w, c] to [b, classes], or tokens int32[b, t] to [b, t, vocabulary].
    """

    type: Literal["none", "largest", "ensemble", "external"] = "none"
    weight: float = 1.0
    temperature: float = 1.0
    loss: Literal["kl", "alpha"] = "kl"
    alpha_min: float = -1.0
    alpha_max: float = 1.0
    clip: float = 5.0
    teachers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UserError(f"train.distillation.weight: {self.weight} is not in 0..1. Give a share of the loss.")
        for name in ("temperature", "clip", "alpha_max"):
            if getattr(self, name) <= 0:
                raise UserError(f"train.distillation.{name}: {getattr(self, name)} is not positive. Try 1.0.")
            if not 1e-3 <= getattr(self, name) <= 1000:
                raise UserError(f"train.distillation.{name}: {getattr(self, name)} is not in 0.001..1000. Try 1.0.")
        if self.alpha_min >= 0:
            raise UserError(f"train.distillation.alpha_min: {self.alpha_min} is not negative. AlphaNet uses -1.0.")
        if self.alpha_min < -100:
            raise UserError(f"train.distillation.alpha_min: {self.alpha_min} is less than -100. AlphaNet uses -1.0.")
        if self.type == "external" and not self.teachers:
            raise UserError("train.distillation.teachers: none for type 'external'. Name at least one.")
        if self.teachers and self.type not in ("ensemble", "external"):
            raise UserError(
                f"train.distillation.teachers: not used by type {self.type!r}. Set type to external or ensemble."
            )

    def check_roles(self, roles: Sequence[str]) -> None:
        """Refuses paths of a step that this distillation cannot use.

        Raises:
            UserError: There is nobody to learn from.
        """
        if self.type == "ensemble" and "random" not in roles[:-1]:
            raise UserError(
                "train.distillation.type: 'ensemble', but the sampler draws no random path that a later path of its "
                "step could learn from. Draw more paths a step, or set train.distillation.type to none."
            )


class Lesson(NamedTuple):
    """Targets and weights that one path learns from; numbers, so that every path runs the same program."""

    probabilities: Float[Array, "b *t c"] | None  # or numbers, where outputs are those
    share: np.float32
    alpha: np.float32

    @staticmethod
    def labels(targets: Targets) -> "Lesson":
        """Labels only; distributions stand in for the one that nobody teaches, so that every path runs one program."""
        return Lesson.taught(None if are_classes(targets) else targets, 0.0, 0.0)

    @staticmethod
    def taught(probabilities: Float[Array, "b *t c"] | None, share: float, alpha: float) -> "Lesson":
        """Numbers as arrays: one compiled program for all of them."""
        return Lesson(probabilities, np.float32(share), np.float32(alpha))


def lesson(
    settings: Distillation,
    roles: Sequence[str],
    path: int,
    logits: Callable[[int | None], Float[Array, "b *t c"]],
    external: Float[Array, "b *t c"] | None,
    targets: Targets,
    outputs: Outputs = CLASSES,
) -> Lesson:
    """Chooses the teacher of a path of a step.

    Args:
        settings: Kind of distillation.
        roles: Roles of all paths of the step.
        path: Index of the path that learns.
        logits: Logits of an earlier path, by its number; with None, those of the largest subnet.
        external: Mean distribution of the external teachers, if there are any.
        targets: Targets of the examples, or any distributions of their shape, for a path that nobody teaches.
        outputs: Meaning of the outputs.
    """
    alpha = float(settings.loss == "alpha")
    if settings.type == "largest" and (path or roles[0] != "largest"):
        teacher = logits(0 if roles[0] == "largest" else None)
        return Lesson.taught(outputs.teach(teacher, settings.temperature), settings.weight, alpha)
    if settings.type == "ensemble" and path == len(roles) - 1:
        random = [logits(number) for number, role in enumerate(roles[:-1]) if role == "random"]
        mean = jnp.mean(outputs.teach(jnp.stack(random), settings.temperature), axis=0)
        return Lesson.taught(mean, settings.weight, alpha)
    if settings.type in ("ensemble", "external") and external is not None:
        return Lesson.taught(external, settings.weight, alpha if settings.type == "external" else 0.0)
    return Lesson.labels(targets)


def example_losses(
    settings: Distillation,
    logits: Float[Array, "b *t c"],
    targets: Shaped[Array, "b ..."],
    given: Lesson,
    outputs: Outputs = CLASSES,
) -> Float[Array, " b"]:
    """Loss of each example: `(1 - share) * loss of the labels + share * divergence from the teacher`.

    Where an example has many outputs, the mean over those with a label.
    """
    labelled = outputs.losses(logits, targets)
    if given.probabilities is None:
        return outputs.mean(labelled, targets)
    taught = outputs.divergence(given.probabilities, logits, settings, jnp.asarray(given.alpha))
    # A path without a teacher has no distribution to diverge from; what it does not use must not reach its gradient.
    return outputs.mean(jnp.where(given.share > 0, labelled + given.share * (taught - labelled), labelled), targets)
