"""Find everything a cell's function reaches, so that it can stand in a file of its own.

From the function's syntax tree on, every global name is followed to the statement that made it, and
that statement's names in turn. A name is carried as

* an import, as the cells wrote it;
* a definition: the last one that ran, with its decorators;
* a constant: the value it has *now*, if that can be written down exactly, so that it does not
  matter which cells changed it;
* otherwise the statements that make and change it, which the program will run again.

What would not be the same thing in another process is refused by name: see ``CannotCarry``. One
thing is not seen: a change made by a function that is handed the object (``fill(table)``).
"""

import ast
import builtins
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from course_lib._cells import (
    Statement,
    first_line,
    grouped,
    last_fresh,
    names_used,
    outside_scopes,
    statements_that_ran,
)
from course_lib._replay import CannotCarry, Replay

_LONGEST = 2000  # characters of a constant that is written down; longer ones are made again
_IMPORTS = (ast.Import, ast.ImportFrom)
_OF_EVERY_MODULE = ("__name__", "__doc__", "__file__", "__debug__")
_DRAWS = re.compile(r"rand\w*$|shuffle$")  # torch.randn(…), random.random()
# They start processes or look at the notebook: a rank can do neither.
_NOT_IN_A_RANK = {
    ("course_lib.launcher", "launch"),
    ("course_lib.elastic", "torchrun"),
    ("course_lib.scripts", "write_script"),
}


@dataclass
class Carried:
    """What a program needs, each part in the order in which it must stand.

    Attributes:
        imports: Import statements.
        constants: ``NAME = value`` lines.
        blocks: Definitions and other statements.
        modules: Top-level names of the modules imported.
    """

    imports: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    modules: set[str] = field(default_factory=set)


def carry(fn: Callable[..., Any]) -> Carried:
    """Collect what ``fn``, a function of a cell, reaches.

    Raises:
        CannotCarry: Something it reaches cannot be carried.
    """
    shake = _Shake(inspect.unwrap(fn).__globals__)
    shake.follow(fn.__name__, wanted_by=None)
    while shake.waiting:
        shake.follow(*shake.waiting.pop())
    return shake.carried()


class _Shake:
    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace
        self._statements = statements_that_ran(namespace)
        self._seen: set[str] = set()
        self._imports: dict[str, None] = {}
        self._modules: set[str] = set()
        self._constants: dict[str, tuple[int, str]] = {}
        self._makers: dict[str, list[Statement]] = {}
        self.waiting: list[tuple[str, str | None]] = []

    def follow(self, name: str, wanted_by: str | None) -> None:
        """Find what makes ``name``, and queue the names that needs."""
        if name in self._seen or name in _OF_EVERY_MODULE:
            return
        self._seen.add(name)
        who = f"{wanted_by} uses {name}, and " if wanted_by else ""
        binding = self._binding(name)
        if not binding:
            self._without_a_statement(name, who)
        elif name not in self._namespace:
            raise CannotCarry(f"{who}no cell has defined {name}: define it first")
        elif isinstance(binding[-1].node, _IMPORTS):
            self._import(name, binding)
        elif (text := _written(self._namespace[name])) is not None:
            self._constants[name] = (binding[0].order, f"{name} = {text}")
        else:
            first = last_fresh(name, binding)
            made = [s for s in self._statements if s.order >= first.order]
            self._keep(name, [s for s in made if name in s.binds | s.touches], who)

    def _binding(self, name: str) -> list[Statement]:
        return [s for s in self._statements if name in s.binds]

    def _without_a_statement(self, name: str, who: str) -> None:
        for statement in reversed(self._statements):
            match statement.node:
                case ast.ImportFrom(module=str(module), names=[ast.alias(name="*")]):
                    if name in _names_of(module):
                        self._add_import(f"from {module} import {name}", module)
                        return
        if name == "display":
            raise CannotCarry(f"{who}only a notebook has {name}: print, or return a value")
        if hasattr(builtins, name):  # IPython puts an `open` of its own over Python's
            return
        if name not in self._namespace:
            raise CannotCarry(f"{who}no cell has defined {name}: define it first")
        raise CannotCarry(
            f"{who}no cell gives {name} its value in plain Python: a magic did, or a function. "
            "Give it in plain Python at the top level of a cell, or inside the function"
        )

    def _import(self, name: str, binding: list[Statement]) -> None:
        last = binding[-1].node
        for node in [s.node for s in binding if isinstance(s.node, ast.Import)]:
            for alias in node.names:  # `import torch` and `import torch.utils.data` both bind torch
                if alias.asname is None and alias.name.partition(".")[0] == name:
                    self._add_import(f"import {alias.name}", alias.name)
        for alias in last.names:
            if (alias.asname or alias.name.partition(".")[0]) != name:
                continue
            renamed = f" as {alias.asname}" if alias.asname else ""
            if isinstance(last, ast.ImportFrom):
                module = self._add_module(last)
                self._add_import(f"from {module} import {alias.name}{renamed}", module)
            else:
                self._add_import(f"import {alias.name}{renamed}", alias.name)

    def _add_import(self, text: str, module: str) -> None:
        self._imports[text] = None
        self._modules.add(module.partition(".")[0])

    def _keep(self, name: str, statements: list[Statement], who: str) -> None:
        self._makers[name] = statements
        for statement in statements:
            if statement.failed:
                raise CannotCarry(
                    f"{who}{name} comes from a cell that failed (`{first_line(statement)}`): run "
                    "it in a cell that comes to its end"
                )
            self._note_imports(statement.node)
            for used in names_used(statement.node):
                if used == "get_ipython":
                    raise CannotCarry(
                        f"{who}{name} is made with a magic or a shell command "
                        f"(`{first_line(statement)}`): make it in plain Python"
                    )
                value = self._namespace.get(used)
                home = getattr(value, "__module__", None), getattr(value, "__name__", None)
                if home in _NOT_IN_A_RANK:
                    raise CannotCarry(
                        f"{who}{name} is made with {used} (`{first_line(statement)}`), and a rank "
                        "cannot start ranks: save the result to a file and load it in the function"
                    )
                self.waiting.append((used, name))
            self._refuse_state(name, statement, who)

    def _note_imports(self, node: ast.stmt) -> None:
        inner = list(ast.walk(node))
        if any(isinstance(part, ast.Try) for part in inner):  # `try: import …` may do without
            return
        for part in inner:
            if isinstance(part, ast.Import):
                self._modules.update(alias.name.partition(".")[0] for alias in part.names)
            elif isinstance(part, ast.ImportFrom):
                self._add_module(part)

    def _add_module(self, node: ast.ImportFrom) -> str:
        if node.level:
            raise CannotCarry(f"`{ast.unparse(node)}` is a relative import: write the whole name")
        self._modules.add(node.module.partition(".")[0])
        return node.module

    def _refuse_state(self, name: str, statement: Statement, who: str) -> None:
        import torch

        value = self._namespace[name]
        state = isinstance(value, torch.optim.Optimizer | torch.Generator | Iterator)
        if isinstance(value, torch.nn.Module):
            state = bool(value.state_dict())
        if state:
            raise CannotCarry(
                f"{who}{name} (a {type(value).__name__}) has a state that a new one would not "
                "have: make it inside the function"
            )
        parts = outside_scopes(statement.node)
        words = [getattr(part, "attr", None) or getattr(part, "id", None) for part in parts]
        if any(word and _DRAWS.match(word) for word in words):
            raise CannotCarry(
                f"{who}{name} is made with random numbers (`{first_line(statement)}`), which every "
                "rank would draw anew: make it inside the function"
            )

    def carried(self) -> Carried:
        """Put everything into an order in which it can be executed."""
        replay = Replay(self._statements, self._makers, self._constants)
        replay.check_nothing_has_changed()
        again = replay.bound_again()
        future = "from __future__ import annotations"
        if any(ast.unparse(s.node) == future for s in self._statements):
            self._imports[future] = None
        return Carried(
            sorted(self._imports, key=lambda t: (t != future, t.startswith("from"), t)),
            [text for _, text in sorted(self._constants.values())],
            grouped(replay.in_order()) + [t for n, (_, t) in self._constants.items() if n in again],
            self._modules,
        )


def _written(value: Any) -> str | None:
    """Python text that means exactly ``value``, else None."""
    text = repr(value)
    if len(text) > _LONGEST:
        return None
    try:
        again = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError):
        return None
    return text if type(again) is type(value) and again == value and repr(again) == text else None


def _names_of(module: str) -> Iterable[str]:
    there = sys.modules.get(module)
    return dir(there) if isinstance(there, types.ModuleType) else ()
