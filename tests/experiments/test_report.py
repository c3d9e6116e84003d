"""The report page: what each stage left is on it, it is whole by itself, and names cannot inject markup."""

import json
from html.parser import HTMLParser

import pytest

from experiments import report

POINT = {"objectives": {"error": 0.25}, "costs": {"macs": 1200, "params": 34}}
ESTIMATE = {"value": 0.5, "low": 0.1, "high": 0.7, "reason": None}
SUMMARY = {
    "name": "<b>run</b>",
    "space": {"family": "vit", "size": 1793340},
    "train": {"steps": 40, "probe_error": 0.125},
    "subnets": [
        {
            "budget": "half", "params": 119434, "macs": 1938048, "validation_accuracy": 0.9811,
            "test_accuracy": 0.975, "directory": "/somewhere/subnets/half",
        }
    ],
    "rank": {
        "panel": 6, "objective": "accuracy", "examples": 300, "plot": "rank/scatter.svg",
        **dict.fromkeys(("kendall_tau", "spearman", "tau_top_10", "tau_top_50", "regret"), ESTIMATE),
    },
}  # fmt: skip


class Links(HTMLParser):
    """Tags that are left open, and what the page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded = [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path):
    (tmp_path / "search").mkdir()
    front = {"macs": [POINT, {**POINT, "costs": {"macs": 2400, "params": 50}}]}
    (tmp_path / "search" / "pareto.json").write_text(json.dumps({"fronts": front}))
    (tmp_path / "rank").mkdir()
    (tmp_path / "rank" / "scatter.svg").write_text('<?xml version="1.0"?><svg id="scatter"></svg>')
    report.write_page(tmp_path, SUMMARY)
    return (tmp_path / "report.html").read_text()


def test_everything_is_on_one_page_that_loads_nothing(page):
    parser = Links()
    parser.feed(page.removeprefix("<!doctype html>"))
    assert parser.open == []
    assert parser.loaded == []
    for text in ("1,793,340", "119,434", "98.11%", "97.50%", "75.00%", "Kendall", "0.500", 'id="scatter"', "0.125"):
        assert text in page
    assert "/somewhere" not in page
    assert "<b>run" not in page


def test_a_run_that_has_only_trained_has_a_page_too(tmp_path):
    report.write_page(tmp_path, {"name": "new", "train": {"steps": 3}})
    page = (tmp_path / "report.html").read_text()
    assert "Train" in page
    assert "Pareto" not in page


def test_without_matplotlib_the_tables_remain(tmp_path, monkeypatch):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "pareto.json").write_text(json.dumps({"fronts": {"macs": [POINT]}}))
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda name: None)
    report.write_page(tmp_path, {"name": "new"})
    page = (tmp_path / "report.html").read_text()
    assert "supernest[plots]" in page
    assert "75.00%" in page
