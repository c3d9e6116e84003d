"""A federation: rounds that resume to the same bits, bytes that are counted, networks to use, and refusals."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import supernest as sn
from experiments.configuration.experiment_config import load_config
from experiments.experiment import Experiment, build_experiment
from experiments.federation.exports import export_networks
from experiments.federation.local import Reply, Sent, message_bytes
from experiments.federation.networks import LocalStep
from experiments.federation.stage import Progress, Rounds
from experiments.pipeline.check import validate
from experiments.process.interrupt import Interrupted, StopRequest
from search_spaces import UserError
from supernet.export.subnet import PROGRAM

EXPERIMENT = """\
data: {source: digits, train_limit: 300}
space: {family: vit, preset: small, width: [8, 12], depth: [1, 2], heads: [1], mlp_ratio: [1.0], head_dim: 8}
train:
  steps: 1
  batch_size: 16
  optimizer: {type: adamw, learning_rate: 2.0e-3, warmup_steps: 0}
federation:
  rounds: 2
  local_steps: 3
  concentration: 1.0
  clients: {full: {number: 2}, small: {number: 2, network: {width: 8, depth: 1}}}
  server: {examples: 32, steps: 3, learning_rate: 0.01}
  client_choice: {type: ucb, number: 3}
  layer_choice: {type: importance, number: 1}
export: {stablehlo: false}
"""
PREFIX = ["federation.compression={type: prefix}", "federation.server.steps=0"]
ALL = ["federation.client_choice={type: all}", "federation.layer_choice={type: all}"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_text(EXPERIMENT, encoding="utf-8")
    (tmp_path / "t.txt").write_text("some words of a text " * 500, encoding="utf-8")
    return tmp_path


def experiment_of(directory: Path, *overrides: str) -> Experiment:
    (directory / "e.yaml").write_text(EXPERIMENT, encoding="utf-8")
    return build_experiment(load_config(directory / "e.yaml", overrides))


@dataclasses.dataclass
class Ran:
    """A federation that was run here."""

    rounds: Rounds
    run: Path
    clients: Any
    messages: list[Sent]
    replies: list[Reply]
    figures: Any

    @property
    def progress(self) -> Progress:
        """Reads its last checkpoint."""
        with self.rounds.checkpoints() as checkpoints:
            return checkpoints.restore(self.rounds.fresh())[1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two rounds by convolution with a bandit and layers by importance, and all messages."""
    home = tmp_path_factory.mktemp("federation")
    rounds = Rounds(experiment_of(home), home / "run", StopRequest())
    clients = rounds.here()
    found = Ran(rounds, home / "run", clients, [], [], None)

    def noted(messages: Sequence[Sent]) -> Iterable[Reply]:
        replies = list(clients(messages))
        found.messages.extend(messages)
        found.replies.extend(replies)
        return replies

    found.figures = rounds.run(noted, quiet=True)
    return found


def equal(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_bytes_are_those_of_the_arrays_that_were_sent(ran: Ran) -> None:
    assert ran.figures.bytes_down == sum(a.nbytes for m in ran.messages for a in m.weights.values())
    assert ran.figures.bytes_up == sum(a.nbytes for reply in ran.replies for a in reply.weights.values())
    sizes = ran.rounds.federation.sizes
    for message, reply in zip(ran.messages, ran.replies, strict=True):
        size = sizes[ran.rounds.federation.size_of(message.client)]
        costs = size.network.space.cost(np.array([size.network.space.largest.genes]))
        assert message_bytes(message.weights) == 4 * costs["params"][0]  # dense float32 weights of the smaller shape
        layered = {path for path, of in size.shapes.items() if of.layered}
        assert {len(reply.weights[path]) for path in layered} == {1}
        assert {path: a.shape for path, a in reply.weights.items() if path not in layered} == {
            path: size.shapes[path].client for path in size.shapes if path not in layered
        }
    assert ran.figures.bytes_up < ran.figures.bytes_down


def test_rounds_ask_whom_the_bandit_says_and_tell_what_they_earned(ran: Ran) -> None:
    told = [json.loads(line) for line in (ran.run / "federation" / "rounds.jsonl").read_text("utf-8").splitlines()]
    assert [one["round"] for one in told] == [1, 2]
    first, second = told
    assert len(first["asked"]) == len(first["rewards"]) == 3
    (missing,) = set(range(4)) - set(first["asked"])
    assert missing in second["asked"]  # it had no bound yet
    rewards = ran.progress.rewards
    np.testing.assert_array_equal(rewards.asked, ran.figures.asked)
    total = np.zeros(4)
    for one in told:
        total[one["asked"]] += one["rewards"]
    np.testing.assert_allclose(rewards.total, total)
    assert first["layers"]["small"] == [0]
    assert len(first["layers"]["full"]) == 1


def test_layers_that_are_not_chosen_keep_their_bits(ran: Ran) -> None:
    experiment, federation = ran.rounds.federation.experiment, ran.rounds.federation
    network = federation.sizes[0].network
    step = LocalStep(network, federation.settings.optimizer(experiment.config.train.optimizer).build(3))
    before = {path: jnp.asarray(weight) for path, weight in ran.progress.server.weights.items()}
    x, targets = ran.rounds.server._batch
    for layer in range(2):
        weights, state = before, step.init(before)
        for _ in range(2):
            weights, state, _ = step(weights, state, jnp.arange(2) == layer, x, targets)
        for path, of in federation.sizes[0].shapes.items():
            if of.layered:
                np.testing.assert_array_equal(weights[path][1 - layer], before[path][1 - layer], err_msg=path)
            now, old = (tree[path][layer] if of.layered else tree[path] for tree in (weights, before))
            assert not np.array_equal(now, old), path


def test_the_server_learns_filters_and_merge_weights(ran: Ran) -> None:
    server, before, after = ran.rounds.server, ran.rounds.fresh().server, ran.progress.server
    small = "layers/fc1/kernel"
    assert not np.array_equal(after.compression[1][small]["kernel"], before.compression[1][small]["kernel"])
    assert not np.array_equal(after.dilation[1][small]["kernel"], before.dilation[1][small]["kernel"])
    assert not np.array_equal(after.logits[0]["head/kernel"], before.logits[0]["head/kernel"])
    assert after.compression[0] == {}
    # On what they learn from, learned filters are better than slices.
    weights = {path: jnp.asarray(weight) for path, weight in after.weights.items()}
    step, start = server._learn_filters[1], server._optimizer.init(before.compression[1])
    learned, slices = (
        float(step(filters, start, server._batch, weights)[2])
        for filters in (after.compression[1], before.compression[1])
    )
    assert learned < slices


def test_exports_are_the_networks_that_were_judged(ran: Ran) -> None:
    validation = ran.rounds.federation.experiment.data.validation
    examples, labels = validation.read(np.arange(len(validation)))
    last = ran.figures.last
    assert set(ran.figures.subnets) == {"server", "full", "small"}
    for name, accuracy in {"server": last.server, **last.sizes}.items():
        subnet = sn.load_subnet(ran.run / ran.figures.subnets[name])
        found = float((np.asarray(subnet.predict(examples)).argmax(axis=1) == labels).mean())
        assert found == pytest.approx(accuracy, abs=2 / len(labels)), name
    exported = json.loads((ran.run / "federation/subnets/small/architecture.json").read_text("utf-8"))["architecture"]
    assert (exported["width"], exported["depth"]) == (8, 1)


def test_a_killed_federation_goes_on_to_the_same_bits(ran: Ran, tmp_path: Path) -> None:
    stop = StopRequest()
    rounds = Rounds(ran.rounds.federation.experiment, tmp_path / "run", stop, ran.rounds.server)
    clients = ran.clients

    def killed(messages: Sequence[Sent]) -> Iterable[Reply]:
        for reply in clients(messages):
            yield reply
            if reply.client == messages[0].client and messages[0].round == 1:
                raise KeyboardInterrupt  # in the middle of the second round

    with pytest.raises(KeyboardInterrupt):
        rounds.run(killed, quiet=True)
    assert not (tmp_path / "run" / "federation" / "subnets").exists()
    told = (tmp_path / "run" / "federation" / "rounds.jsonl").read_text("utf-8")
    assert [json.loads(line)["round"] for line in told.splitlines()] == [1]
    stop.asked = True
    with pytest.raises(Interrupted, match=r"^stopped after round 1 of 2; a checkpoint of it is saved$"):
        rounds.run(clients, quiet=True)
    stop.asked = False
    figures = rounds.run(clients, quiet=True)
    assert figures == ran.figures
    with rounds.checkpoints() as checkpoints:
        equal(checkpoints.restore(rounds.fresh())[1], ran.progress)
    whole, again = (path / "federation" / "rounds.jsonl" for path in (ran.run, tmp_path / "run"))
    assert whole.read_bytes() == again.read_bytes()


def test_exports_follow_the_section_export(ran: Ran, tmp_path: Path) -> None:
    experiment, state = ran.rounds.federation.experiment, ran.progress.server
    home = tmp_path / "federation" / "subnets"
    export_networks(ran.rounds.server, state, experiment, home)
    kept = (home / "small" / "manifest.json").stat().st_mtime_ns
    export_networks(ran.rounds.server, state, experiment, home)
    assert (home / "small" / "manifest.json").stat().st_mtime_ns == kept
    settings = experiment.config.export.model_copy(update={"stablehlo": True})
    config = experiment.config.model_copy(update={"export": settings})
    config.bind(experiment.config.identity)  # as that of the same run, resumed
    export_networks(ran.rounds.server, state, dataclasses.replace(experiment, config=config), home)
    assert all((home / name / PROGRAM).is_file() for name in ("server", "full", "small"))
    aside = sorted(path.parent.name for path in (tmp_path / "earlier").glob("*/federation/subnets/*/manifest.json"))
    assert aside == ["full", "server", "small"]


def test_one_client_as_large_as_the_server_hands_its_weights_over(tmp_path: Path) -> None:
    experiment = experiment_of(tmp_path, *PREFIX, *ALL, "federation.clients={only: {}}", "federation.rounds=1")
    rounds = Rounds(experiment, tmp_path / "run", StopRequest())
    replies: list[Reply] = []
    clients = rounds.here()

    def noted(messages: Sequence[Sent]) -> Iterable[Reply]:
        replies.extend(clients(messages))
        return replies

    progress, figures = rounds.round(rounds.fresh(), 0, noted)
    for path, weight in replies[0].weights.items():
        np.testing.assert_allclose(progress.server.weights[path], weight, rtol=1e-6, atol=1e-8)
    assert figures.bytes_down == figures.bytes_up
    assert figures.mean == figures.server == figures.sizes["only"]


def test_check_says_rounds_clients_and_their_networks(supernest: Any, here: Path) -> None:
    code, out, error = supernest("check", "e.yaml")
    assert (code, error) == (0, "")
    assert "federate  2 rounds, 3 of 4 clients a round, 3 steps each\n          full   2 clients, params " in out
    plan = json.loads(supernest("check", "e.yaml", "--json")[1])["federation"]
    assert (plan["clients"], plan["asked"]) == ({"full": 2, "small": 2}, 3)
    assert plan["costs"]["small"]["params"] < plan["costs"]["full"]["params"]


def test_the_command_runs_reports_and_is_not_run_again(supernest: Any, here: Path) -> None:
    settings = [f"--set={one}" for one in (*PREFIX, *ALL, "federation.rounds=1", "federation.clients={only: {}}")]
    code, out, error = supernest("federate", "e.yaml", "--out", "run", *settings, "--quiet")
    assert code == 0, error
    assert "mean over 1 clients after 1 rounds: " in out
    summary = json.loads((here / "run" / "summary.json").read_text("utf-8"))["federation"]
    assert summary["subnets"]["only"] == "federation/subnets/only"
    assert f"sent to clients: {summary['bytes_down']:,} bytes" in out
    assert "federate round 1 of 1" in supernest("status", "run")[1].splitlines()
    page = (here / "run" / "report.html").read_text("utf-8")
    assert f"<td>{summary['last']['mean']:.2%}</td>" in page
    assert "Run it anew: <code>supernest federate run/config.yaml" in page
    before = {path: path.stat().st_mtime_ns for path in (here / "run" / "federation").rglob("*")}
    assert supernest("federate", "e.yaml", "--out", "run", *settings, "--quiet")[:2] == (0, out)
    after = {path: path.stat().st_mtime_ns for path in before}
    assert after == before
    code, _, error = supernest("federate", "e.yaml", "--out", "run", *settings, "--set", "federation.local_steps=9")
    assert code == 2
    assert "federation.local_steps: 3 → 9" in error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["space={family: mobilenet, preset: small}"],
         "federation: family mobilenet has no single stack of equal layers without batch statistics, whose weights "
         "could be compressed. Use vit, or leave the section out."),
        (["data={source: text, path: t.txt, context: 16}", "space={family: language, preset: small}"],
         "federation: the data have no classes, by which examples are dealt out. Use labelled images."),
        (["federation.clients={big: {network: {width: 16}}}"],
         "federation.clients.big.network.width: 16 is larger than the 12 of the server. Give one of [8, 12]."),
        (["federation.clients={odd: {network: {width: 9}}}"], "federation.clients.odd.network.width: 9 is no value of"),
        (["federation.clients={odd: {network: {widht: 8}}}"], "federation.clients.odd.network.widht: no choice of the"),
        (["federation.clients={odd: {network: {width: [8]}}}"],
         "federation.clients.odd.network.width: [8] is not a single value. Give one value of the choice, for all"),
        (["federation.clients={odd: {network: {heads: true}}}"], "federation.clients.odd.network.heads: true is not a"),
        (["federation.compression={type: prefix, activation: leaky}"],
         "federation.compression.activation: leaky, and slices pass no function. Leave it out, or set type"),
        (["train.optimizer={type: votes}"], "train.optimizer.type: votes move int8 weights"),
        (["federation.clients={server: {}}"], "federation.clients.server: is the name of the server's own network."),
        (["federation.clients={}"], "federation.clients: none. Give at least one size"),
        (["federation.client_choice={type: ucb, number: 5}"], "federation.client_choice.number: 5 of 4 clients."),
        (["federation.client_choice={type: ucb}"], "federation.client_choice.number: not set."),
        (["federation.client_choice={number: 2}"], "federation.client_choice.number: 2, and type all asks all."),
        (["federation.layer_choice={type: importance, number: 3}"], "federation.layer_choice.number: 3 of 2 layers."),
        (["federation.server.examples=298"], "federation.server.examples: 298 of "),
        (["train.distillation={type: largest}", "sampler.type=sandwich"],
         "train.distillation.type: largest is not for federation. Set none, or leave the section federation out."),
        (["train.precision=bfloat16"], "train.precision: bfloat16 is not for federation. Set float32"),
        (["federation.compression={type: fedconv}"], "federation.compression.type: 'fedconv'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_one_line(here: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        validate(load_config(here / "e.yaml", overrides), ("federate",))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_federation_needs_its_section(supernest: Any, here: Path) -> None:
    code, _, error = supernest("federate", "e.yaml", "--out", "run", "--set", "federation=null")
    assert code == 2
    assert "federation: not set. Give the section, with rounds and clients." in error
    assert not (here / "run").exists()


def test_a_loss_that_is_not_finite_is_one_line(tmp_path: Path) -> None:
    optimizer = "train.optimizer={type: sgd, learning_rate: 900.0, weight_decay: 900.0, clip_norm: null}"
    experiment = experiment_of(tmp_path, *PREFIX, *ALL, optimizer, "federation.local_steps=40")
    rounds = Rounds(experiment, tmp_path / "run", StopRequest())
    with pytest.raises(UserError, match=r"^federation: the loss of client 0 is \w+ at step \d+ of round 0. Lower fed"):
        rounds.run(rounds.here(), quiet=True)


def test_weights_that_the_last_step_breaks_are_not_merged(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(step: LocalStep, weights: Any, state: Any, *_: Any) -> Any:
        return {path: weight / 0 for path, weight in weights.items()}, state, jnp.zeros(())

    monkeypatch.setattr(LocalStep, "__call__", breaks)
    message = ran.messages[0]
    with pytest.raises(UserError, match=rf"^federation: the weights of client {message.client} are not finite after"):
        list(ran.clients([message]))


def test_what_the_servers_last_step_breaks_is_not_kept(ran: Ran) -> None:
    server, filters = ran.rounds.server, ran.progress.server.compression[1]

    def breaks(learned: Any, state: Any, *_: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf * jnp.nan, learned), state, jnp.zeros(())

    with pytest.raises(UserError, match=r"^federation: what the server learned on its examples is not finite after"):
        server._learned(breaks, filters)
