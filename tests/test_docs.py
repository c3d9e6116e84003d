"""The documentation against the code: links, commands, experiments and Python in its blocks, pages in the navigation;
the README's lines and Python are run.

Plug-ins of `extending.md` and `own_module.md` are run by their own tests; `make docs` builds the site strictly.
"""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

import supernest as sn
from experiments.cli import supernest
from experiments.configuration.schema import Schema, experiment_schema

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(DOCS.rglob("*.md"))
IDS = [str(page.relative_to(REPOSITORY)) for page in PAGES]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s#]+)(?:#[\w-]+)?\s*\)")


def blocks(page: Path, *languages: str) -> list[str]:
    """Returns the fenced blocks of a page in these languages."""
    return [text for language, text in BLOCK.findall(page.read_text("utf-8")) if language in languages]


def commands(page: Path) -> Iterator[list[str]]:
    """Yields the words of each command line of Supernest in the blocks of a page."""
    text = "\n".join(blocks(page, "", "bash", "sh", "shell")).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip().startswith("supernest "):
            yield shlex.split(line.strip(), comments=True)[1:]


@pytest.fixture(scope="module")
def sections() -> Schema:
    """The schema of an experiment of which sections may be left out."""
    schema = experiment_schema()
    return {key: value for key, value in schema.items() if key not in ("if", "else", "required")}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if not re.match(r"[a-z]+:", target):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page):
        if words[0].startswith("-"):
            continue
        command = supernest.commands[words[0]]
        parameters = command.get_params(click.Context(command))
        known = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
        options = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
        assert set(options) <= known, f"{page.name}: supernest {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_experiments_keep_to_the_schema(page: Path, sections: Schema) -> None:
    for block in blocks(page, "yaml"):
        tree = json.loads(json.dumps(yaml.safe_load(block)))
        # Of Kubernetes, of lm-evaluation-harness, and of a family that the schema does not know.
        if {"apiVersion", "dataset_path", "plugins"} & tree.keys():
            continue
        errors = [error.message for error in jsonschema.Draft7Validator(sections).iter_errors(tree)]
        assert not errors, f"{page.name}: {errors}\n{block}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_parses_and_names_what_there_is(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sn":
                assert hasattr(sn, node.attr), f"{page.name}: sn.{node.attr}"


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))["nav"]
    listed = re.findall(r"[\w/]+\.md", json.dumps(nav))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_command_is_on_a_page() -> None:
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in supernest.commands if not re.search(rf"supernest {name}\b", text)] == []


@pytest.mark.slow
def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a demo of fewer steps and smaller subnets, and a few pictures of two classes."""
    readme = REPOSITORY / "README.md"
    monkeypatch.chdir(tmp_path)
    demo = yaml.safe_load((REPOSITORY / "experiments" / "demo.yaml").read_text("utf-8"))
    demo["space"] |= {"width": [16, 64], "depth": [1, 2], "heads": [1, 4]}
    demo["train"] |= {"steps": 2, "checkpoint_every": 2, "evaluate_every": 2, "optimizer": {"type": "adamw"}}
    demo["search"]["evaluations"] = 4
    demo["budgets"] = {"small": {"macs": "10%"}}
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "demo.yaml").write_text(yaml.safe_dump(demo), "utf-8")
    for name, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (32, 32), colour).save(tmp_path / "photos" / name / f"{number}.png")

    lines = list(commands(readme))
    printed = [CliRunner().invoke(supernest, words, catch_exceptions=False) for words in lines]
    assert [result.exit_code for result in printed] == [0] * 5, [result.output for result in printed]
    table, shown = blocks(readme, "")[1:]
    header, *_, report = table.splitlines()
    output = printed[1].stdout
    assert header.split() in [line.split() for line in output.splitlines()]
    assert report in output
    assert shown.partition(":")[0] in printed[2].stdout
    assert "runs/digits/subnets/small: accuracy" in printed[3].stdout
    (block,) = blocks(readme, "python")
    exec(block, {})
    assert capsys.readouterr().out.startswith("small ")
