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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from search_spaces import UserError
from supernet.labels import Targets, are_classes, output_losses, over_outputs

Teacher = Callable[[Shaped[Array, "b ..."]], Float[Array, "b *t c"]]
"""What the network takes (normalised images, or tokens) to logits; any callable."""


@dataclass(frozen=True)
class Distillation:
    """What the paths of a step learn from.

    Args:
        type: `none`: labels only. `largest`: every path learns from the largest subnet; where that is the step's first
            path it learns from labels and its pass is used, otherwise it has a forward pass of its own. `ensemble`: the
            last path learns from the mean distribution of the random paths before it, as ElasticViT's smallest does;
            the others learn from `teachers` if there are any, and from labels otherwise. `external`: every path learns
            from `teachers`.
        weight: Share of the loss that the teacher gives; 1 leaves no label term, as in US-Nets.
        temperature: Softens both distributions; the term is scaled by its square.
        loss: `kl`: forward Kullback-Leibler divergence (as cross-entropy with the teacher's distribution). `alpha`:
            AlphaNet's adaptive alpha-divergence, for what the paths teach each other, and for `external` teachers.
        alpha_min: Order of the divergence that punishes a student's mass where the teacher has none; below 0.
        alpha_max: Order of the one that punishes missing mass; above 0.
        clip: Bound of the importance ratio (teacher ÷ student)^alpha at `alpha_min`; AlphaNet uses 5.
        teachers: External teachers, whose distributions are averaged: directories of exported subnets; `parent`, what
            the experiment starts from; or `module:function`, a function of what the network takes to logits: of
            normalised images float32[b, h, w, c] to [b, classes], or of tokens int32[b, t] to [b, t, vocabulary].
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
    """What one path learns from; numbers, so that every path runs the same program."""

    probabilities: Float[Array, "b *t c"] | None
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
) -> Lesson:
    """Chooses the teacher of a path of a step.

    Args:
        settings: Which kind.
        roles: Of all paths of the step.
        path: Which of them learns.
        logits: Those of a path before it, by its number; with None those of the largest subnet.
        external: Mean distribution of the external teachers, if there are any.
        targets: What the examples should have been, or any distributions of their shape, for a path that nobody
            teaches.
    """
    alpha = float(settings.loss == "alpha")
    if settings.type == "largest" and (path or roles[0] != "largest"):
        teacher = logits(0 if roles[0] == "largest" else None)
        return Lesson.taught(soften(teacher, settings.temperature), settings.weight, alpha)
    if settings.type == "ensemble" and path == len(roles) - 1:
        random = [logits(number) for number, role in enumerate(roles[:-1]) if role == "random"]
        mean = jnp.mean(soften(jnp.stack(random), settings.temperature), axis=0)
        return Lesson.taught(mean, settings.weight, alpha)
    if settings.type in ("ensemble", "external") and external is not None:
        return Lesson.taught(external, settings.weight, alpha if settings.type == "external" else 0.0)
    return Lesson.labels(targets)


@jax.jit
def soften(logits: Float[Array, "*n c"], temperature: float) -> Float[Array, "*n c"]:
    """The distribution of logits at a temperature."""
    return jax.nn.softmax(logits / temperature)


def example_losses(
    settings: Distillation, logits: Float[Array, "b *t c"], targets: Targets, given: Lesson
) -> Float[Array, " b"]:
    """Loss of each example: `(1 - share) * cross-entropy + share * divergence from the teacher`.

    Where an example has many outputs, the mean over those with a label.
    """
    labelled = output_losses(logits, targets)
    if given.probabilities is None:
        return over_outputs(labelled, targets)
    t = settings.temperature
    log_q = jax.nn.log_softmax(logits / t)
    kl = -jnp.sum(given.probabilities * log_q, axis=-1)
    adaptive = alpha_divergence(
        given.probabilities, logits / t, settings.alpha_min, settings.alpha_max, settings.clip
    )  # fmt: skip
    taught = jnp.where(given.alpha > 0, adaptive, kl) * t**2
    # A path without a teacher has no distribution to diverge from; what it does not use must not reach its gradient.
    return over_outputs(jnp.where(given.share > 0, labelled + given.share * (taught - labelled), labelled), targets)


def alpha_divergence(
    p: Float[Array, "*n c"], logits: Float[Array, "*n c"], alpha_min: float, alpha_max: float, clip: float
) -> Float[Array, "*n"]:
    """The larger of two alpha-divergences from teacher `p`, example by example (AlphaNet's adaptive loss).

    `D_a(p|q) = sum q ((p/q)^a - 1) / (a (a - 1))`, with `(p/q)^a` at most `clip` for `alpha_min`. The value is that
    of the divergence, the gradient that of AlphaNet's surrogate `-sum sg(q rho_a) log q`, which equals the
    divergence's own where nothing is clipped.

    Args:
        p: The teacher's distribution.
        logits: Of the student.
        alpha_min: Negative order.
        alpha_max: Positive order; 1 is the Kullback-Leibler divergence.
        clip: Bound of the ratio's power at `alpha_min`.
    """
    low, low_gradient = _order(p, logits, alpha_min, clip)
    high, high_gradient = _order(p, logits, alpha_max, None)
    return jnp.where(high > low, high_gradient, low_gradient)


def _order(
    p: Float[Array, "*n c"], logits: Float[Array, "*n c"], alpha: float, clip: float | None
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The divergence of one order; and the same value with the surrogate's gradient."""
    log_q = jax.nn.log_softmax(logits)
    q = jnp.exp(log_q)
    log_ratio = jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny)) - log_q
    bound = jnp.inf if clip is None else jnp.log(clip)
    weighted = jnp.exp(log_q + jnp.minimum(alpha * log_ratio, bound))  # q (p/q)^alpha; q alone may underflow
    if alpha == 1:
        value = jnp.sum(jnp.where(p > 0, p * log_ratio, 0.0), axis=-1)
    else:
        value = jnp.sum(weighted - q, axis=-1) / (alpha * (alpha - 1))
    # AlphaNet's rho also has a constant, whose gradient is zero because sum q grad(log q) is.
    surrogate = -jnp.sum(jax.lax.stop_gradient(weighted / alpha) * log_q, axis=-1)
    return value, jax.lax.stop_gradient(value - surrogate) + surrogate
