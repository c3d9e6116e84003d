"""Random streams: one for each purpose of a seed, which share nothing with each other."""

import hashlib
from enum import StrEnum
from typing import SupportsIndex

import numpy as np


class Purpose(StrEnum):
    """Everything that random numbers are drawn for.

    A new kind of draws gets a name of its own here; a name never changes, as the draws follow from it.
    """

    # data
    VALIDATION_SPLIT = "validation split"
    TEST_SPLIT = "test split"
    TRAINING_LIMIT = "training limit"
    ARCHITECTURE_SPLIT = "architecture split"
    EXAMPLE_ORDER = "example order"
    ARCHITECTURE_EXAMPLE_ORDER = "architecture example order"
    AUGMENTATION = "augmentation"
    ARCHITECTURE_AUGMENTATION = "architecture augmentation"
    HIDDEN_TOKENS = "hidden tokens"
    ARCHITECTURE_HIDDEN_TOKENS = "architecture hidden tokens"
    HIDDEN_TOKENS_OF_EVALUATION = "hidden tokens of evaluation"
    MODULE_EXAMPLES = "module examples"
    SERVER_EXAMPLES = "server examples"
    CLIENT_SHARDS = "client shards"
    CLIENT_EXAMPLES = "client examples"
    # weights
    WEIGHTS = "weights"
    PANEL_WEIGHTS = "panel weights"
    NEW_HEAD = "new head"
    TASK_HEAD = "task head"
    MODULE_WEIGHTS = "module weights"
    PERTURBATIONS = "perturbations"
    # samplers
    PATHS = "paths"
    BANK_PATHS = "bank paths"
    SAMPLED_EXAMPLES = "sampled examples"
    COST_BINS = "cost bins"
    FAIR_BLOCKS = "fair blocks"
    LEVEL_TABLES = "level tables"
    LEVEL_START = "level start"
    LEVEL_WALK = "level walk"
    PROBE_GENES = "probe genes"
    # searches
    CANDIDATES = "candidates"
    RELAXED_START = "relaxed start"
    RELAXED_DRAWS = "relaxed draws"
    EXTREME_STARTS = "extreme starts"
    COST_CHECK = "cost check"
    PREDICTOR_FOLDS = "predictor folds"
    # federations
    ASKED_CLIENTS = "asked clients"
    SENT_LAYERS = "sent layers"
    # evaluation
    EVALUATION_ORDER = "evaluation order"
    CALIBRATION = "calibration"
    PROBES = "probes"
    PANEL = "panel"
    RESAMPLING = "resampling"
    RANDOM_GROUPS = "random groups"
    GENERATED_TOKENS = "generated tokens"
    CONTRACT = "contract"
    CHANGED_WEIGHTS = "changed weights"
    PROXIES = "proxies"
    CURVES = "curves"
    PARZC = "ParZC"
    WARM_START = "warm start"
    SPLIT_DRAWS = "split draws"
    RANDOM_SPLIT = "random split"
    # devices
    PROFILED_NETWORKS = "profiled networks"
    HELD_OUT_NETWORKS = "held-out networks"
    PROFILE_ORDER = "profile order"
    MEASURED_TURNS = "measured turns"
    MEASURED_INPUTS = "measured inputs"
    PIECE_FOLDS = "piece folds"
    # benchmarks
    DISTILLED_STUDENT = "distilled student"


def stream(seed: SupportsIndex, purpose: Purpose, *numbers: SupportsIndex) -> np.random.Generator:
    """Returns the generator of a purpose's draws.

    Args:
        seed: Seed of the run.
        purpose: Purpose of the draws.
        numbers: Numbers that distinguish draws of the same purpose, such as a step or a class. Other numbers, or
            another number of them, give another stream.
    """
    return np.random.default_rng(entropy(seed, purpose, *numbers))


def entropy(seed: SupportsIndex, purpose: Purpose, *numbers: SupportsIndex) -> int:
    """Returns 128 bits that decide a stream.

    A hash of the text, since NumPy fills lists of numbers up with zeros: to it, [7, 2] and [7, 2, 0, 0] are one seed.
    """
    text = "/".join([purpose.value, *(str(int(number)) for number in (seed, *numbers))])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
