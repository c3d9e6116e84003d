"""Marks of tests that run the same for many cases: `make test` has a few of them, `make test-all` has all."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(quick: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Returns parameters of a test, all but those in `quick` marked as slow.

    Args:
        quick: Cases that `make test` runs; each is one of `cases`.
        cases: All cases.
    """
    cases = list(cases)
    assert all(case in cases for case in quick), f"{quick} are not all among {cases}"
    return [pytest.param(case, marks=[] if case in quick else [pytest.mark.slow]) for case in cases]
