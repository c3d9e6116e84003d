"""Samplers of the architectures of a training step. NumPy only."""

from samplers.attentive import AttentiveSampler
from samplers.complexity_aware import ComplexityAwareSampler
from samplers.fair import FairSampler
from samplers.pada import PADASampler
from samplers.performance_aware import PerformanceAwareSampler
from samplers.progressive import ProgressiveSampler
from samplers.sampler import ROLES, SAMPLERS, Examples, Paths, Plan, Sampler, SamplerState, Score, StepFeedback
from samplers.sandwich import SandwichSampler
from samplers.uniform import UniformSampler

__all__ = [
    "ROLES",
    "SAMPLERS",
    "AttentiveSampler",
    "ComplexityAwareSampler",
    "Examples",
    "FairSampler",
    "PADASampler",
    "Paths",
    "PerformanceAwareSampler",
    "Plan",
    "ProgressiveSampler",
    "Sampler",
    "SamplerState",
    "SandwichSampler",
    "Score",
    "StepFeedback",
    "UniformSampler",
]
