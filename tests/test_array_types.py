"""Array annotations of the typed packages are checked in every test."""

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation

from search import breeding


def test_an_array_of_another_type_or_rank_is_refused() -> None:
    rng = np.random.default_rng(0)
    assert breeding.pick(rng, np.eye(3, dtype=bool)).tolist() == [0, 1, 2]
    for wrong in (np.eye(3), np.ones(3, bool)):
        with pytest.raises(BeartypeCallHintViolation):
            breeding.pick(rng, wrong)
