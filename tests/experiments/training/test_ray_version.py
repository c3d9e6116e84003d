"""What Supernest needs of Ray that is not public: it is there, or one line says which version has it."""

import sys

import pytest

from experiments.training import on_ray
from search_spaces import UserError


@pytest.fixture
def ray():
    """Not before the test runs: Ray takes its settings from the environment when it is imported."""
    return pytest.importorskip("ray")


def test_the_installed_ray_has_the_callback(ray):
    assert callable(on_ray.controller_callback().after_controller_start), f"Ray {ray.__version__} has moved it"
    assert ray.__version__ == on_ray._KNOWN, "name the version that the tests run with in on_ray._KNOWN"


def test_a_ray_without_it_is_one_line(ray, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.train.v2._internal.execution.callback", None)
    with pytest.raises(
        UserError, match=rf"ray: version {ray.__version__} has no callback.*pip install 'ray\["
    ) as error:
        on_ray.controller_callback()
    assert "\n" not in str(error.value)
