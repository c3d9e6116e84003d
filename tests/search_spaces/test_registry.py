"""Registries fill themselves, refuse a taken name and offer the nearest one; errors are one line."""

import sys

import pytest

from search_spaces import Registry, UserError, did_you_mean


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with two plug-in modules and a registry that fills itself from it."""
    root = tmp_path / "gadgets_for_test"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "base.py").write_text(
        "from search_spaces import Registry\nGADGETS = Registry('gadget', 'gadgets_for_test')\n"
    )
    for name in ("winch", "lever"):
        (root / f"{name}.py").write_text(
            f"from gadgets_for_test.base import GADGETS\n\n@GADGETS.register('{name}')\nclass {name.title()}: ...\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "gadgets_for_test"
    for module in [m for m in sys.modules if m.split(".")[0] == "gadgets_for_test"]:
        del sys.modules[module]


def test_looking_anything_up_imports_the_package(package):
    registry = __import__(f"{package}.base").base.GADGETS
    assert f"{package}.winch" not in sys.modules
    assert list(registry) == ["lever", "winch"]
    assert len(registry) == 2
    assert "winch" in registry
    assert "pulley" not in registry
    assert registry["winch"].__name__ == "Winch"


def test_one_file_adds_a_plugin(package, tmp_path):
    (tmp_path / package / "pulley.py").write_text(
        f"from {package}.base import GADGETS\nGADGETS.register('pulley')(len)\n"
    )
    assert __import__(f"{package}.base").base.GADGETS["pulley"] is len


def test_a_taken_name_is_an_error_and_keeps_the_first():
    registry = Registry("gadget", "search_spaces")
    registry.register("winch")(len)
    with pytest.raises(UserError, match=r"gadget 'winch': the name is taken by .*len.*Choose another name"):
        registry.register("winch")(sum)
    assert registry["winch"] is len


def test_an_unknown_name_gets_the_nearest():
    registry = Registry("gadget", "search_spaces")
    registry.register("winch")(len)
    registry.register("lever")(sum)
    with pytest.raises(UserError, match=r"gadget: 'wench' is not known\. Did you mean 'winch'\? Known: lever, winch\."):
        registry["wench"]


def test_a_module_that_fails_to_import_fails_at_every_look_up(package, tmp_path):
    (tmp_path / package / "broken.py").write_text("raise RuntimeError('half a plug-in')\n")
    registry = __import__(f"{package}.base").base.GADGETS
    for _ in range(2):
        with pytest.raises(RuntimeError, match="half a plug-in"):
            list(registry)


def test_did_you_mean_lists_what_is_known_where_nothing_is_near():
    assert did_you_mean("zebra", ["winch", "lever"]) == " Known: lever, winch."
    assert did_you_mean("leever", ["winch", "lever"]) == " Did you mean 'lever'? Known: lever, winch."


def test_user_errors_are_value_errors():
    assert issubclass(UserError, ValueError)
