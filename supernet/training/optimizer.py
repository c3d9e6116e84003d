"""Optimizer settings, and the Optax transformation that they stand for."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from search_spaces import UserError


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW or SGD with linear warm-up, cosine or constant rate, and clipping by global norm; or votes.

    Args:
        type: Optimizer: `adamw`, `sgd`, or `votes`, by which an evolution strategy moves int8 weights. Of the keys
            below, `votes` uses only the learning rate and its schedule.
        learning_rate: Peak learning rate. For `votes`: number of steps of 1 that a weight takes for votes of one
            standard deviation.
        weight_decay: Rate of decoupled decay (AdamW), or factor of the decay added to the gradient (SGD), of kernels;
            biases, normalisation scales and positions are not decayed.
        betas: Decay rates per step of AdamW's two moments.
        momentum: Decay rate per step of SGD's momentum.
        nesterov: Use Nesterov's form of SGD's momentum.
        warmup_steps: Number of steps from rate 0 to the peak rate.
        schedule: Learning rate after the warm-up: `cosine` down to `final_learning_rate`, or `constant`.
        final_learning_rate: Learning rate at the end of the cosine.
        clip_norm: Largest global norm of the summed gradient; null does not clip.
        untouched: Treatment of weights that no path of the step used, whose gradient is exactly zero. `move`, as in
            published codes: moments and weight decay still change them. `hold`: they keep their value in that step
            (moments still decay).

    Raises:
        UserError: A value outside its range.
    """

    type: Literal["adamw", "sgd", "votes"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    nesterov: bool = True
    warmup_steps: int = 0
    schedule: Literal["cosine", "constant"] = "cosine"
    final_learning_rate: float = 0.0
    clip_norm: float | None = 1.0
    untouched: Literal["move", "hold"] = "move"

    def __post_init__(self) -> None:
        checks = {
            "learning_rate": (0 < self.learning_rate <= 1000, "more than 0 and at most 1000"),
            "weight_decay": (0 <= self.weight_decay <= 1000, "at least 0 and at most 1000"),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two numbers of at least 0 and less than 1"),
            "momentum": (0 <= self.momentum < 1, "at least 0 and less than 1"),
            "warmup_steps": (0 <= self.warmup_steps <= 10**9, "at least 0 and at most 1,000,000,000"),
            "final_learning_rate": (
                0 <= self.final_learning_rate <= self.learning_rate, "between 0 and learning_rate",
            ),
            "clip_norm": (
                self.clip_norm is None or 0 < self.clip_norm <= 1e9, "more than 0 and at most 1e9, or null",
            ),
        }  # fmt: skip
        for name, (good, expected) in checks.items():
            if not good:
                raise UserError(f"train.optimizer.{name}: {getattr(self, name)} is out of range. Give {expected}.")

    def rate(self, steps: int) -> optax.Schedule:
        """Returns the learning rate by step, for a training of `steps` steps."""
        if self.warmup_steps >= steps:
            raise UserError(
                f"train.optimizer.warmup_steps: {self.warmup_steps} is not less than the {steps} training steps. "
                f"Give at most {steps - 1}."
            )
        warmup = optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps)
        if self.schedule == "constant":
            rest = optax.constant_schedule(self.learning_rate)
        else:
            rest = optax.cosine_decay_schedule(
                self.learning_rate, steps - self.warmup_steps, self.final_learning_rate / self.learning_rate
            )
        return optax.join_schedules([warmup, rest], [self.warmup_steps])

    def build(self, steps: int) -> optax.GradientTransformation:
        """Returns the transformation for a training of `steps` steps.

        Raises:
            UserError: The type is not one of those that descend along gradients.
        """
        if self.type == "votes":
            raise UserError(
                "train.optimizer.type: votes move int8 weights, by train.method evolution_strategy. Set adamw or sgd."
            )
        rate = self.rate(steps)
        if self.type == "adamw":
            core = optax.adamw(rate, *self.betas, weight_decay=self.weight_decay, mask=decayed)
        else:
            core = optax.chain(
                optax.add_decayed_weights(self.weight_decay, mask=decayed),
                optax.sgd(rate, self.momentum or None, self.nesterov),
            )
        clip = optax.identity() if self.clip_norm is None else optax.clip_by_global_norm(self.clip_norm)
        chain = optax.chain(clip, core)
        return hold_untouched(chain) if self.untouched == "hold" else chain


def decayed(params: optax.Params) -> optax.Params:
    """Returns True for kernels, the only weights that decay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def hold_untouched(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Wraps `inner` so that entries whose gradient is exactly zero keep their value."""

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None) -> tuple:
        moved, state = inner.update(updates, state, params)
        return jax.tree.map(lambda u, g: jnp.where(g == 0, 0, u), moved, updates), state

    return optax.GradientTransformation(inner.init, update)
