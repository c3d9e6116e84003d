"""Records that stages hand on: typed fields, and one place for each that writes it to JSON and reads it back.

Light to import: an answer from a finished run needs no JAX.
"""

from experiments.records.answer import Answer, FoundSubnet, OnDevice
from experiments.records.exported import CompiledMemory, ExportedNetwork, MeasuredLatency, Prediction
from experiments.records.stages import GradientFigures, IncubationFigures, SearchFigures, TrainingFigures
from experiments.records.summary import SpaceFigures, Summary

__all__ = [
    "Answer",
    "CompiledMemory",
    "ExportedNetwork",
    "FoundSubnet",
    "GradientFigures",
    "IncubationFigures",
    "MeasuredLatency",
    "OnDevice",
    "Prediction",
    "SearchFigures",
    "SpaceFigures",
    "Summary",
    "TrainingFigures",
]
