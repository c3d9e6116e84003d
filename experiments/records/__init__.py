"""Records that stages hand on: typed fields, and one place for each that writes it to JSON and reads it back.

Light to import: an answer from a finished run needs no JAX.
"""

from experiments.records.answer import Answer, FoundSubnet, OnDevice
from experiments.records.device import Accuracy, DeviceIdentity, Hardware, HeldOut, RuntimeFacts
from experiments.records.exported import (
    CompiledMemory,
    ConvertedNetwork,
    DeviceFigures,
    ExportedNetwork,
    Figures,
    MeasuredLatency,
    Prediction,
)
from experiments.records.federation import FederationFigures, RoundFigures
from experiments.records.finetuning import FinetunedNetwork, Interval, SplitGain, StoppedFinetuning
from experiments.records.ranking import (
    BaselineFigures,
    EarlyStopping,
    Estimate,
    OtherCounts,
    ProxyFigures,
    ProxyOrder,
    RankFigures,
)
from experiments.records.stages import GradientFigures, IncubationFigures, SearchFigures, TrainingFigures
from experiments.records.summary import SpaceFigures, Summary

__all__ = [
    "Accuracy",
    "Answer",
    "BaselineFigures",
    "CompiledMemory",
    "ConvertedNetwork",
    "DeviceFigures",
    "DeviceIdentity",
    "EarlyStopping",
    "Estimate",
    "ExportedNetwork",
    "FederationFigures",
    "Figures",
    "FinetunedNetwork",
    "FoundSubnet",
    "GradientFigures",
    "Hardware",
    "HeldOut",
    "IncubationFigures",
    "Interval",
    "MeasuredLatency",
    "OnDevice",
    "OtherCounts",
    "Prediction",
    "ProxyFigures",
    "ProxyOrder",
    "RankFigures",
    "RoundFigures",
    "RuntimeFacts",
    "SearchFigures",
    "SpaceFigures",
    "SplitGain",
    "StoppedFinetuning",
    "Summary",
    "TrainingFigures",
]
