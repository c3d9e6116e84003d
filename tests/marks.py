"""Marks of tests that run the same for many cases: `make test` has a few of them, `make test-all` has all."""

import os
from collections.abc import Collection, Iterable
from typing import Any

import pytest

COMPLETE = os.environ.get("SUPERNEST_PARITY") == "all"
"""Whether every pass is compared on all architectures: minutes for a ViT, most of an hour for a MobileNet."""
COMBINED = ("darts", "encoder", "mobilenet_ensemble", "nas_bench_201_ensemble", "translation", "vit_ensemble")
"""Families of layers and of branches that other families have."""
OF_THEIR_OWN = ("darts", "encoder", "translation", "vit_ensemble")
"""Families of `COMBINED` with layers that no other family has. Parity and ONNX exports are always tested on them."""


def sampled(families: Iterable[str], besides: Collection[str] = ()) -> list[str]:
    """Returns those of some families that the usual run tests; `SUPERNEST_PARITY=all` tests them all.

    Args:
        families: Families.
        besides: Some of `COMBINED` that are tested too.
    """
    return sorted(family for family in families if COMPLETE or family not in COMBINED or family in besides)


def slow_but(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Returns parameters of a test, all but those in `quick` marked as slow.

    Args:
        quick: Cases that `make test` runs; each is one of `cases`.
        cases: All cases.
    """
    cases = list(cases)
    assert all(case in cases for case in quick), f"{quick} are not all among {cases}"
    return [pytest.param(case, marks=[] if case in quick else [pytest.mark.slow]) for case in cases]
