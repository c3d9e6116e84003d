"""A plug-in that fails during export is named, with its method, in one line; what the run has is kept."""

from pathlib import Path
from typing import Any

import pytest

PLUGIN = """\
from search_spaces import FAMILIES
from search_spaces.vit import ViTSpace
from supernet.standalone import MODULES
from supernet.standalone.vit import ViT
from supernet.engine.supernet import SUPERNETS
from supernet.families.vit import ViTSupernet


@FAMILIES.register("leaky")
class LeakySpace(ViTSpace):
    family = "leaky"


@MODULES.register("leaky")
class LeakyViT(ViT):
    pass


@SUPERNETS.register("leaky")
class Leaky(ViTSupernet):
    def slice(self, params, architecture, statistics):
        return {"head": params["not there"]}
"""
YAML = """\
plugins: [leaky_of_test_plugin_errors]
space: {family: leaky, preset: small, depth: [1], width: [16], heads: [1, 2], head_dim: 8}
train: {steps: 2, batch_size: 16, diagnose_every: null}
search: {type: random, evaluations: 2}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a plug-in and its experiment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaky_of_test_plugin_errors.py").write_text(PLUGIN, encoding="utf-8")
    (tmp_path / "e.yaml").write_text(YAML, encoding="utf-8")
    return tmp_path


def test_a_plugin_that_fails_at_export_is_named_with_its_method(supernest: Any, here: Path) -> None:
    code, _, err = supernest("run", "e.yaml", "--out", "run", "--quiet")
    assert code == 2
    place = f"{here / 'leaky_of_test_plugin_errors.py'}:22: plug-in leaky_of_test_plugin_errors: "
    assert place + "Leaky.slice raised KeyError while run/subnets/full was exported: 'not there'. Mend" in err
    assert len(err.splitlines()) == 1
    assert (here / "run/search/archive.jsonl").read_bytes().count(b"\n") == 3
    assert not list((here / "run").glob("subnets/*"))
