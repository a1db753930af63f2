"""What a cell's function reaches comes along, or is refused by name. Real cells, real programs."""

import pytest
from notebook_shell import Notebook


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "beside.py").write_text("N = 1\n")
    notebook = Notebook(folder)
    yield notebook
    notebook.close()


# ── carried ──────────────────────────────────────────────────────────────────────────────────────

# Each: cells, the last of which define f. What f() gives must be equal in notebook and program.
CARRIED = {
    "decorators": [
        "import functools",
        "def twice(g):\n    @functools.wraps(g)\n    def inner(*a):\n        return 2 * g(*a)\n"
        "    return inner",
        "def times(n):\n    def wrap(g):\n        return lambda *a: n * g(*a)\n    return wrap",
        "@times(3)\n@twice\ndef g(x):\n    return x + 1",
        "@twice\ndef f():\n    return g(4)",
    ],
    "a library's decorator": [
        "import functools",
        "@functools.cache\ndef g():\n    return 5",
        "import contextlib\n@contextlib.contextmanager\ndef opened():\n    yield 7",
        "def f():\n    with opened() as x:\n        return x + g()",
    ],
    "a library's decorator on the function": [
        "import torch",
        "@torch.no_grad()\ndef f():\n    x = torch.ones(2, requires_grad=True)\n"
        "    return (x * 2).requires_grad",
    ],
    "nested classes and dataclasses": [
        "from dataclasses import dataclass, field\nBASE = 3",
        "@dataclass\nclass Options:\n    width: int = BASE\n    more: list = field("
        "default_factory=lambda: [BASE])\n    class Inner:\n        depth = BASE * 2\n"
        "        def at(self):\n            return helper(self.depth)",
        "def helper(x):\n    return x + BASE",
        "def f():\n    return Options(), Options.Inner().at()",
    ],
    "the last definition": [
        "def g():\n    return 1",
        "def f():\n    return g()",
        "def g():\n    return 2",
    ],
    "an earlier cell run again": [
        "def g():\n    return 1",
        "def g():\n    return 2",
        "def g():\n    return 1",
        "def f():\n    return g()",
    ],
    "rebound and changed constants": [
        "EPOCHS = 1\noptions = {'rate': 1.0, 'deep': [1]}\nsizes = [1, 2]\nscale = 2",
        "def f():\n    return EPOCHS, options, sizes, scale, seen, total",
        "EPOCHS = 7\nscale *= 3",
        "options['rate'] = 0.5\noptions['deep'].append(9)\nsizes.append(3)\nsizes.reverse()",
        "seen = []\nfor i in range(3):\n    seen.append(i * i)\n    total = i",
    ],
    "constants changed through a second name": [
        "options = {'rate': 1.0}\nalias = options",
        "alias['rate'] = 0.1",
        "def f():\n    return options",
    ],
    "functions in a list, changed later": [
        "steps = [lambda x: x + 1]",
        "def double(x):\n    return 2 * x",
        "steps.append(double)",
        "for k in (3, 4):\n    steps.append(lambda x, k=k: x * k)",
        "steps += [lambda x: x - 1]",
        "def f():\n    return [s(5) for s in steps]",
    ],
    "a made value beside a constant that changes": [
        "low, steps = 1, [lambda x: x + low]",
        "low = 5",
        "def f():\n    return low, steps[0](1)",
    ],
    "attributes set on functions and classes": [
        "class Net:\n    pass\ndef g():\n    return g.calls",
        "Net.width = 4\ng.calls = 2",
        "def f():\n    return Net.width, g()",
    ],
    "%%time and %%capture": [
        "%%time\nimport math\ndef g():\n    return math.tau",
        "%%capture output\n# a comment\nROWS = [1, 2]\ndef h():\n    return ROWS",
        "%time x = [g, h]",
        "%%time\ndef f():\n    return [k() for k in x]",
    ],
    "from m import *": [
        "from math import *",
        "from statistics import *",
        "def f():\n    return sqrt(16) + mean([1, 2, 3]), pow(2.0, 2)",
    ],
    "imports of parts, and aliases": [
        "import os.path as where\nimport xml\nimport xml.dom.minidom\nimport json as j, re",
        "from collections import OrderedDict as Ordered, deque",
        "def f():\n    return (where.join('a', 'b'), xml.dom.minidom.parseString('<a/>').toxml(),"
        " j.dumps(1), Ordered(a=1), deque([1]), re.sub('a', 'b', 'a'))",
    ],
    "conditional definitions": [
        "FAST = True\nif FAST:\n    def g():\n        return 'fast'\nelse:\n    def g():\n"
        "        return 'slow'",
        "try:\n    import no_such_module as fast\nexcept ImportError:\n    import math as fast",
        "def f():\n    return g(), fast.floor(2.5)",
    ],
    "used in defaults, decorators, annotations and bases only": [
        "def default():\n    return 3\nclass Meta(type):\n    pass\nclass Base:\n    b = 4\n"
        "class Hint:\n    pass",
        "def g(x: Hint = default()) -> Hint:\n    y: Hint = x\n    return y",
        "class Net(Base, metaclass=Meta):\n    pass",
        "def f():\n    return g(), Net().b, type(Net).__name__",
    ],
    "definition-time order after running cells again": [
        "class Base:\n    def name(self):\n        return helper()",
        "class Net(Base):\n    pass\nnets = [Net]",
        "def helper():\n    return 'helped'",
        "class Base:\n    def name(self):\n        return helper()",
        "def f():\n    return nets[0]().name(), table",
        "table = {'a': 1, 'g': helper()}",
        "def helper():\n    return 'helped'",
    ],
    "a function that wraps its own older version": [
        "def g(x):\n    return x + 1",
        "def add(h):\n    return lambda x: h(x) + 10",
        "g = add(g)",
        "def f():\n    return g(1)",
    ],
    "a class that extends its own older version": [
        "class Net:\n    a = 1",
        "class Net(Net):\n    b = 2",
        "def f():\n    return Net.a, Net.b",
    ],
    "scopes": [
        "a, b, c, d = 'a', 'b', 'c', 'd'\nn = 2",
        "class Box:\n    n = n + 1\n    rows = [n for _ in range(2)]\n    def get(self, k=n):\n"
        "        return k, self.n, n",
        "def f():\n    import json as local\n    squares = [c + x for x in 'xy' if (last := x)]\n"
        "    g = lambda q, r=d: q + r\n    match {'k': [1, 2, 3], 'z': 0}:\n"
        "        case {'k': [first, *others], **rest}:\n            pass\n"
        "    return local.dumps(a), squares, last, g('q'), first, others, rest, Box().get()",
    ],
    "names bound by :=, match, with and for at the top of a cell": [
        "values = [y := 3, [z := k for k in range(3)]]",
        "match [1, 2, {'u': 4, 'v': 5}]:\n    case [one, *many, {'u': u, **left}]:\n        pass",
        "import contextlib\nwith contextlib.nullcontext(6) as six:\n    pass",
        "def f():\n    return y, z, one, many, left, u, six",
    ],
    "a counter that functions change": [
        "count = 5",
        "def up():\n    global count\n    count += 1",
        "def f():\n    return up(), up()",
    ],
    "annotations of the future": [
        "from __future__ import annotations",
        "from dataclasses import dataclass",
        "@dataclass\nclass Node:\n    next: Node | None = None\n    n: int = 1",
        "def f():\n    return Node(Node()).next, Node.__annotations__",
    ],
    "a type on its own": [
        "steps = [len]\nsteps: list",
        "def f():\n    return steps[0]('abc')",
    ],
    "what Python itself has": [
        "def f():\n    with open('/dev/null') as e:\n        return __name__ and e.read()",
    ],
    "two statements on a line, and a text that looks like a comment": [
        "a = 1; g = lambda: a",
        'text = """\n# no comment"""\ndef h():\n    return text',
        "def f():\n    return g(), h()",
    ],
    "a module without state": [
        "import torch\nloss = torch.nn.MSELoss()",
        "def f():\n    return loss(torch.ones(2), torch.zeros(2)).item()",
    ],
    "a function that draws": [
        "import random\npick = lambda: random.Random(0).random()",
        "def f():\n    return pick()",
    ],
}


@pytest.mark.parametrize("cells", CARRIED.values(), ids=CARRIED)
def test_is_carried(notebook, cells):
    written = notebook.write(*cells, call="()")
    assert not written.error
    assert not written.failed
    assert written.programs == written.notebooks != ""
    for word in ("get_ipython", "In[", "ipykernel", "<ipython"):
        assert word not in written.text


def test_only_what_is_needed_is_carried_in_the_readers_own_words(notebook):
    written = notebook.write(
        "import os, math\nrate = 0.1\nunused = 3\nimport json",
        "# Why it is so.\n# Second line.\n@staticmethod\ndef helper(x):  # at the end\n"
        "    # inside\n    return (x\n            + 1)\n\n# not this",
        "def other():\n    return json",
        "def f():\n    '''One line.\n\n    And more.'''\n    unused = 1  # not the notebook's\n"
        "    return helper(unused), rate, math.pi",
        "1/0",
        call="()",
    )
    assert written.failed == [4]
    assert written.programs == written.notebooks
    assert (
        "# Why it is so.\n# Second line.\n@staticmethod\ndef helper(x):  # at the end\n"
        "    # inside\n    return (x\n            + 1)\n\n\ndef f():" in written.text
    )
    assert written.text.startswith('"""One line.\n\n    torchrun --nproc-per-node=2 program_')
    assert '"""\n\nimport math\n\nrate = 0.1\n\n\n# Why' in written.text
    for word in ("unused = 3", "json", "import os, ", "not this", "other"):
        assert word not in written.text


def test_the_cell_that_is_running_counts(notebook, tmp_path):
    path = tmp_path / "within.py"
    written = notebook.write(
        f"from course_lib import write_script\nN = 2\ndef g():\n    return N\n"
        f"written = write_script(g, {str(path)!r}).read_text()",
        "def f():\n    return written",
        call="()",
    )
    assert not written.failed
    assert "N = 2" in written.notebooks


# ── refused ──────────────────────────────────────────────────────────────────────────────────────

F = "def f():\n    return {}"
# Each: the message, cells (the last is f over the words given).
REFUSED = {
    "a shell command": (
        "files is made with a magic or a shell",
        ["files = !ls", F.format("files")],
    ),
    "an inner shell command": (
        "f is made with a magic",
        ["def f():\n    files = !ls\n    return files"],
    ),
    "a line magic": ("x is made with a magic or a shell", ["x = %time [len]", F.format("x")]),
    "a cell magic": (
        "f uses out, and no cell gives out its value in plain Python",
        ["%%bash --out out\necho hi", F.format("out")],
    ),
    "captured output": (
        "no cell gives out its value",
        ["%%capture out\nprint(1)", F.format("out")],
    ),
    "an undefined name": (
        "f uses other, and no cell has defined other: define it first",
        [F.format("other()")],
    ),
    "a deleted name": ("no cell has defined g", ["def g():\n    pass", "del g", F.format("g")]),
    "one reached through another": (
        "g uses h, and no cell has defined h",
        ["def g():\n    return h", F.format("g()")],
    ),
    "the notebook's display": ("only a notebook has display", [F.format("display(1)")]),
    "a launch's result": (
        "result is made with launch",
        [
            "from course_lib import launch\ndef result():\n    return launch(print)",
            F.format("result()"),
        ],
    ),
    "a torchrun's result": (
        "is made with run (`result = [run(",
        [
            "from course_lib import torchrun as run",
            "result = [run(x) for x in ()] + [len]",
            F.format("result"),
        ],
    ),
    "a model": (
        "net (a Linear) has a state",
        ["import torch\nnet = torch.nn.Linear(1, 1)", F.format("net")],
    ),
    "an optimizer": (
        "o (a SGD) has a state",
        ["import torch\no = torch.optim.SGD([torch.zeros(1)], lr=1.0)", F.format("o")],
    ),
    "a generator of numbers": (
        "g (a Generator) has a state",
        ["import torch\ng = torch.Generator()", F.format("g")],
    ),
    "a generator": (
        "rows (a generator) has a state",
        ["rows = (i for i in [1])", F.format("rows")],
    ),
    "an iterator": ("rows (a list_iterator) has a state", ["rows = iter([1])", F.format("rows")]),
    "an open file": (
        "file (a TextIOWrapper) has a state",
        ["file = open('/dev/null')", F.format("file")],
    ),
    "random numbers": (
        "x is made with random numbers (`x = torch.randn(2)`)",
        ["import torch\nx = torch.randn(2)", F.format("x")],
    ),
    "a module beside the notebook": (
        "f needs the module beside, which a program elsewhere would not",
        ["import beside", F.format("beside.N")],
    ),
    "a module beside it, imported inside": (
        "f needs the module beside",
        ["def f():\n    import beside\n    return beside.N"],
    ),
    "a relative import": (
        "`from . import x` is a relative import",
        ["def f():\n    from . import x\n    return x"],
    ),
    "a failed cell": (
        "f uses g, and g comes from a cell that failed (`def g():`)",
        ["def g():\n    return 1", "def g():\n    return 2\n1/0", F.format("g()")],
    ),
    "an await": (
        "f cannot stand in a program",
        [
            "import asyncio\nclass Box:\n    pass\nasync def make():\n    return Box()",
            "box = await make()",
            F.format("box"),
        ],
    ),
    "made with an older constant": (
        "width has changed since `steps = [make(len)]` ran",
        [
            "width = 3\ndef make(g):\n    w = width\n    return lambda: w",
            "steps = [make(len)]",
            "width = 4",
            F.format("steps[0]()"),
        ],
    ),
    "a default from an older constant": (
        "width has changed since `def g(x=width):` ran",
        ["width = [3]\ndef g(x=width):\n    return x", "width = [4]", F.format("g()")],
    ),
    "made with an older function": (
        "make has changed since `steps = [make()]` ran",
        [
            "def make():\n    return len",
            "steps = [make()]",
            "def make():\n    return max",
            F.format("steps"),
        ],
    ),
    "made with an older class": (
        "Base has changed since `class Net(Base):` ran",
        [
            "class Base:\n    n = 1",
            "class Net(Base):\n    pass",
            "class Base:\n    n = 2",
            F.format("Net.n"),
        ],
    ),
    "a constant that was appended to since": (
        "rows has changed since",
        [
            "rows = [1]\nlast = [lambda k=rows[-1]: k]",
            "rows.append(2)",
            F.format("last[0]() + len(rows)"),
        ],
    ),
}


@pytest.mark.parametrize(("message", "cells"), REFUSED.values(), ids=REFUSED)
def test_is_refused_by_name(notebook, message, cells):
    written = notebook.write(*cells)
    assert written.error.startswith("CannotCarry: ")
    assert message in written.error
    assert not written.text


def test_a_relative_import_of_a_module_is_refused(notebook, tmp_path):
    package = tmp_path / "package_of_cells"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("N = 1\n")
    (package / "main.py").write_text("from .part import N\ndef f():\n    return N\n")
    written = notebook.write(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport package_of_cells.main as m",
        fn="m.f",
    )
    assert "`from .part import N` is a relative import" in written.error


def test_a_function_of_a_module_is_carried_from_its_file(notebook, tmp_path):
    module = tmp_path / "module_of_cells.py"
    module.write_text("N = 1\ndef g():\n    return N\nN = 2\n\n# Why.\ndef f():\n    return g()\n")
    written = notebook.write(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport module_of_cells as m",
        fn="m.f",
        call="()",
    )
    assert written.programs == written.notebooks == "2"
    assert "# Why.\ndef f():" in written.text
