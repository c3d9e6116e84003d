"""The JSON schema of experiment files and its reference: current, complete, and of one mind with the loader."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from experiments.configuration.experiment_config import load_config
from experiments.configuration.methods import methods
from experiments.configuration.reference import reference
from experiments.configuration.schema import Schema, experiment_schema
from experiments.user_input.yaml_files import override, parse_override, read_yaml
from samplers import SAMPLERS
from search import SEARCHERS
from search_spaces import UserError
from supernet.gradient.relaxation import RELAXATIONS

REPOSITORY = Path(__file__).parents[3]
FILES = sorted((REPOSITORY / "experiments").glob("*.yaml"))
QUANTITIES = re.compile(
    r"\b(numbers?|shares?|seed|sides?|size|probability|rates?|weight|factor|ratios?|temperature|widths?|parameter|order|bound|"
    r"norm|growth|base|strides?|pull|length|indices|difference|cost|stretching|milliseconds|bytes|fewest|whether)\b",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def schema() -> Schema:
    """The schema of what comes with Supernest."""
    return experiment_schema()


def errors(schema: Schema, tree: Any) -> list[str]:
    """Returns what the schema finds wrong with an experiment; nothing where it is right."""
    return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(json.loads(json.dumps(tree)))]


def keys(schema: Schema, above: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Yields every key below a schema: its path, its schema, and whether a value has to be given."""
    for name, key in schema.get("properties", {}).items():
        yield f"{above}{name}", key, name in schema.get("required", ())
        yield from keys(key, f"{above}{name}.")
    for form in (*schema.get("oneOf", ()), *schema.get("anyOf", ())):
        yield from keys(form, f"{above}{form.get('title', '')}.")


def test_the_files_are_current(schema: Schema) -> None:
    remedy = "supernest schema --out experiments/experiment.schema.json"
    assert json.loads((REPOSITORY / "experiments" / "experiment.schema.json").read_text("utf-8")) == schema, remedy
    remedy = "supernest schema --format markdown --out docs/reference/experiment.md"
    assert (REPOSITORY / "docs" / "reference" / "experiment.md").read_text("utf-8") == reference(schema), remedy
    remedy = "supernest schema --format methods --out docs/reference/methods.md"
    assert (REPOSITORY / "docs" / "reference" / "methods.md").read_text("utf-8") == methods(), remedy


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_examples_name_the_schema_and_keep_to_it(schema: Schema, file: Path) -> None:
    assert file.read_text("utf-8").startswith("# yaml-language-server: $schema=experiment.schema.json\n")
    assert errors(schema, read_yaml(file)) == []


def test_every_key_is_described_with_unit_and_default(schema: Schema) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    for path, key, required in keys(schema):
        text = key.get("description", "")
        assert text.endswith("."), f"{path}: {text!r}"
        assert not re.match(r"(What|Of|Those|These|Where|As|It|All of|How|Which|That)\b", text), f"{path}: {text}"
        group = any("properties" in one for one in (key, *key.get("anyOf", ()))) or "oneOf" in key
        from_preset = path.startswith("space.")
        assert group or required or from_preset or "default" in key, f"{path}: no default"
        kinds = {one.get("type") for one in (key, *key.get("anyOf", ()))}
        if kinds & {"integer", "number"}:
            assert QUANTITIES.search(text), f"{path}: of what? {text}"


@pytest.mark.parametrize(
    ("section", "names"), [("sampler", [*SAMPLERS]), ("search", [*SEARCHERS]), ("gradient", [*RELAXATIONS])]
)
def test_whole_configurations_keep_to_it(schema: Schema, section: str, names: list[str]) -> None:
    for name in names:
        config = load_config(REPOSITORY / "experiments" / "digits.yaml", [f"{section}={{type: {name}}}"])
        assert errors(schema, config.as_dict()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "train.step=5", "train.steps=0", "train.steps=many", "sampler.type=sandwch", "sampler.bins=3", "seed=-1",
        "space.family=vitt", "space.preset=smal", "data.path=photos", "budgets.half={maccs: 50%}", "ray.workers=0",
        "train.optimizer.type=adam", "space={preset: small}", "supernet.sharing=tangled", "search.population=1.5",
    ],
)  # fmt: skip
def test_schema_and_loader_refuse_the_same(schema: Schema, wrong: str) -> None:
    file = REPOSITORY / "experiments" / "digits.yaml"
    with pytest.raises(UserError):
        load_config(file, [wrong])
    assert errors(schema, override(read_yaml(file), *parse_override(wrong)))


def test_plug_ins_are_in_it(supernest: Any, here: Path) -> None:
    (here / "one_path.py").write_text(
        '"""A sampler."""\nfrom dataclasses import dataclass\nfrom samplers import SAMPLERS\n'
        "from samplers.uniform import UniformSampler\n\n\n"
        '@SAMPLERS.register("one_path")\n@dataclass(frozen=True)\nclass OnePath(UniformSampler):\n'
        '    """Draws a path.\n\n    Args:\n        luck: Number of draws.\n    """\n\n    luck: int = 7\n',
        "utf-8",
    )
    code, out, _ = supernest("schema", "--plugin", "one_path.py")
    forms = {form["title"]: form["properties"] for form in json.loads(out)["properties"]["sampler"]["oneOf"]}
    assert (code, forms["one_path"]["luck"]["description"]) == (0, "Number of draws.")
    assert forms["one_path"]["luck"]["default"] == 7
    code, out, _ = supernest("schema", "--format", "markdown", "--plugin", "one_path.py", "--out", "keys.md")
    assert (code, out) == (0, "keys.md: written.\n")
    assert "| `luck` | whole number | `7` | Number of draws. |" in (here / "keys.md").read_text("utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
