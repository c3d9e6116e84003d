"""The report page as text: what it holds, what it refuses, and facts that it computes."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from experiments import cli
from experiments.objective import OBJECTIVES
from experiments.records.device import Accuracy, HeldOut
from experiments.reporting import write_report
from experiments.reporting.charts import training
from experiments.reporting.concerns import concerns
from experiments.reporting.run_facts import interval, read_run
from search_spaces import UserError
from tests.experiments.reporting.runs import begin_run, write_run

_VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Tags that are left open, what the page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    parser = Page()
    parser.feed(write_report([run], run / "report.html").read_text("utf-8").removeprefix("<!doctype html>"))
    return parser


def test_everything_is_on_one_page_that_loads_nothing(page: Page) -> None:
    assert page.open == []
    assert page.loaded == []
    assert "img" not in page.tags
    text = " ".join(page.text.split())
    for shown in (
        "vit: 1,793,340 subnets, 60 evaluated", "85.00%", "95 %: 76.72% to 90.69%", "1.250 ms (predicted)",
        "800 of at most 1,000", "800 of at most 500: over", "4,096 bytes", "the smallest subnet collapses",
        "One network answers all 2 budgets", "Kendall's tau-b 0.20", "macs<=500", "jax", "seed",
        "Training, by size", "Search progress", "Which values were trained", "Results by class",
    ):  # fmt: skip
        assert shown in text, shown
    assert "/elsewhere" not in text


def test_a_supernet_at_chance_is_said_with_what_to_do(run: Path) -> None:
    facts = read_run(run)
    assert not any("guessing" in text for text in concerns(facts))
    guessing = [dataclasses.replace(candidate, error=0.88) for candidate in facts.candidates]
    (said,) = [text for text in concerns(dataclasses.replace(facts, candidates=guessing)) if "guessing" in text]
    assert "error is 0.880; guessing gives 0.900" in said
    translating = dataclasses.replace(facts, objective=OBJECTIVES["bleu_error"])
    for bleu, learned in ((0.4, False), (3.0, True)):  # a short training reaches 3, and has learned much
        of_bleu = dataclasses.replace(
            translating,
            summary=dataclasses.replace(facts.summary, chance=100.0),
            candidates=[dataclasses.replace(candidate, error=100 - bleu) for candidate in facts.candidates],
        )
        assert any("guessing" in text for text in concerns(of_bleu)) != learned
    assert "train longer, or with another learning rate" in said


@pytest.mark.parametrize(("tau", "said"), [(0.9, ""), (0.5, "0.50"), (None, "none")])
def test_a_device_file_that_orders_badly_is_said_with_what_to_do(run: Path, tau: float | None, said: str) -> None:
    facts = read_run(run)
    accuracy = {1: HeldOut(Accuracy(tau), Accuracy(0.9))}
    device = cast(Any, SimpleNamespace(accuracy=accuracy))
    limited = {name: {**limits, "latency_ms": 2.0} for name, limits in facts.budgets.items()}
    of_latency = dataclasses.replace(facts, device=device, budgets=limited)
    found = [text for text in concerns(of_latency) if "device file" in text]
    assert len(found) == bool(said)
    assert all(f"Kendall's tau of {said} only (batches of 1)" in text for text in found)
    assert all("Measure again on a quiet machine" in text for text in found)
    # Without a limit on what the device file predicts, its order does not matter.
    assert not any("device file" in text for text in concerns(dataclasses.replace(facts, device=device)))


def test_the_interval_is_wilson_s() -> None:
    # (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) with z = 1.96, p = 0.85, n = 100.
    assert interval(85, 100) == pytest.approx((0.7672, 0.9069), abs=1e-4)
    assert interval(10, 10)[1] == pytest.approx(1)
    assert interval(0, 10)[0] == 0


def test_a_run_that_goes_on_has_a_page_too(tmp_path: Path) -> None:
    begin_run(tmp_path, "new")
    text = write_report([tmp_path], tmp_path / "report.html").read_text("utf-8")
    assert "<h1" in text
    assert "Pareto front" not in re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL)


def test_what_a_resumed_training_took_back_is_not_drawn(tmp_path: Path) -> None:
    from experiments.storage.tensorboard import EventLog

    begin_run(tmp_path, "new")
    with EventLog(tmp_path / "tensorboard" / "train") as log:
        for step in (1, 2, 3):
            log.scalars(step, {"validation_error/largest": step})
    with EventLog(tmp_path / "tensorboard" / "train", resumed_step=1) as log:
        log.scalars(2, {"validation_error/largest": 20})
    last = sorted((tmp_path / "tensorboard" / "train").iterdir())[-1]
    last.write_bytes(last.read_bytes() + b"\x40\x00\x00\x00\x00\x00\x00\x00torn")
    assert read_run(tmp_path).curves == {"validation_error/largest": {1: 1.0, 2: 20.0}}


def test_the_curve_of_training_is_drawn_where_the_search_has_another_objective(tmp_path: Path) -> None:
    from experiments.records import Summary
    from experiments.storage.run_files import write_summary
    from experiments.storage.tensorboard import EventLog

    begin_run(tmp_path, "new")
    write_summary(tmp_path, Summary(name="new", objective="bleu_error", chance=100.0))
    with EventLog(tmp_path / "tensorboard" / "train") as log:
        log.scalars(1, {"validation_loss/largest": 0.0})
    chart = training(read_run(tmp_path))
    assert chart is not None
    assert "validation perplexity" in str(chart["layout"])
    assert [line["y"] for line in chart["data"]] == [[1.0]]


def test_several_runs_share_a_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path / "other", name="other")
    assert cli.main(["report", str(run), str(other), "--out", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "both.html")
    text = (tmp_path / "both.html").read_text("utf-8")
    assert text.count("<h1 ") == 2
    assert len(json.loads(text.split('id="payload">')[1].split("</script>")[0])["runs"]) == 2
    assert cli.main(["report", str(run), "--out", str(tmp_path / "both.html")]) == 0  # a report may be replaced


def test_what_is_no_run_or_damaged_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert cli.main(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "is no run directory" in refused(str(tmp_path))
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>", "utf-8")
    assert "is no report" in refused(str(run), "--out", str(mine))
    assert mine.read_text("utf-8") == "<p>mine</p>"
    broken = write_run(tmp_path / "broken")
    (broken / "summary.json").write_text("{", "utf-8")
    assert "summary.json" in refused(str(broken))
    broken = write_run(tmp_path / "broken archive")
    archive = broken / "search" / "archive.jsonl"
    archive.write_text(archive.read_text("utf-8").replace('"costs"', '"cost"', 1), "utf-8")
    assert "archive.jsonl" in refused(str(broken))
    for name in ("search/pareto.json", "search/archive.jsonl"):  # of a search that has ended
        broken = write_run(tmp_path / f"without {name[7:]}")
        (broken / name).unlink()
        assert f"{broken / name}: missing" in refused(str(broken))
    with pytest.raises(UserError, match="is no run"):
        write_report([tmp_path / "none"], tmp_path / "x.html")
