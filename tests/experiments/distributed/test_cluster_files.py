"""The cluster examples: they parse, run the experiment beside them, and let nobody in."""

from pathlib import Path

import pytest
import yaml

from experiments.cli import supernest
from experiments.configuration.experiment_config import load_config
from experiments.experiment import build_experiment

CLUSTER = Path(__file__).resolve().parents[3] / "experiments" / "cluster"


@pytest.fixture
def policy_and_job():
    return [made["spec"] for made in yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text(encoding="utf-8"))]


def test_the_dashboard_of_virtual_machines_stays_on_loopback_and_calls_need_a_token():
    found = (CLUSTER / "ray-cluster.yaml").read_text(encoding="utf-8")
    assert "--dashboard-host=127.0.0.1" in found
    assert "0.0.0.0" not in found
    assert "RAY_AUTH_MODE=token" in found


def test_only_the_operator_and_the_job_itself_reach_its_pods(policy_and_job):
    policy, job = policy_and_job
    cluster = job["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "0.0.0.0"  # the operator asks it
    selected = policy["podSelector"]["matchLabels"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["metadata"]["labels"] == selected
    own, operator = policy["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": selected}}]}
    assert operator["from"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}
    assert operator["ports"] == [{"port": 8265}]
    assert policy["policyTypes"] == ["Ingress"]


def test_the_cluster_has_room_for_the_experiment_before_anything_is_asked_of_it():
    cluster = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text(encoding="utf-8"))
    config = load_config(CLUSTER / "experiment.yaml")
    assert config.ray is not None
    worker = cluster["available_node_types"]["worker"]
    assert worker["min_workers"] >= config.ray.workers
    assert worker["resources"]["CPU"] >= config.ray.cpus_per_worker
    assert build_experiment(config).sampler.paths_per_step == config.ray.workers


def test_the_job_is_a_command_that_exists(policy_and_job):
    program, command, config, option, _ = policy_and_job[1]["entrypoint"].split()
    assert (program, option) == ("supernest", "--out")
    assert command in supernest.commands
    assert (CLUSTER / Path(config).name).exists()
