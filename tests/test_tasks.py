"""General code asks families and tasks what holds for them, and names none of them."""

import ast
from collections.abc import Iterator
from pathlib import Path

from search_spaces import FAMILIES
from supernet.tasks import TASKS, Task

REPOSITORY = Path(__file__).resolve().parent.parent
OWN = {
    # a family's own files, what reads checkpoints of language models, and measurements of named families
    "search_spaces": (
        "vit",
        "mobilenet",
        "language",
        "language_form",
        "nas_bench_201",
        "translation",
        "ensemble",
        "darts",
        "encoder",
    ),
    "supernet": ("families", "pytorch", "standalone", "tasks"),
    "experiments": ("pretrained", "benchmarks", "truth_tables"),
}
DEFAULTS = {
    ("experiments/commands/init.py", "vit"),
    ("supernet/gradient/relaxation.py", "darts"),
    *(("experiments/configuration/proposals.py", family) for family in ("vit", "mobilenet", "language", "translation")),
}
"""Defaults and proposals of commands where no family is named; and a relaxation of the same name as a family."""


def general() -> list[Path]:
    """The files that are of no family or task."""
    files = []
    for package, own in OWN.items():
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            first = path.relative_to(REPOSITORY / package).parts[0].removesuffix(".py")
            if first not in own:
                files.append(path)
    return files + sorted((REPOSITORY / "supernest").rglob("*.py"))


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each string that is no docstring."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


def compared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of each comparison of what is called `inputs`, `family` or `task` with a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            texts = [side for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)]
            about = [side for side in sides if isinstance(side, ast.Attribute | ast.Name)]
            names = {side.attr if isinstance(side, ast.Attribute) else side.id for side in about}
            if (texts and names & {"inputs", "family", "task"}) or {t.value for t in texts} & {*TASKS, *FAMILIES}:
                yield node.lineno, ast.unparse(node)


def test_no_general_file_names_a_family_or_compares_tasks() -> None:
    found = {}
    for path in general():
        place, tree = str(path.relative_to(REPOSITORY)), ast.parse(path.read_text())
        names = [(line, text) for line, text in named(tree) if text in FAMILIES and (place, text) not in DEFAULTS]
        found |= {place: [*names, *compared(tree)]} if [*names, *compared(tree)] else {}
    assert len(general()) > 100
    assert found == {}


def test_the_check_finds_what_it_looks_for() -> None:
    tree = ast.parse('"""vit"""\nif space.inputs == "x" or "tokens" == y:\n    z = "vit"')
    assert sorted(named(tree)) == [(2, "tokens"), (2, "x"), (3, "vit")]
    assert sorted(text for _, text in compared(tree)) == ["'tokens' == y", "space.inputs == 'x'"]


def test_every_family_takes_tasks_that_there_are() -> None:
    for name, family in FAMILIES.items():
        assert family.tasks(), name
        assert all(issubclass(TASKS[task], Task) for task in family.tasks())
