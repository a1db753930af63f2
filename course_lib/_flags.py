"""A function's parameters as flags of a program: how they are declared, and how they are given.

A parameter can be a flag when its annotation (or, without one, its default) is a number, a word, a
truth value, a path, a list of these, or one of these or None.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_SIMPLE = (bool, int, float, str, Path)
_MISSING = inspect.Parameter.empty


class Flag(NamedTuple):
    """One flag.

    Attributes:
        name: The parameter.
        kind: The type of its value, or of each of its values.
        many: Whether it takes several.
        default: Its default; ``inspect.Parameter.empty`` when it must be given.
    """

    name: str
    kind: type
    many: bool
    default: Any


def flag(name: str) -> str:
    """``--batch-size`` for ``batch_size``."""
    return "--" + name.replace("_", "-")


def checked_flags(fn: Callable[..., Any], defaults: Mapping[str, Any], reserved: str) -> list[Flag]:
    """The parameters of ``fn`` as flags, with ``defaults`` in place of the signature's own.

    Raises:
        TypeError: A parameter cannot be a flag, or a default is for none or does not fit.
    """
    name = fn.__name__
    parameters = inspect.signature(fn).parameters
    for given in defaults:
        if given not in parameters:
            raise TypeError(
                f"{name} has no parameter {given!r}; it has: {', '.join(parameters) or 'none'}"
            )
    try:
        hints = typing.get_type_hints(inspect.unwrap(fn))
    except NameError as error:
        raise TypeError(f"{name}: a type is not known here: {error}") from None
    flags = []
    for parameter in parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}: the parameter {parameter} cannot be a flag: name each one")
        if flag(parameter.name) in ("--help", f"--{reserved}"):
            raise TypeError(
                f"{name}: {flag(parameter.name)} is a flag of every program: rename the parameter"
            )
        default = _plain(defaults.get(parameter.name, parameter.default))
        hint = hints.get(parameter.name, _MISSING)
        kind, many = _kind(hint) if hint is not _MISSING else _kind_of(default)
        if kind is None:
            raise TypeError(
                f"{name}: {parameter.name} cannot be a flag: a number, a word, a path, or a list "
                "of these is needed, with its type written down (x: int). Load or make anything "
                "else inside the function"
            )
        _check_default(name, parameter.name, default, kind, many)
        flags.append(Flag(parameter.name, kind, many, default))
    return flags


def _plain(value: Any) -> Any:
    """``value`` as Python's own type, where it is one in disguise: numpy's floats are floats."""
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _check_default(function: str, name: str, default: Any, kind: type, many: bool) -> None:
    if default is _MISSING or default is None:
        return
    if many and not isinstance(default, list | tuple):
        raise TypeError(f"{function}: {name}={default!r} is no list")
    for value in default if many else [default]:
        fits = (int, float) if kind is float else (str, Path) if kind is Path else kind
        if not isinstance(value, fits) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{function}: {name}={value!r} is no {kind.__name__}")


def _kind(hint: Any) -> tuple[type | None, bool]:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [kind for kind in inside if kind is not type(None)]
        return _kind(rest[0]) if len(rest) == 1 else (None, False)
    if origin is list or (origin is tuple and inside[-1:] == (...,)):
        return (inside[0] if inside[0] in _SIMPLE and inside[0] is not bool else None), True
    if origin is typing.Literal and {type(value) for value in inside} == {str}:
        return str, False
    return (hint if hint in _SIMPLE else None), False


def _kind_of(default: Any) -> tuple[type | None, bool]:
    if isinstance(default, list) and default and type(default[0]) in _SIMPLE:
        return type(default[0]), True
    return (type(default) if type(default) in _SIMPLE else None), False


def add_argument(flag_: Flag) -> str:
    """The line of a program that declares the flag."""
    words = [f'"{flag(flag_.name)}"']
    if flag_.kind is bool:
        words.append("action=argparse.BooleanOptionalAction")
    else:
        words.append(f"type={flag_.kind.__name__}")
    if flag_.many:
        words.append('nargs="*"')
    if flag_.default is _MISSING:
        words.append("required=True")
    else:
        # As a word where its repr is no Python text: a path, or inf. argparse gives it its type.
        default = flag_.default
        if isinstance(default, Path) or (isinstance(default, float) and not math.isfinite(default)):
            default = str(default)
        words.append(f"default={default!r}")
        optional = flag_.default is None or flag_.default == []
        words.append(f'help="{"optional" if optional else "default: %(default)s"}"')
    return f"    parser.add_argument({', '.join(words)})\n"


def on_command_line(flags: Mapping[str, Any]) -> list[str]:
    """The words that give ``flags`` to a program: ``["--epochs=3", "--no-shuffle"]``.

    A flag whose value is None is left out.

    Raises:
        TypeError: A value is not a number, a word, a path, or a list of these.
    """
    words = []
    for name, value in flags.items():
        values = value if isinstance(value, list | tuple) else [value]
        for one in values:
            if not isinstance(one, _SIMPLE) and value is not None:
                raise TypeError(
                    f"{name}={one!r:.60} cannot be given on a command line: numbers, words, paths, "
                    "or lists of these only"
                )
        if isinstance(value, list | tuple):
            words += [flag(name), *map(str, value)]
        elif isinstance(value, bool):
            words.append(flag(name) if value else flag(f"no_{name}"))
        elif value is not None:
            words.append(f"{flag(name)}={value}")
    return words
