"""Which architectures a training step sees. NumPy only."""

from samplers.sampler import ROLES, SAMPLERS, Paths, Sampler, SamplerState, StepFeedback
from samplers.sandwich import SandwichSampler
from samplers.uniform import UniformSampler

__all__ = [
    "ROLES",
    "SAMPLERS",
    "Paths",
    "Sampler",
    "SamplerState",
    "SandwichSampler",
    "StepFeedback",
    "UniformSampler",
]
