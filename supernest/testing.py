"""Contracts that tests of a plug-in run; `supernest check` runs them on whatever an experiment names.

from supernest.testing import check_family, check_sampler, check_searcher

def test_my_family():
    check_family(build_supernet(build_space("my_family", None, {"classes": 10, "input_shape": [8, 8, 1]})))
"""

from experiments.contracts import ContractError
from experiments.contracts.data import check_source, check_task
from experiments.contracts.families import check_family
from experiments.contracts.samplers import check_paths, check_sampler
from experiments.contracts.searchers import check_searcher
from experiments.contracts.sharing import check_sharing
from search_spaces import build_space
from supernet.engine.supernet import build_supernet

__all__ = [
    "ContractError",
    "build_space",
    "build_supernet",
    "check_family",
    "check_paths",
    "check_sampler",
    "check_searcher",
    "check_sharing",
    "check_source",
    "check_task",
]
