"""Profiling a device: what is measured, what it is fitted to, and that a killed or moved profile mixes nothing in."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.configuration.experiment_config import config_of
from experiments.devices import measure
from experiments.devices.device_file import read_device
from experiments.devices.measurements import Measurement, Measurements
from experiments.devices.runtimes.jax import Jax
from experiments.process.interrupt import Interrupted, StopRequest
from experiments.profiling import protocol as protocols
from experiments.profiling import stage as profile
from experiments.profiling.networks import untrained
from experiments.profiling.protocol import Protocol
from experiments.profiling.stage import Meter, measurements_path
from search_spaces import UserError, build_space
from search_spaces.sealed_json import sealed
from supernet.engine.supernet import build_supernet

NET = build_supernet(build_space("vit", "small", {"depth": [1, 2], "width": [16, 32]}))
SPACE = NET.space
SECTIONS = {"data": {"source": "digits"}, "space": {"family": "vit", "preset": "small"}, "train": {"steps": 1}}
DATA = config_of(SECTIONS, Path()).data.load(0)
PROTOCOL = Protocol((1, 8), networks=30, held_out=10, repeats=2)


@dataclass
class Fake:
    """A program whose time is its MACs."""

    macs: int
    batch_size: int

    @property
    def memory(self) -> measure.Memory:
        return measure.Memory(1000 + self.macs, 10 * self.batch_size)


class Machine:
    """A runtime that takes the place of compiling and timing; counts what it is asked for, and may be stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.built, self.stop, self.stop_after, self.slow = 0, StopRequest(), 10**9, 1.0
        self.device, self.software, self.facts = Jax.device, Jax().software, Jax().facts
        monkeypatch.setattr(profile, "untrained", lambda net, data, architecture, size: (architecture, size))
        monkeypatch.setattr(profile, "median_seconds", self.seconds)
        monkeypatch.setattr(profile, "_GROUP", 9)

    def build(self, wanted: Any) -> list[Fake]:
        genes = [np.array([architecture.genes], np.int32) for architecture, _ in wanted]
        return [Fake(int(SPACE.cost(row)["macs"][0]), size) for row, (_, size) in zip(genes, wanted, strict=True)]

    def seconds(self, programs: list[Fake], warmup: int, repeats: int, seed: int) -> list[float]:
        self.built += len(programs) - 2 * len({program.batch_size for program in programs})
        self.stop.asked = self.built >= self.stop_after
        return [self.slow * 1e-9 * program.macs * program.batch_size for program in programs]

    def run(self, out: Path, protocol: Protocol = PROTOCOL) -> dict[str, Any]:
        meter = Meter(NET, DATA, self)  # type: ignore[arg-type]
        device = profile.profile(NET, out, protocol, self.stop, True, meter)
        assert device.sha256 == read_device(out).sha256
        return json.loads(out.read_text())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_times_that_are_macs_are_predicted_for_every_network(machine, tmp_path):
    content = machine.run(tmp_path / "d.json")
    assert machine.built == 2 * (PROTOCOL.networks + PROTOCOL.held_out)
    device = read_device(tmp_path / "d.json")
    genes = SPACE.sample(np.random.default_rng(5), 100)
    for size in (1, 8):
        costs = device.cost(SPACE, size)(genes)
        np.testing.assert_allclose(costs["latency_ms"], 1e-6 * size * costs["macs"], rtol=0.01)
        np.testing.assert_allclose(costs["memory_bytes"], 1000 + costs["macs"] + 10 * size, rtol=0.01)
    for table in content["tables"]:
        assert table["held_out"]["networks"] == PROTOCOL.held_out
        assert table["held_out"]["latency"]["median_error"] < 0.01
        assert table["held_out"]["latency"]["kendall_tau"] > 0.95
    assert {"platform", "model"} <= content["device"].keys()
    assert {"jax", "supernest"} <= content["software"].keys()


def test_held_out_networks_do_not_enter_the_fit(machine, tmp_path):
    before = machine.run(tmp_path / "d.json")
    _, held_out = protocols.draw(SPACE, PROTOCOL)
    path, rows = measurements_path(tmp_path / "d.json"), {tuple(row) for row in held_out.tolist()}
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines[1:], start=1):
        record = json.loads(line)
        if tuple(record["genes"]) in rows:
            wrong = {"seconds": 3 * record["seconds"], "fixed_bytes": 1, "temporary_bytes": 10**9}
            lines[number] = json.dumps({**record, **wrong})
    path.write_text("\n".join(lines) + "\n")
    after = machine.run(tmp_path / "d.json")
    for old, new in zip(before["tables"], after["tables"], strict=True):
        assert all(old[name] == new[name] for name in ("latency_ns", "fixed_bytes", "temporary_bytes"))
        assert new["held_out"]["latency"]["median_error"] == pytest.approx(2 / 3, rel=0.05)
        assert new["held_out"]["memory"]["median_error"] > 0.9


def test_a_machine_that_slows_down_is_corrected_by_the_reference(machine, tmp_path):
    machine.stop_after = 40
    with pytest.raises(Interrupted):
        machine.run(tmp_path / "d.json")
    machine.slow, machine.stop_after, machine.stop = 3.0, 10**9, StopRequest()
    content = machine.run(tmp_path / "d.json")
    assert all(table["held_out"]["latency"]["kendall_tau"] > 0.95 for table in content["tables"])


def test_a_killed_profile_goes_on_and_ends_in_the_same_file(machine, tmp_path):
    machine.run(tmp_path / "whole.json")
    whole = (tmp_path / "whole.json").read_bytes()
    measured, path = measurements_path(tmp_path / "whole.json").read_bytes(), measurements_path(tmp_path / "d.json")
    for cut in (0, 1, 40, len(measured) // 3, len(measured) // 2, len(measured) - 1, len(measured)):
        path.write_bytes(measured[:cut])
        (tmp_path / "d.json").unlink(missing_ok=True)
        machine.built = 0
        machine.run(tmp_path / "d.json")
        assert machine.built == 80 - max(measured[:cut].count(b"\n") - 1, 0)
        assert (tmp_path / "d.json").read_bytes() == whole


def test_an_interrupted_profile_keeps_what_it_measured(machine, tmp_path):
    machine.stop_after = 20
    with pytest.raises(Interrupted, match=r"stopped after measuring 27 of 80 networks\. The same command resumes it\."):
        machine.run(tmp_path / "d.json")
    assert not (tmp_path / "d.json").exists()
    machine.stop_after, machine.stop, machine.built = 10**9, StopRequest(), 0
    machine.run(tmp_path / "d.json")
    assert machine.built == 80 - 27


def test_a_complete_profile_is_not_measured_again_and_a_larger_one_only_adds(machine, tmp_path):
    machine.run(tmp_path / "d.json")
    machine.built = 0
    machine.run(tmp_path / "d.json")
    assert machine.built == 0
    machine.run(tmp_path / "d.json", replace(PROTOCOL, networks=40, batch_sizes=(1, 8, 4)))
    assert machine.built == 2 * 10 + 50


@pytest.mark.parametrize(
    ("fewer", "left"),
    [
        ({"networks": 20}, True),
        ({"held_out": 5, "batch_sizes": (1,)}, True),
        ({"networks": 20, "held_out": 12}, False),  # more of something
        ({"networks": 20, "batch_sizes": (8,)}, False),  # what latency_ms means is another batch size
        ({"networks": 20, "batch_sizes": (1, 4)}, False),
    ],
)
def test_a_file_that_has_more_is_left_as_it_is(machine, tmp_path, capsys, fewer, left):
    out = tmp_path / "d.json"
    whole = machine.run(out)
    machine.built = 0
    found = machine.run(out, replace(PROTOCOL, **fewer))
    said = capsys.readouterr().err
    assert (found == whole) == left
    if left:
        assert machine.built == 0
        assert said == (
            f"note: {out}: has all of this and more, and is left as it is: 30 networks and 10 held-out ones, in "
            "batches of 1, 8.\n"
        )
    else:
        assert found["protocol"]["networks"] == 20
        assert said == ""


def test_a_larger_file_of_other_software_is_not_kept(machine, tmp_path):
    out = tmp_path / "d.json"
    whole = machine.run(out)
    out.write_text(json.dumps(sealed({**whole, "software": {"jax": "0.0.1"}})))
    assert machine.run(out, replace(PROTOCOL, networks=20))["software"] == whole["software"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("device", {"platform": "gpu", "model": "X1"}, r"measured on gpu X1, and this is .*never mixed"),
        ("software", {"jax": "0.0.1"}, r"of another software: .*'0\.0\.1'"),
        ("runtime", {"name": "onnxruntime"}, r"of another runtime: .*'onnxruntime'"),
        ("space", "feed", r"of another space"),
        ("format", "supernest archive", r"holds no measurements"),
    ],
)
def test_measurements_of_something_else_are_refused(machine, tmp_path, key, value, message):
    machine.run(tmp_path / "d.json")
    (tmp_path / "d.json").unlink()
    path = measurements_path(tmp_path / "d.json")
    header, _, rest = path.read_text().partition("\n")
    path.write_text(json.dumps({**json.loads(header), key: value}) + "\n" + rest)
    content = path.read_bytes()
    with pytest.raises(UserError, match=message):
        machine.run(tmp_path / "d.json")
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("device", {"platform": "gpu", "model": "X1"}, "measured on gpu X1, and this is .*never mixed"),
        ("space", "feed", "measured for another search space"),
        ("runtime", {"name": "onnxruntime", "version": "1"}, "measured with onnxruntime 1, and this is jax .*runtimes"),
    ],
)
def test_a_device_file_of_something_else_is_not_overwritten(machine, tmp_path, key, value, message):
    out = tmp_path / "d.json"
    machine.run(out)
    out.write_text(json.dumps(sealed({**json.loads(out.read_text()), key: value})))
    measurements_path(out).unlink()
    with pytest.raises(UserError, match=message):
        machine.run(out)


def test_files_of_earlier_versions_that_name_no_runtime_are_of_jax(machine, tmp_path):
    whole = machine.run(tmp_path / "d.json")
    assert whole["runtime"] == Jax().facts.as_json()
    old = sealed({key: value for key, value in whole.items() if key != "runtime"})
    (tmp_path / "d.json").write_text(json.dumps(old))
    path = measurements_path(tmp_path / "d.json")
    header, _, rest = path.read_text().partition("\n")
    path.write_text(json.dumps({k: v for k, v in json.loads(header).items() if k != "runtime"}) + "\n" + rest)
    assert read_device(tmp_path / "d.json").runtime.name == "jax"
    machine.built = 0
    assert machine.run(tmp_path / "d.json") == whole
    assert machine.built == 0


def test_corrupt_lines_and_two_writers_are_refused(machine, tmp_path):
    machine.run(tmp_path / "d.json")
    path = measurements_path(tmp_path / "d.json")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "{", *lines[3:]]) + "\n")
    with pytest.raises(UserError, match=r"jsonl:4: corrupt line"):
        machine.run(tmp_path / "d.json")
    with Measurements(tmp_path / "m.jsonl", {"space": "s"}), pytest.raises(UserError, match="another process measures"):
        Measurements(tmp_path / "m.jsonl", {"space": "s"})


def test_measurements_come_back_as_they_were(tmp_path):
    one = Measurement((0, 1), 8, 0.1 + 0.2, 1 / 3, 5, 6)
    with Measurements(tmp_path / "m.jsonl", {"space": "s"}) as kept:
        kept.append([one])
    with Measurements(tmp_path / "m.jsonl", {"space": "s"}) as kept:
        assert kept.known == {one.key: one}


def test_drawn_networks_differ_and_hold_the_ends():
    training, held_out = protocols.draw(SPACE, PROTOCOL)
    assert len({tuple(row) for row in np.concatenate([training, held_out]).tolist()}) == 40
    assert tuple(training[0]) == SPACE.smallest.genes
    assert tuple(training[1]) == SPACE.largest.genes
    more, same = protocols.draw(SPACE, replace(PROTOCOL, networks=50))
    np.testing.assert_array_equal(more[:30], training)
    np.testing.assert_array_equal(same, held_out)


def test_a_quick_profile_is_a_fifth_of_the_whole_one_which_goes_on_from_it():
    space = build_space("vit", "small", {"depth": [1, 2, 3]})
    quick, whole = ([*protocols.all_wanted(protocols.draw(space, of), of)] for of in (protocols.QUICK, Protocol()))
    assert set(quick) < set(whole)
    assert len(whole) == 5 * len(quick)
    assert (protocols.QUICK.warmup, protocols.QUICK.repeats) == (Protocol().warmup, Protocol().repeats)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("networks", 9, "--networks: 9 is less than 10"),
        ("held_out", 2, "--held-out: 2 is less than 3"),
        ("repeats", 0, "--repeats: 0 is less than 1"),
        ("batch_sizes", (1, 1), "--batch-sizes: '1,1' are not different"),
        ("batch_sizes", (0,), "--batch-sizes: '0' are not different"),
    ],
)
def test_settings_that_cannot_work_are_refused(setting, value, message):
    with pytest.raises(UserError, match=message):
        Protocol(**{setting: value})
    with pytest.raises(UserError, match="--batch-sizes: '1,x' are no numbers"):
        protocols.batch_sizes("1,x")


def test_a_space_with_too_few_networks_is_refused():
    with pytest.raises(UserError, match=r"--networks: 200 and 10 held out are more than the 180 networks .* Give 170"):
        protocols.draw(SPACE, replace(PROTOCOL, networks=200))


def test_groups_are_small_and_complete(monkeypatch):
    wanted = [(SPACE.largest.genes, size) for size in range(20)]
    monkeypatch.setattr(profile, "_GROUP_BYTES", 3 * 4 * int(SPACE.cost(np.array([SPACE.largest.genes]))["params"][0]))
    groups = list(profile._groups(NET, wanted))
    assert [len(group) for group in groups] == [3] * 6 + [2]
    assert [one for group in groups for one in group] == wanted


def test_programs_are_measured_in_turn():
    calls: list[int] = []
    clock = [lambda number=number: calls.append(number) for number in range(3)]
    seconds = measure.median_seconds(clock, warmup=2, repeats=5, seed=0)  # type: ignore[arg-type]
    assert calls[:6] == [0, 0, 1, 1, 2, 2]
    rounds = np.array(calls[6:]).reshape(5, -1)
    assert all({0, 1, 2} == set(part.tolist()) for part in rounds)
    assert len({tuple(dict.fromkeys(part.tolist())) for part in rounds}) > 1
    assert all(0 < taken < 0.1 for taken in seconds)


def test_a_real_network_runs_and_has_the_weights_in_its_memory():
    (program,) = Jax().build([untrained(NET, DATA, SPACE.smallest, 4)])
    program()
    weights = 4 * int(SPACE.cost(np.array([SPACE.smallest.genes]))["params"][0])
    x, logits = 4 * 4 * 8 * 8, 4 * 4 * 10
    # The compiler rounds nothing up but where it packs pointers: at most a few bytes an argument.
    assert weights + x + logits <= program.memory.fixed <= weights + x + logits + 512
    assert program.memory.temporary > 0
    assert program.memory.total == program.memory.fixed + program.memory.temporary
