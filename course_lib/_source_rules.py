"""The rules a lesson or an exercise source must keep beyond being readable.

Why: a stub in an exercises notebook raises `NotImplementedError`. Only a check knows how to take
that ("not done yet"); anywhere else it stops Run All for a learner who has not got so far. And
papermill can only set what a typed line of a cell tagged ``parameters`` declares.

The rules look at the syntax tree, never at the text, and at each cell as a reader gets it. They
err on the strict side: a stub may be *named* nowhere but in the arguments of a check.
"""

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from course_lib._sources import EXERCISE_TAGS, MAGIC, SOLUTION_TAGS, Cell, Fault

LONGEST_CELL = 30  # lines
_FILE_NAME = re.compile(r"(?P<number>\d\d)(_[a-z0-9]+)+\.py")
_PYTHON_CELL_MAGIC = re.compile(r"%%(time|timeit|capture|prun)\b")
_TIMING_MAGIC = re.compile(r"%(?:time|timeit|prun)\s+(?:-\w+\s*\d*\s+)*(?P<statement>.+)")
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITION = (*_FUNCTION, ast.ClassDef)


def file_name_faults(name: str, numbers: dict[str, str]) -> Iterator[Fault]:
    """Faults of a source's name; `numbers` has the names seen before in its folder, by number."""
    match = _FILE_NAME.fullmatch(name)
    if match is None:
        yield 1, "file name not like NN_topic.py (two digits, then lower-case words): rename it"
    elif numbers.setdefault(match["number"], name) != name:
        yield 1, f"number {match['number']} is taken by {numbers[match['number']]}: take another"


def parse(source: str) -> ast.Module:
    """The syntax tree of a code cell, IPython's magics put aside.

    A ``%%bash`` cell has an empty tree; what ``%time`` and ``%%time`` run is looked at.

    Raises:
        SyntaxError: the cell is not Python; `lineno` counts from the cell's first line.
    """
    lines = source.split("\n")
    if lines[0].startswith("%%"):
        if not _PYTHON_CELL_MAGIC.match(lines[0]):
            return ast.Module([], [])
        lines[0] = ""
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # such as "\d": the linter's business
                tree = ast.parse("\n".join(lines))
                compile(tree, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            return tree
        except SyntaxError as error:
            # Only a line that Python stumbles over is a magic: `% 2` may continue an expression.
            at = (error.lineno or 1) - 1
            magic = MAGIC.match(lines[at]) if at < len(lines) else None
            if magic is None:
                raise
            timed = _TIMING_MAGIC.fullmatch(lines[at], magic.end() - 1)
            run, rest = (timed["statement"] if timed else "None"), at
            while lines[rest].endswith("\\") and rest + 1 < len(lines):  # a magic goes on
                rest += 1
            lines[at : rest + 1] = [magic["indent"] + run, *[""] * (rest - at)]


def parsed(cells: Iterable[Cell]) -> tuple[list[tuple[Cell, ast.Module]], list[Fault]]:
    """The code cells that are Python, each with its tree, and a fault for each that is not."""
    trees: list[tuple[Cell, ast.Module]] = []
    faults: list[Fault] = []
    for cell in cells:
        if cell.kind == "code":
            try:
                trees.append((cell, parse(cell.source)))
            except SyntaxError as error:
                faults.append((cell.place(error.lineno), f"syntax error: {error.msg}"))
    return trees, faults


def lesson_faults(cells: list[Cell]) -> Iterator[Fault]:
    """Faults of a lesson: its parameters cell, overlong cells, solutions in the wrong folder."""
    trees, faults = parsed(cells)
    yield from faults
    tagged = [cell.line for cell in cells if cell.kind == "code" and "parameters" in cell.tags]
    if not tagged:
        yield 1, 'no cell tagged parameters: add `# %% tags=["parameters"]` near the top'
    yield from _parameter_faults(tagged, trees)
    for cell in cells:
        if cell.kind == "code" and len(cell.lines) > LONGEST_CELL:
            size = len(cell.lines)
            yield cell.line, f"code cell of {size} lines: split it, {LONGEST_CELL} are the limit"
        if {*cell.tags} & (SOLUTION_TAGS | EXERCISE_TAGS) or cell.for_solutions() != cell:
            yield cell.line, "a lesson has no solutions: move this cell to sources/exercises/"


def exercise_faults(cells: list[Cell]) -> Iterator[Fault]:
    """Faults of an exercise source: both versions must be Python, stubs met by checks only."""
    _, wrong_solved = parsed(filter(None, (cell.for_solutions() for cell in cells)))
    pairs = [(cell, seen) for cell in cells if (seen := cell.for_exercises())]
    trees, wrong_cut = parsed(seen for _, seen in pairs)
    yield from sorted({*wrong_solved, *wrong_cut})
    yield from _parameter_faults([c.line for c, _ in trees if "parameters" in c.tags], trees)
    written = {cell.line: {*cell.lines} for cell in cells}
    run = _RunAll()
    for cell, tree in trees:
        cuts = [i for i, line in enumerate(cell.lines, 1) if line not in written[cell.line]]
        yield from run.follow(cell, tree, cuts)
    if not wrong_cut:  # a cell that could not be read may hold the missing check
        for stub in run.unchecked:
            message = f"the stub `{stub.name}` never meets a check: pass it to one in a later cell"
            yield stub.line, message


def _parameter_faults(tagged: list[int], trees: list[tuple[Cell, ast.Module]]) -> Iterator[Fault]:
    for line in tagged[1:]:
        yield line, f"a second cell tagged parameters (the first: line {tagged[0]}): merge them"
    for cell, tree in trees:
        for node in tree.body if cell.line in tagged else ():
            typed = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
            assigns = isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign))
            if assigns and not (typed and node.value):
                wrong = f"parameter `{ast.unparse(node)}` lacks its type or its default"
                yield cell.place(node.lineno), f"{wrong}: write `name: type = value`"


def names_of_checks(tree: ast.Module) -> set[str]:
    """Names in `tree` that are bound to `course_lib.checks` or to something imported from it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if f"{alias.name}.".startswith("course_lib.checks."):
                    names.add(alias.asname or "course_lib.checks")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}.".startswith("course_lib.checks."):
                    names.add(alias.asname or alias.name)
    return names


@dataclass(frozen=True)
class _Stub:
    name: str
    line: int  # in the source
    cell: int  # the line of its cell in the source


class _RunAll(ast.NodeVisitor):
    """Follows what Run All executes in an exercises notebook, to see where it meets a stub."""

    def __init__(self) -> None:
        self.unchecked: list[_Stub] = []
        self.checks: set[str] = set()
        # What a top-level name stands for: a stub, or a definition and the names used inside it.
        self.bound: dict[str, _Stub | frozenset[str]] = {}
        self.in_check = False

    def follow(self, cell: Cell, tree: ast.Module, cuts: list[int]) -> list[Fault]:
        """Run through one more cell; `cuts` are the lines of it that raise NotImplementedError."""
        self.cell, self.faults, self.stubs = cell, [], {}
        self.checks |= names_of_checks(tree)
        for cut in cuts:
            around = [
                node
                for node in ast.walk(tree)
                if isinstance(node, _DEFINITION) and node.lineno <= cut <= node.end_lineno
            ]
            if not any(isinstance(node, _FUNCTION) for node in around):
                self._fault(
                    cut, "a solution outside a function would stop Run All: move it into one"
                )
            elif around[0] not in self.stubs:  # ast.walk goes from the outside to the inside
                stub = _Stub(around[0].name, cell.place(around[0].lineno), cell.line)
                self.stubs[around[0]] = stub
                self.unchecked.append(stub)
        self.visit(tree)
        return self.faults

    def _fault(self, lineno: int, message: str) -> None:
        self.faults.append((self.cell.place(lineno), message))

    def _stubs_behind(self, name: str) -> set[_Stub]:
        found, seen, todo = set(), set(), [name]
        while todo:
            name = todo.pop()
            behind = self.bound.get(name, frozenset())
            if isinstance(behind, _Stub):
                found.add(behind)
            elif name not in seen:
                todo.extend(behind)
            seen.add(name)
        return found

    def visit_FunctionDef(self, node):
        for now in (*node.decorator_list, *getattr(node, "bases", ())):
            self.visit(now)
        names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
        local = {n.id for n in names if not isinstance(n.ctx, ast.Load)}
        local |= {n.arg for n in ast.walk(node) if isinstance(n, ast.arg)}
        self.bound[node.name] = self.stubs.get(node) or frozenset({n.id for n in names} - local)

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef

    def visit_Assign(self, node):
        for child in reversed([*ast.iter_child_nodes(node)]):  # the value before the name it gets
            self.visit(child)

    visit_AnnAssign = visit_AugAssign = visit_NamedExpr = visit_Assign

    def visit_Call(self, node):
        before, callee = self.in_check, ast.unparse(node.func)
        is_check = any(f"{callee}.".startswith(f"{name}.") for name in self.checks)
        # Other calls among the arguments happen before the check can catch anything.
        self.in_check = is_check or (before and callee in {"partial", "functools.partial"})
        self.generic_visit(node)
        self.in_check = before

    def visit_Lambda(self, node):
        # Its body runs when a check calls it; outside a check, to name a stub is too much already.
        for name in (n for n in ast.walk(node) if isinstance(n, ast.Name)):
            self.visit(name)

    def visit_Name(self, node):
        if not isinstance(node.ctx, ast.Load):
            self.bound.pop(node.id, None)
            return
        for stub in self._stubs_behind(node.id):
            if not self.in_check:
                via = "" if node.id == stub.name else f" (through `{node.id}`)"
                wrong = f"the stub `{stub.name}` is used outside a check{via}"
                mend = "pass the function itself to a check, or tag this cell `solution-only`"
                self._fault(node.lineno, f"{wrong} and would stop Run All: {mend}")
            elif stub.cell < self.cell.line and stub in self.unchecked:
                self.unchecked.remove(stub)
