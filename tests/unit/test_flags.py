"""Parameters become flags of a program, and values the words that give them."""

import argparse
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from course_lib._flags import add_argument, checked_flags, on_command_line


def parsed(fn, *words: str, **defaults: Any) -> dict[str, Any]:
    """What a program of ``fn`` makes of ``words``."""
    flags = checked_flags(fn, defaults, reserved="save-results")
    parser = argparse.ArgumentParser(allow_abbrev=False)
    lines = "".join(map(add_argument, flags))
    exec("if True:\n" + lines, {"parser": parser, "argparse": argparse, "Path": Path})
    return vars(parser.parse_args(words))


def every_kind(
    epochs: int,
    learning_rate: float = 0.1,
    name: str = "a 100 % name",
    shuffle: bool = True,
    data: Path = Path("some/where"),
    sizes: list[int] = [1, 2],  # noqa: B006
    betas: list[float] = [],  # noqa: B006
    seed: int | None = None,
    deep: bool | None = None,
    optimizer: Literal["sgd", "adam"] = "sgd",
    *,
    without_a_type=3,
):
    pass


def test_every_kind_of_parameter_has_its_default_and_its_type():
    found = parsed(every_kind, "--epochs=2")
    assert found == {
        "epochs": 2,
        "learning_rate": 0.1,
        "name": "a 100 % name",
        "shuffle": True,
        "data": Path("some/where"),
        "sizes": [1, 2],
        "betas": [],
        "seed": None,
        "deep": None,
        "optimizer": "sgd",
        "without_a_type": 3,
    }
    assert parsed(every_kind, epochs=5, learning_rate=1, data="x", sizes=[3])["epochs"] == 5


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 7, "learning_rate": 1e-05, "name": "--epochs=9 'x' \"y\"", "shuffle": False},
        {"epochs": -7, "learning_rate": float("inf"), "name": "", "deep": False, "seed": 0},
        {"epochs": 1, "learning_rate": 0.1 + 0.2, "data": Path("/a b/ü"), "sizes": [4, -5]},
        {"epochs": 1, "sizes": [], "betas": [0.9, 1 / 3], "deep": True, "optimizer": "adam"},
        {"epochs": 1, "learning_rate": np.float64(1 / 3), "seed": None},
    ],
)
def test_what_is_given_arrives(given):
    found = parsed(every_kind, *on_command_line(given))
    for name, value in given.items():
        assert found[name] == value
        assert type(found[name]) is type(value) or isinstance(value, np.floating)


@pytest.mark.parametrize("default", [float("inf"), float("-inf"), np.float64(0.5), np.float32(0.5)])
def test_a_default_that_is_no_plain_number_survives(default):
    def fn(x: float = 1.0):
        pass

    if isinstance(default, np.float32):  # no float: refused by name
        with pytest.raises(TypeError, match=r"fn: x=np.float32"):
            parsed(fn, x=default)
    else:
        found = parsed(fn, x=default)["x"]
        assert (found, type(found)) == (float(default), float)


def test_annotations_as_words_are_understood():
    def fn(x: "int" = 1, y: "list[Path] | None" = None):
        pass

    assert parsed(fn, "--x=3", "--y", "a", "b") == {"x": 3, "y": [Path("a"), Path("b")]}


@pytest.mark.parametrize(
    "words",
    [["--epoch=3"], ["--epochs=3", "--learning_rate=1"], ["--epochs=x"], ["--epochs=1.5"], []],
)
def test_a_misspelt_or_missing_flag_is_refused(words, capsys):
    with pytest.raises(SystemExit) as exit:
        parsed(every_kind, *words)
    assert exit.value.code == 2
    assert "error: " in capsys.readouterr().err


def signatures():
    import torch

    def words(*rest): ...
    def more(**rest): ...
    def only(x, /): ...
    def tensor(x: torch.Tensor): ...
    def untyped(x): ...
    def none(x=None): ...
    def mixed(x: list[Any]): ...
    def either(x: int | str): ...
    def table(x: dict[str, int]): ...
    def truths(x: list[bool]): ...
    def unknown(x: "NoSuchType"): ...  # noqa: F821
    def save_results(save_results: str = ""): ...
    def help_(help: str = ""): ...

    return {fn.__name__: fn for fn in list(locals().values()) if hasattr(fn, "__code__")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words", "words: the parameter *rest cannot be a flag"),
        ("more", "more: the parameter **rest cannot be a flag"),
        ("only", "only: the parameter x cannot be a flag"),
        ("tensor", "tensor: x cannot be a flag: a number, a word, a path"),
        ("untyped", "untyped: x cannot be a flag"),
        ("none", "none: x cannot be a flag"),
        ("mixed", "mixed: x cannot be a flag"),
        ("either", "either: x cannot be a flag"),
        ("table", "table: x cannot be a flag"),
        ("truths", "truths: x cannot be a flag"),
        ("unknown", "unknown: a type is not known here: name 'NoSuchType'"),
        ("save_results", "save_results: --save-results is a flag of every program"),
        ("help_", "help_: --help is a flag of every program"),
    ],
)
def test_what_cannot_be_a_flag_is_named(name, message):
    with pytest.raises(TypeError) as error:
        checked_flags(signatures()[name], {}, reserved="save-results")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("default", "message"),
    [
        ({"epoch": 1}, "every_kind has no parameter 'epoch'; it has: epochs, learning_rate"),
        ({"epochs": 1.5}, "every_kind: epochs=1.5 is no int"),
        ({"epochs": True}, "every_kind: epochs=True is no int"),
        ({"shuffle": 1}, "every_kind: shuffle=1 is no bool"),
        ({"name": 3}, "every_kind: name=3 is no str"),
        ({"sizes": [1, "x"]}, "every_kind: sizes='x' is no int"),
        ({"sizes": 3}, "every_kind: sizes=3 is no list"),
    ],
)
def test_a_default_that_does_not_fit_is_named(default, message):
    with pytest.raises(TypeError) as error:
        checked_flags(every_kind, default, reserved="save-results")
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("value", [{}, object(), [1, [2]], [None], {1}, b"x"])
def test_a_value_that_no_command_line_can_give_is_named(value):
    with pytest.raises(TypeError, match=r"^x=.* cannot be given on a command line"):
        on_command_line({"x": value})
