"""The cluster examples: they parse, run the experiment beside them, and let nobody in."""

from pathlib import Path

import pytest
import yaml

from experiments.cli import supernest

CLUSTER = Path(__file__).resolve().parents[2] / "experiments" / "cluster"


@pytest.fixture(params=["ray-cluster.yaml", "rayjob.yaml"])
def content(request):
    return yaml.safe_load((CLUSTER / request.param).read_text(encoding="utf-8"))


def texts(tree):
    """All scalars of a tree, keys included."""
    if isinstance(tree, dict):
        return [text for pair in tree.items() for part in pair for text in texts(part)]
    if isinstance(tree, list):
        return [text for part in tree for text in texts(part)]
    return [str(tree)]


def test_the_dashboard_stays_on_loopback_and_calls_need_a_token(content):
    found = " ".join(texts(content))
    assert "dashboard-host=127.0.0.1" in found or "dashboard-host 127.0.0.1" in found
    assert "0.0.0.0" not in found
    assert "RAY_AUTH_MODE=token" in found or content["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_job_is_a_command_that_exists():
    content = yaml.safe_load((CLUSTER / "rayjob.yaml").read_text(encoding="utf-8"))
    program, command, config, option, _ = content["spec"]["entrypoint"].split()
    assert (program, option) == ("supernest", "--out")
    assert command in supernest.commands
    assert (CLUSTER / Path(config).name).exists()
