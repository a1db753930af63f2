"""The cells that ran in this notebook, as statements.

A statement keeps the reader's own text, with the comment above it. Statements stand in the order in
which they ran: a cell that was run again counts where it ran last. Those of a cell that failed are
marked, for nobody knows which of them ran. ``%%time`` and ``%%capture`` are unwrapped. In a plain
program, the program's file is the only cell.
"""

import ast
import linecache
import symtable
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_TRANSPARENT = ("time", "capture")
_CHANGE_AND_GIVE = ("pop", "popitem", "setdefault")  # methods that change, and return a value
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_SCOPES = (*DEFINITIONS, ast.Lambda)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass(frozen=True, eq=False)
class Statement:
    """One top-level statement of a cell that ran.

    Attributes:
        order: Its place among all statements, in the order of execution.
        node: Its syntax tree.
        text: Its source, with decorators and the comment lines right above it.
        binds: Names it gives a value to.
        touches: Names whose value it changes without giving a new one: ``options["rate"] = 0.1``.
        failed: Whether its cell did not come to its end.
    """

    order: int
    node: ast.stmt
    text: str
    binds: frozenset[str] = field(default=frozenset())
    touches: frozenset[str] = field(default=frozenset())
    failed: bool = False


def statements_that_ran(namespace: dict[str, Any]) -> list[Statement]:
    """The statements behind ``namespace``, the globals of a function, in the order they ran."""
    found: list[Statement] = []
    for text, showed_a_value, failed in _cells(namespace):
        parsed = list(_parsed(text))
        for index, (node, source) in enumerate(parsed):
            last = index == len(parsed) - 1
            binds, touches = _effects(node, shown=last and showed_a_value)
            found.append(Statement(len(found), node, source, binds, touches, failed))
    return found


def _cells(namespace: dict[str, Any]) -> list[tuple[str, bool, bool]]:
    """The source of every cell that ran; whether it ended by showing a value; whether it failed."""
    shell = _shell()
    if shell is None or namespace is not shell.user_ns:
        text = "".join(linecache.getlines(namespace.get("__file__", "")))
        return [(text, False, False)]
    history = shell.history_manager
    # Kept by IPython 9; the cell that is running now has no entry, and counts.
    failed = getattr(history, "exceptions", {})
    return [
        (text, number in history.output_hist, number in failed)
        for number, text in enumerate(history.input_hist_parsed)
    ]


def _shell():
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython else None


def _parsed(text: str) -> Iterator[tuple[ast.stmt, str]]:
    """The statements of a cell with their source; nothing for a cell that is not Python."""
    try:
        nodes = ast.parse(text).body
    except SyntaxError:
        return
    lines = text.splitlines()
    taken = Counter(n for node in nodes for n in {_first(node), node.end_lineno})
    for node in nodes:
        inner = _unwrapped(node)
        if inner is not None:
            yield from _parsed(inner)
        elif max(taken[_first(node)], taken[node.end_lineno]) > 1:  # a = 1; b = 2
            yield node, ast.unparse(node)
        else:
            yield node, _source(node, lines, taken)


def _first(node: ast.stmt) -> int:
    """The number of a statement's first line, decorators included."""
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])


def _source(node: ast.stmt, lines: list[str], taken: Mapping[int, int]) -> str:
    begin = _first(node) - 1
    # A line that ends another statement is no comment: `# so"""` may end a text.
    while begin > 0 and lines[begin - 1].startswith("#") and begin not in taken:
        begin -= 1
    return "\n".join(lines[begin : node.end_lineno])


def _unwrapped(node: ast.stmt) -> str | None:
    """The Python text that a magic of the transparent kind runs, else None."""
    match node:
        case ast.Expr(
            value=ast.Call(
                func=ast.Attribute(value=ast.Call(func=ast.Name(id="get_ipython")), attr=method),
                args=[ast.Constant(value=magic), *_, ast.Constant(value=str(body))],
            )
        ) if method in ("run_cell_magic", "run_line_magic") and magic in _TRANSPARENT:
            return _shell().transform_cell(body)
    return None


def _effects(statement: ast.stmt, shown: bool) -> tuple[frozenset[str], frozenset[str]]:
    """The names a statement binds, and those whose values it changes.

    A method called for its own sake (``layers.append(3)``) changes its object, unless what it
    gave back was ``shown`` under the cell: ``table.head()`` is there to be looked at.
    """
    binds: set[str] = set()
    touches: set[str] = set()
    for node in outside_scopes(statement):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                binds.add(node.name)
            case ast.alias():
                binds.add(node.asname or node.name.partition(".")[0])
            case ast.Name(id=name, ctx=ast.Store()):
                binds.add(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                binds.add(name)
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                binds.add(name)
            case ast.Attribute(ctx=ast.Store() | ast.Del()):
                touches.add(_root(node))
            case ast.Subscript(ctx=ast.Store() | ast.Del()):
                touches.add(_root(node))
            case ast.Expr(value=ast.Call(func=ast.Attribute(attr=method) as function)):
                if not shown or method in _CHANGE_AND_GIVE or method.endswith("_"):
                    touches.add(_root(function))
    return frozenset(binds), frozenset(touches - binds - {""})


def outside_scopes(node: ast.AST) -> Iterator[ast.AST]:
    """``node`` and what is in it, without the insides of functions, classes and comprehensions.

    But a comprehension's ``:=`` binds outside it, and ``x: int`` alone binds nothing.
    """
    yield node
    if isinstance(node, _COMPREHENSIONS):
        yield from (inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr))
    if isinstance(node, _SCOPES + _COMPREHENSIONS):
        return
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return
    for child in ast.iter_child_nodes(node):
        yield from outside_scopes(child)


def _root(node: ast.AST) -> str:
    """``options`` for ``options["rate"].x``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def names_used(node: ast.stmt) -> set[str]:
    """The global names ``node`` reads, now or when the function it defines is called."""
    return _globals_of(symtable.symtable(ast.unparse(node), "cell", "exec"))


def names_at_definition(node: ast.stmt) -> set[str]:
    """The global names a definition reads when it is executed, not when it is called."""
    hollow = ast.parse(ast.unparse(node)).body[0]
    for inner in ast.walk(hollow):
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            inner.body = [ast.Pass()]
    return names_used(ast.fix_missing_locations(hollow))


def _globals_of(table: symtable.SymbolTable) -> set[str]:
    top = table.get_type() == "module"
    names = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if (symbol.is_referenced() and (top or symbol.is_global()))
        or (symbol.is_declared_global() and not top)  # `global n` and `n += 1` count as no reading
    }
    return names.union(*map(_globals_of, table.get_children()))


def last_fresh(name: str, binding: Sequence[Statement]) -> Statement:
    """The last of ``binding`` that gives ``name`` a value without looking at the one before."""
    for statement in reversed(binding):
        node = statement.node
        if isinstance(node, DEFINITIONS) and name not in names_at_definition(node):
            return statement
        if isinstance(node, ast.Assign | ast.AnnAssign) and name not in names_used(node):
            return statement
    return binding[0]


def grouped(statements: Sequence[Statement]) -> list[str]:
    """The text of definitions each by itself, of other statements in a row together."""
    blocks: list[str] = []
    row = False
    for statement in statements:
        definition = isinstance(statement.node, DEFINITIONS)
        if row and not definition:
            blocks[-1] += f"\n{statement.text}"
        else:
            blocks.append(statement.text)
        row = not definition
    return blocks


def first_line(statement: Statement) -> str:
    """The beginning of a statement, for messages."""
    return ast.unparse(statement.node).splitlines()[0][:80]
