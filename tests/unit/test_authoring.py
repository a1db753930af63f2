"""The authoring tool, on small sound sources and on small broken ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest

from course_lib import authoring
from course_lib.authoring import AuthoringError

LESSON = """\
# A note for maintainers, which no notebook has.

# %% [markdown]
# # Rings: naïve and 速い
#
# A **rank** — one process — passes a token.

# %% tags=["parameters"]
world_size: int = 2  # ranks to start
name: str = "quick"
rates: list[float] = [0.1, 0.2]

# %%
# %matplotlib inline
import math

# cat and mouse: a comment, no command
text = "ünï → ∑"

# %% tags=["raises-exception"]
math.sqrt(-1)

# %%
print(text)

# %%
print(text)
"""

EXERCISE = '''\
# %% [markdown]
# # Exercises: rings

# %%
from course_lib.checks import lesson_02 as check

# %%
def pass_on(token, rank):
    """Pass the token on.

    Returns what came.
    """
    # BEGIN SOLUTION
    golden_answer = token + rank
    return golden_answer
    # END SOLUTION


# %%
check.pass_on(pass_on)

# %% [markdown] tags=["solution"]
# Golden prose: because every rank listens.

# %% tags=["solution-only"]
golden_cell = pass_on(1, 2)

# %% [markdown] tags=["exercise-only"]
# Write here why it works.
'''


def project(root: Path, lesson: str | None = LESSON, exercise: str | None = EXERCISE) -> Path:
    """Lay out a project of one lesson and one exercise source under `root`."""
    for folder, text in (("lessons", lesson), ("exercises", exercise)):
        (root / "sources" / folder).mkdir(parents=True, exist_ok=True)
        if text is not None:
            (root / "sources" / folder / "02_rings.py").write_bytes(text.encode())
    return root


def notebook(root: Path, folder: str) -> nbformat.NotebookNode:
    return nbformat.read(root / folder / "02_rings.ipynb", as_version=nbformat.NO_CONVERT)


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*.ipynb"))}


def faults(root: Path) -> list[str]:
    """What `build` has against the sources under `root`; it must write nothing then."""
    before = files(root)
    with pytest.raises(ExceptionGroup) as caught:
        authoring.build(root)
    assert files(root) == before
    assert all(isinstance(error, AuthoringError) for error in caught.value.exceptions)
    return [str(error) for error in caught.value.exceptions]


def ids_by_source(root: Path, folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in notebook(root, folder).cells:
        found.setdefault(cell.source, []).append(cell.id)
    return found


# What is built


def test_three_notebooks_come_from_two_sources(tmp_path):
    written = authoring.build(project(tmp_path))
    assert sorted(written) == [
        "exercises/02_rings.ipynb",
        "notebooks/02_rings.ipynb",
        "solutions/02_rings.ipynb",
    ]
    assert sorted(files(tmp_path)) == sorted(written)


@pytest.mark.parametrize("folder", ["notebooks", "exercises", "solutions"])
def test_notebooks_are_valid_and_bare(tmp_path, folder):
    authoring.build(project(tmp_path))
    built = notebook(tmp_path, folder)
    nbformat.validate(built)
    assert (built.nbformat, built.nbformat_minor) == (4, 5)
    assert built.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
    }
    for cell in built.cells:
        assert set(cell.metadata) <= {"tags"}
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", cell.id)
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert len({cell.id for cell in built.cells}) == len(built.cells)


def test_bytes_are_canonical(tmp_path):
    authoring.build(project(tmp_path))
    for content in files(tmp_path).values():
        text = content.decode("utf-8")
        canonical = json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False)
        assert text == canonical + "\n"


def test_two_builds_in_two_places_give_the_same_bytes(tmp_path):
    authoring.build(project(tmp_path / "here"))
    authoring.build(project(tmp_path / "there"))
    assert files(tmp_path / "here") == files(tmp_path / "there")


def test_a_build_in_another_process_gives_the_same_bytes(tmp_path):
    authoring.build(project(tmp_path))
    before = files(tmp_path)
    for path in tmp_path.rglob("*.ipynb"):
        path.unlink()
    command = [sys.executable, "-m", "course_lib.authoring", "build", "--root", str(tmp_path)]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == before


def test_a_second_build_writes_nothing(tmp_path):
    authoring.build(project(tmp_path))
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.ipynb")}
    assert authoring.build(tmp_path) == []
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.ipynb")} == stamps


def test_only_what_changed_is_written(tmp_path):
    authoring.build(project(tmp_path))
    project(tmp_path, lesson=LESSON + "\n# %%\nprint(1)\n")
    assert authoring.build(tmp_path) == ["notebooks/02_rings.ipynb"]


@pytest.mark.parametrize("ending", ["\r\n", "\r"])
def test_line_endings_and_a_bom_do_not_change_the_bytes(tmp_path, ending):
    authoring.build(project(tmp_path / "unix"))
    project(tmp_path / "other", LESSON.replace("\n", ending), EXERCISE.replace("\n", ending))
    path = tmp_path / "other/sources/lessons/02_rings.py"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    authoring.build(tmp_path / "other")
    assert files(tmp_path / "other") == files(tmp_path / "unix")


def test_unicode_survives(tmp_path):
    odd = 'odd = "a\x0cb\u2028c"  # a form feed and U+2028 end no line'
    authoring.build(project(tmp_path, LESSON + f"\n# %%\n{odd}\n"))
    built = notebook(tmp_path, "notebooks")
    assert built.cells[0].source.startswith("# Rings: naïve and 速い\n\nA **rank** — one")
    assert 'text = "ünï → ∑"' in built.cells[2].source
    assert built.cells[-1].source == odd
    assert "速い".encode() in files(tmp_path)["notebooks/02_rings.ipynb"]


def test_tags_survive(tmp_path):
    authoring.build(project(tmp_path))
    tags = [cell.metadata.get("tags") for cell in notebook(tmp_path, "notebooks").cells]
    assert tags == [None, ["parameters"], None, ["raises-exception"], None, None]


def test_papermill_reads_the_parameters_with_their_types(tmp_path):
    authoring.build(project(tmp_path))
    found = papermill.inspect_notebook(tmp_path / "notebooks/02_rings.ipynb")
    types = {name: parameter["inferred_type_name"] for name, parameter in found.items()}
    assert types == {"world_size": "int", "name": "str", "rates": "list[float]"}
    assert found["world_size"]["default"] == "2"
    assert found["world_size"]["help"] == "ranks to start"


def test_notes_to_maintainers_reach_no_notebook(tmp_path):
    header = "# ---\n# jupyter:\n#   author: golden\n# ---\n\n# A golden note.\n\n"
    authoring.build(project(tmp_path, header + LESSON, header + EXERCISE))
    assert not any(b"golden note" in x or b"author" in x for x in files(tmp_path).values())


def test_blank_lines_around_a_cell_do_not_count(tmp_path):
    authoring.build(project(tmp_path / "tight"))
    project(tmp_path / "loose", LESSON.replace("\n\n# %%", "\n\n\n\n\n# %%") + "\n\n")
    loose = tmp_path / "loose/sources/lessons/02_rings.py"
    loose.write_text(re.sub(r"(?m)^(# %%.*)$(?!\n# )", r"\1\n\n", loose.read_text()))
    assert "# %%\n\n\nprint" in loose.read_text()
    authoring.build(tmp_path / "loose")
    assert files(tmp_path / "loose") == files(tmp_path / "tight")


def test_magics_come_alive_and_comments_stay_comments(tmp_path):
    cells = """
# %%
# %timeit -n 1 math.sqrt(2)
# !echo one \\
#   two
# cat a b
# rm -r
# really?
listing = 5 \\
  % 3

# %%
# %%bash
# cat /dev/null
# ls | head -1
"""
    authoring.build(project(tmp_path, LESSON + cells))
    built = notebook(tmp_path, "notebooks")
    assert built.cells[-2].source == (
        "%timeit -n 1 math.sqrt(2)\n!echo one \\\n  two\n"
        "# cat a b\n# rm -r\n# really?\nlisting = 5 \\\n  % 3"
    )
    assert built.cells[-1].source == "%%bash\ncat /dev/null\nls | head -1"


# Cell ids


def test_an_edit_changes_the_id_of_the_edited_cell_only(tmp_path):
    authoring.build(project(tmp_path))
    before = ids_by_source(tmp_path, "notebooks")
    edited = LESSON.replace("import math", "import math, os")
    edited = edited.replace(
        '# %% tags=["par', '# %% [markdown]\n# One more cell.\n\n# %% tags=["par'
    )
    authoring.build(project(tmp_path, edited))
    after = ids_by_source(tmp_path, "notebooks")
    kept = before.keys() & after.keys()
    assert len(kept) == len(before) - 1
    assert {source: after[source] for source in kept} == {source: before[source] for source in kept}


def test_equal_cells_are_counted(tmp_path):
    authoring.build(project(tmp_path))
    first, second = ids_by_source(tmp_path, "notebooks")["print(text)"]
    assert second == f"{first}-2"


def test_an_id_given_by_hand_stays(tmp_path):
    before = LESSON.replace("# %%\nprint(text)\n\n", '# %% id="show-it"\nprint(text)\n\n')
    authoring.build(project(tmp_path, before))
    assert ids_by_source(tmp_path, "notebooks")["print(text)"][0] == "show-it"
    authoring.build(project(tmp_path, before.replace("print(text)\n\n", "print(text, 1)\n\n")))
    assert ids_by_source(tmp_path, "notebooks")["print(text, 1)"] == ["show-it"]


def test_an_id_given_by_hand_may_equal_a_derived_one(tmp_path):
    authoring.build(project(tmp_path))
    derived = ids_by_source(tmp_path, "notebooks")["print(text)"][0]
    authoring.build(project(tmp_path, LESSON + f'\n# %% id="{derived}"\nprint(1)\n'))
    assert ids_by_source(tmp_path, "notebooks")["print(text)"] == [f"{derived}-2", f"{derived}-3"]
    assert ids_by_source(tmp_path, "notebooks")["print(1)"] == [derived]


# Exercises and solutions


def test_the_exercises_notebook_has_a_stub_and_no_solution_anywhere(tmp_path):
    authoring.build(project(tmp_path))
    raw = files(tmp_path)["exercises/02_rings.ipynb"].decode()
    assert "golden" not in raw.lower()
    assert "SOLUTION" not in raw
    assert "raise_on_failure" not in raw
    assert "Write here why it works." in raw
    (stub,) = [c for c in notebook(tmp_path, "exercises").cells if "def pass_on" in c.source]
    assert stub.source == (
        "def pass_on(token, rank):\n"
        '    """Pass the token on.\n\n    Returns what came.\n    """\n'
        "    raise NotImplementedError"
    )


def test_the_solutions_notebook_has_the_solution_and_no_markers(tmp_path):
    authoring.build(project(tmp_path))
    raw = files(tmp_path)["solutions/02_rings.ipynb"].decode()
    assert "Golden prose" in raw
    assert "golden_cell" in raw
    assert "SOLUTION" not in raw
    assert "NotImplementedError" not in raw
    assert "Write here why it works." not in raw
    (solved,) = [c for c in notebook(tmp_path, "solutions").cells if "def pass_on" in c.source]
    assert solved.source.endswith("    golden_answer = token + rank\n    return golden_answer")
    namespace: dict = {}
    exec(solved.source, namespace)
    assert namespace["pass_on"](2, 3) == 5


def test_a_block_in_the_middle_is_cut_at_its_own_indentation(tmp_path):
    source = EXERCISE.replace(
        "    # BEGIN SOLUTION\n",
        "    for i in range(3):\n        # BEGIN SOLUTION\n        pass\n        # END SOLUTION\n"
        "    # BEGIN SOLUTION\n",
    )
    authoring.build(project(tmp_path, exercise=source))
    (stub,) = [c for c in notebook(tmp_path, "exercises").cells if "def pass_on" in c.source]
    assert stub.source.endswith(
        "    for i in range(3):\n        raise NotImplementedError\n    raise NotImplementedError"
    )


@pytest.mark.parametrize(
    ("imports", "ask", "place"),
    [
        ("from course_lib.checks import lesson_02 as check", "check.pass_on", 2),
        ("from course_lib import checks", "checks.lesson_02.pass_on", 2),
        ("from course_lib.checks.lesson_02 import pass_on as ask", "ask", 2),
        ("import course_lib.checks.lesson_02", "course_lib.checks.lesson_02.pass_on", 2),
        ("import course_lib.checks.lesson_02 as check", "check.pass_on", 2),
        ("from course_lib.checks import lesson_02 as check\nseed = 0", "check.pass_on", 1),
    ],
)
def test_solutions_raise_on_failure_before_the_first_check(tmp_path, imports, ask, place):
    source = EXERCISE.replace("from course_lib.checks import lesson_02 as check", imports)
    authoring.build(project(tmp_path, exercise=source.replace("check.pass_on(", f"{ask}(")))
    sources = [cell.source for cell in notebook(tmp_path, "solutions").cells]
    assert sources.index(authoring.RAISE_ON_FAILURE) == place
    assert sources.count(authoring.RAISE_ON_FAILURE) == 1


def test_a_later_import_of_checks_does_not_move_it(tmp_path):
    later = "\n# %%\nfrom course_lib.checks import lesson_03\n"
    authoring.build(project(tmp_path, exercise=EXERCISE + later))
    sources = [cell.source for cell in notebook(tmp_path, "solutions").cells]
    assert sources.index(authoring.RAISE_ON_FAILURE) == 2


def test_solutions_raise_on_failure_first_of_all_without_an_import(tmp_path):
    source = "# %% [markdown]\n# Think.\n\n# %%\nprint(1)\n"
    authoring.build(project(tmp_path, exercise=source))
    kinds = [cell.source for cell in notebook(tmp_path, "solutions").cells]
    assert kinds == ["Think.", authoring.RAISE_ON_FAILURE, "print(1)"]


# Faults: what is wrong, where, and what to do


def line_of(text: str, source: str) -> int:
    """The number of the first line of `source` that holds the start of `text`."""
    return source[: source.index(text)].count("\n") + 1


# name: (text of the sound source, what to put there, where the fault is, words of the fault)
TYPED = "world_size: int = 2"
SHOW = "# %%\nprint(text)"
PARAMETERS = '# %% tags=["margin", "parameters"]\n'
LESSON_FAULTS = {
    "no parameters": ('# %% tags=["parameters"]', "# %%", "# A note", "no cell tagged parameters"),
    "two parameters": (SHOW, f"{PARAMETERS}x: int = 1", '# %% tags=["margin', "a second cell"),
    "no type": (TYPED, "world_size = 2", "world_size", "`world_size = 2` lacks its type"),
    "no default": (TYPED, "world_size: int", "world_size", "`world_size: int` lacks its type"),
    "two at once": (TYPED, "a, b = 1, 2", "a, b", "lacks its type or its default"),
    "syntax error": ("import math", "import m m", "import m m", "syntax error: invalid syntax"),
    "return outside": ("import math", "return 1", "return 1", "'return' outside function"),
    "long cell": (SHOW, SHOW + "\nprint()" * 30, SHOW, "code cell of 31 lines"),
    "solution block": (SHOW, "# %%\n# BEGIN SOLUTION\n# END SOLUTION", "# %%\n# BEGIN", "no solut"),
    "solution tag": ("raises-exception", "solution-only", '# %% tags=["solution', "no solutions"),
    "misspelt markdown": ("[markdown]", "[markdwon]", "# %% [markdwon]", "is not understood"),
    "tags no list": ('["raises-exception"]', '"raises"', '# %% tags="', "is not understood"),
    "tags misspelt": ('tags=["raises', 'tag=["raises', "# %% tag=", "is not understood"),
    "tag misspelt": ("raises-exception", "raise", '# %% tags=["raise"', "unknown tag 'raise'"),
    "impossible id": ('tags=["raises-exception"]', 'id="a b"', "# %% id", "id 'a b': use 1 to 64"),
    "code on top": ("# A note", "import os\n# A note", "import os", "code before the first `# %%`"),
    "null byte": ("ünï", "\0", "\0", "holds a null byte"),
}


@pytest.mark.parametrize(
    ("old", "new", "at", "message"), LESSON_FAULTS.values(), ids=LESSON_FAULTS.keys()
)
def test_a_fault_in_a_lesson_is_named(tmp_path, old, new, at, message):
    assert old in LESSON
    source = LESSON.replace(old, new, 1)
    (fault,) = faults(project(tmp_path, source))
    assert fault.startswith(f"sources/lessons/02_rings.py:{line_of(at, source)}: ")
    assert message in fault


def test_a_cell_of_thirty_lines_is_not_too_long(tmp_path):
    authoring.build(project(tmp_path, LESSON + "\n# %%" + "\nprint()" * 30 + "\n"))


@pytest.mark.filterwarnings("error")
def test_what_a_kernel_takes_is_no_fault(tmp_path):
    code = "import asyncio\nawait asyncio.sleep(0)\npattern = '\\d'\n"
    authoring.build(project(tmp_path, f"{LESSON}\n# %%\n{code}"))


def test_a_syntax_error_behind_magics_has_its_line(tmp_path):
    source = LESSON + "\n# %%\n# %time math.sqrt(2)\n# !ls \\\n#   -l\nx = !ls\n1 + * 2\n"
    (fault,) = faults(project(tmp_path, source))
    assert fault.startswith(f"sources/lessons/02_rings.py:{line_of('1 + *', source)}: syntax error")


def test_a_cell_behind_a_broken_marker_line_is_still_read(tmp_path):
    source = LESSON + '\n# %% tags="margin"\n1 +\n\n# %%\nprint(1)\n'
    marker, code = faults(project(tmp_path, source))
    line = line_of("1 +", source)
    assert f":{line - 1}: `# %% tags=" in marker
    assert f":{line}: syntax error" in code


BEGIN, END, ASK = "    # BEGIN SOLUTION\n", "    # END SOLUTION\n", "check.pass_on(pass_on)"
FIRST = "# %% [markdown]\n# # Exercises"
EXERCISE_FAULTS = {
    "unclosed block": (END, "", BEGIN, "`# BEGIN SOLUTION` is not closed"),
    "end without begin": (BEGIN, "", END, "`# END SOLUTION` without `# BEGIN SOLUTION`"),
    "nested block": (BEGIN, f"{BEGIN}    pass\n{BEGIN}{END}", f"{BEGIN}{END}", "do not nest"),
    "nearly a marker": (BEGIN, f"{BEGIN}    # end solution\n", "    # end", "alone on its line"),
    "marker behind code": ("+ rank", "+ 1 # END SOLUTION", "+ 1", "alone on its line"),
    "marker in prose": ("# # Exer", "# # END SOLUTION\n# # Exer", "# # END", "the tag `solution`"),
    "block at top level": (
        ASK,
        f"{ASK}\n# BEGIN SOLUTION\nx = 1\n# END SOLUTION",
        "# BEGIN SOLUTION\nx",
        "a solution outside a function",
    ),
    "block in a class body": (
        ASK,
        f"{ASK}\nclass A:\n    # BEGIN SOLUTION\n    y = 1\n    # END SOLUTION",
        "# BEGIN SOLUTION\n    y",
        "a solution outside a function",
    ),
    "syntax error": (ASK, f"{ASK}\n1 +", "1 +", "syntax error"),
    "syntax error in a solution": ("token + rank", "token +", "golden_answer", "syntax error"),
    "syntax error in a stub": (BEGIN, f"    x = [\n{BEGIN}    ]\n", "    x = [", "syntax error"),
    "duplicate id": (
        FIRST,
        f'# %% id="a"\n1\n\n# %% id="a" tags=["margin"]\n2\n\n{FIRST}',
        '# %% id="a" tags',
        "id 'a' is taken by line 1",
    ),
    "untyped parameter": (FIRST, f"{PARAMETERS}n = 2\n{FIRST}", "n = 2", "`n = 2` lacks its type"),
    "two parameters": (
        FIRST,
        f'# %% tags=["parameters"]\nn: int = 2\n{PARAMETERS}m: int = 2\n{FIRST}',
        PARAMETERS,
        "a second cell tagged parameters (the first: line 1)",
    ),
}


@pytest.mark.parametrize(
    ("old", "new", "at", "message"), EXERCISE_FAULTS.values(), ids=EXERCISE_FAULTS.keys()
)
def test_a_fault_in_an_exercise_is_named(tmp_path, old, new, at, message):
    assert old in EXERCISE
    source = EXERCISE.replace(old, new, 1)
    (fault,) = faults(project(tmp_path, exercise=source))
    assert fault.startswith(f"sources/exercises/02_rings.py:{line_of(at, source)}: ")
    assert message in fault


def test_a_block_may_not_go_on_in_the_next_cell(tmp_path):
    source = EXERCISE.replace(END, f"\n# %%\nif True:\n    pass\n{END}")
    opened, closed = faults(project(tmp_path, exercise=source))
    assert "`# BEGIN SOLUTION` is not closed" in opened
    assert "`# END SOLUTION` without" in closed


UNCHECKED = {
    "no check": "print('checked')",
    "another function": "check.pass_on(print)",
    "only its name in a string": "check.pass_on('pass_on')",
    "only the name of an argument": "check.pass_on(pass_on=print)",
    "only by a function nobody calls": "def later():\n    check.pass_on(pass_on)",
}


@pytest.mark.parametrize("code", UNCHECKED.values(), ids=UNCHECKED.keys())
def test_a_stub_that_meets_no_check_is_named(tmp_path, code):
    (fault,) = faults(project(tmp_path, exercise=EXERCISE.replace(ASK, code)))
    where = f"sources/exercises/02_rings.py:{line_of('def pass_on', EXERCISE)}: "
    assert fault.startswith(f"{where}the stub `pass_on` never meets a check")


def test_a_check_in_the_cell_of_the_stub_is_not_enough(tmp_path):
    source = EXERCISE.replace(f"{END}\n\n# %%\n", END)
    (fault,) = faults(project(tmp_path, exercise=source))
    assert "the stub `pass_on` never meets a check" in fault


def test_a_check_before_the_stub_is_not_enough(tmp_path):
    source = EXERCISE.replace(ASK, "print()").replace("# %%\ndef", f"# %%\n{ASK}\n\n# %%\ndef")
    (fault,) = faults(project(tmp_path, exercise=source))
    assert "the stub `pass_on` never meets a check" in fault


# Each stops Run All in its last line.
OUTSIDE = {
    "called": "pass_on(1, 2)",
    "launched": "from course_lib import launch\nlaunch(pass_on, nprocs=2)",
    "called before the check": "check.pass_on(pass_on(1, 2))",
    "launched before the check": "check.pass_on(launch(pass_on))",
    "called for a list in the arguments": "check.pass_on([pass_on(i, 0) for i in range(3)])",
    "called in a block": "if True:\n    for i in range(3):\n        x = [pass_on(i, i)]",
    "called to be assigned to itself": "x = 1\npass_on = pass_on(1, 2)",
    "under another name": "alias = pass_on",
    "in a lambda that is launched": "launch(lambda: pass_on(1, 2))",
    "timed": "# %time pass_on(1, 2)",
    "timed, kept": "# x = %timeit -n 3 pass_on(1, 2)",
    "timed with its cell": "# %%time\npass_on(1, 2)",
    "through a function": "def train(x):\n    return pass_on(x, x)\n\ntrain(1)",
    "through two functions": "def a():\n    return b()\ndef b():\n    pass_on(1, 2)\nlaunch(a)",
    "through a class": "class A:\n    def run(self):\n        pass_on(1, 2)\nA().run()",
    "in a base class": "class A(pass_on): pass",
}


@pytest.mark.parametrize("code", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_a_stub_used_outside_a_check_is_named(tmp_path, code):
    before, after = EXERCISE.split(ASK)
    start = f"{before}{ASK}\n\n# %%\n{code}"
    (fault,) = faults(project(tmp_path, exercise=start + after))
    line = start.count("\n") + 1
    assert fault.startswith(f"sources/exercises/02_rings.py:{line}: the stub `pass_on` is used out")


def test_a_stub_as_a_decorator_is_used_outside_a_check(tmp_path):
    source = EXERCISE.replace(ASK, f"{ASK}\n\n@pass_on\ndef other():\n    pass")
    (fault,) = faults(project(tmp_path, exercise=source))
    assert f":{line_of('@pass_on', source)}: the stub `pass_on` is used outside" in fault


def test_a_function_written_before_the_stub_is_followed_too(tmp_path):
    source = EXERCISE.replace("# %%\ndef", "# %%\ndef train():\n    pass_on(1, 2)\n\n# %%\ndef")
    source = source.replace(ASK, f"{ASK}\nlaunch(train)")
    (fault,) = faults(project(tmp_path, exercise=source))
    assert f":{line_of('launch', source)}: the stub `pass_on` is used outside a check" in fault
    assert "(through `train`)" in fault


SOUND = {
    "the stub itself": ASK,
    "by keyword": "check.pass_on(function=pass_on)",
    "partial": "from functools import partial\ncheck.pass_on(partial(pass_on, 1))",
    "lambda": "check.pass_on(lambda x: pass_on(x, 2))",
    "in a list": "check.pass_on([pass_on, len])",
    "in a block": "with open('x') as f:\n    print(check.pass_on(pass_on))",
    "inside a function": "def train(x):\n    return pass_on(x, x)\n\ncheck.pass_on(train)",
    "an unused helper": f"{ASK}\n\ndef train(x):\n    return pass_on(x, x)",
    "a parameter of that name": f"{ASK}\n\ndef run(pass_on):\n    pass_on()\nrun(print)",
    "a local name": f"{ASK}\n\ndef run():\n    pass_on = max\n    return pass_on(1, 2)\nrun()",
    "a name given anew": f"{ASK}\n\npass_on = max\npass_on(1, 2)",
    "an attribute of that name": f"{ASK}\n\ncheck.other.pass_on()",
    "a bash cell": f"{ASK}\n\n# %%\n# %%bash\n# echo pass_on(1, 2) <",
    "for the solution only": f'{ASK}\n\n# %% tags=["solution"]\nlaunch(pass_on)',
}


@pytest.mark.parametrize("code", SOUND.values(), ids=SOUND.keys())
def test_sound_uses_of_a_stub_pass(tmp_path, code):
    authoring.build(project(tmp_path, exercise=EXERCISE.replace(ASK, code)))


def test_a_class_with_a_stubbed_method_is_a_stub(tmp_path):
    cells = """
# %%
class MiniDDP:
    def step(self):
        # BEGIN SOLUTION
        return 1
        # END SOLUTION

# %%
check.mini_ddp(MiniDDP)
"""
    authoring.build(project(tmp_path, exercise=EXERCISE + cells))
    source = EXERCISE + cells.replace("check.mini_ddp(MiniDDP)", "MiniDDP().step()")
    found = faults(project(tmp_path, exercise=source))
    assert ["the stub `MiniDDP`" in fault for fault in found] == [True, True]


def test_a_helper_beside_a_stub_needs_no_check(tmp_path):
    source = EXERCISE.replace("# %%\ndef", "# %%\ndef helper():\n    return 1\n\n\ndef")
    authoring.build(project(tmp_path, exercise=source.replace(ASK, f"{ASK}\nhelper()")))


def test_all_faults_of_all_files_come_together_in_order(tmp_path):
    project(tmp_path, LESSON.replace("world_size: int", "world_size").replace("math.", "1 math."))
    (tmp_path / "sources/exercises/Ring.py").write_text("# %%\nprint(\n")
    (tmp_path / "sources/exercises/02_twice.py").write_bytes(b"# %%\nx = '\xff'\n")
    assert [fault.split(": ")[0] for fault in faults(tmp_path)] == [
        f"sources/lessons/02_rings.py:{line_of('world_size', LESSON)}",
        f"sources/lessons/02_rings.py:{line_of('math.sqrt', LESSON)}",
        "sources/exercises/02_twice.py:1",  # its number is taken
        "sources/exercises/02_twice.py:1",  # it is not UTF-8
        "sources/exercises/Ring.py:1",
        "sources/exercises/Ring.py:2",
    ]


@pytest.mark.parametrize(
    "name", ["2_rings.py", "02rings.py", "02_Rings.py", "rings.py", "002_r.py"]
)
def test_a_file_name_that_does_not_fit_is_named(tmp_path, name):
    project(tmp_path, lesson=None)
    (tmp_path / "sources/lessons" / name).write_text(LESSON)
    (fault,) = faults(tmp_path)
    assert fault.startswith(f"sources/lessons/{name}:1: file name not like NN_topic.py")


def test_one_broken_file_keeps_every_notebook_as_it_is(tmp_path):
    authoring.build(project(tmp_path))
    assert faults(project(tmp_path, LESSON + "\n# %%\nprint(1)\n", EXERCISE.replace(END, "")))


# The command line


def run(capsys, *argv: str) -> tuple[int, str, str]:
    code = authoring.main([*argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_build_says_what_it_wrote_and_check_is_content(tmp_path, capsys):
    project(tmp_path)
    code, out, err = run(capsys, "build", "--root", str(tmp_path))
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "wrote notebooks/02_rings.ipynb",
        "wrote exercises/02_rings.ipynb",
        "wrote solutions/02_rings.ipynb",
    ]
    assert run(capsys, "check", "--root", str(tmp_path)) == (
        0,
        "every notebook agrees with its source\n",
        "",
    )
    assert run(capsys, "build", "--root", str(tmp_path)) == (
        0,
        "every notebook is up to date\n",
        "",
    )


@pytest.mark.parametrize("folder", ["notebooks", "exercises", "solutions"])
def test_check_names_a_notebook_edited_by_hand(tmp_path, capsys, folder):
    authoring.build(project(tmp_path))
    path = tmp_path / folder / "02_rings.ipynb"
    path.write_bytes(path.read_bytes() + b"\n")
    edited = path.read_bytes()
    code, out, _ = run(capsys, "check", "--root", str(tmp_path))
    assert code == 1
    assert out.splitlines()[0].startswith(f"stale: {folder}/02_rings.ipynb")
    assert f"python -m course_lib.authoring build --root {tmp_path}" in out
    assert out.count(".ipynb") == 1
    assert path.read_bytes() == edited
    assert run(capsys, "build", "--root", str(tmp_path))[0] == 0
    assert run(capsys, "check", "--root", str(tmp_path))[0] == 0


def test_check_names_a_stale_and_a_missing_notebook(tmp_path, capsys, monkeypatch):
    authoring.build(project(tmp_path))
    project(tmp_path, LESSON.replace("# Rings", "# Many rings"))
    (tmp_path / "solutions/02_rings.ipynb").unlink()
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "check")
    assert code == 1
    assert [line.split(" is")[0] for line in out.splitlines()[:2]] == [
        "stale: notebooks/02_rings.ipynb",
        "missing: solutions/02_rings.ipynb",
    ]
    assert out.splitlines()[-1].strip() == "python -m course_lib.authoring build"
    assert not (tmp_path / "solutions/02_rings.ipynb").exists()


@pytest.mark.parametrize("folder", ["notebooks", "exercises"])
def test_build_keeps_what_a_reader_has_run(tmp_path, capsys, folder):
    authoring.build(project(tmp_path))
    path = tmp_path / folder / "02_rings.ipynb"
    changed = json.loads(path.read_text())
    code = next(cell for cell in changed["cells"] if cell["cell_type"] == "code")
    code["execution_count"] = 3
    code["source"] = ["my = 'answer'"]
    path.write_text(json.dumps(changed))
    assert [line for line in authoring.check(tmp_path) if "was run" in line] == [
        f"stale: {folder}/02_rings.ipynb is not what its source gives (was run, or edited by hand)"
    ]
    assert authoring.build(tmp_path) == [f"{folder}/02_rings.ipynb"]
    (kept,) = (tmp_path / "runs" / "kept").iterdir()
    assert json.loads(kept.read_text()) == changed
    assert str(kept) in capsys.readouterr().out
    assert authoring.check(tmp_path) == []
    authoring.build(tmp_path)  # nothing was run since
    assert len(list((tmp_path / "runs" / "kept").iterdir())) == 1


@pytest.mark.parametrize("folder", ["notebooks", "exercises", "solutions"])
def test_an_orphan_is_named_and_kept(tmp_path, capsys, folder):
    authoring.build(project(tmp_path))
    orphan = tmp_path / folder / "03_gone.ipynb"
    orphan.write_text("{}")
    code, out, _ = run(capsys, "build", "--root", str(tmp_path))
    assert code == 0
    assert f"orphan: {folder}/03_gone.ipynb" in out
    code, out, _ = run(capsys, "check", "--root", str(tmp_path))
    assert code == 1
    assert f"orphan: {folder}/03_gone.ipynb has no source" in out
    assert f"rm {orphan}" in out
    assert orphan.read_text() == "{}"


@pytest.mark.parametrize("command", ["build", "check"])
def test_faults_are_printed_in_one_go(tmp_path, capsys, command):
    project(tmp_path, LESSON.replace("world_size: int", "world_size"), EXERCISE.replace(END, ""))
    code, out, err = run(capsys, command, "--root", str(tmp_path))
    assert (code, out) == (1, "")
    first, second, last = err.splitlines()
    assert first.startswith("sources/lessons/02_rings.py:9: ")
    assert second.startswith("sources/exercises/02_rings.py:13: ")
    assert last == "faults to mend: 2; nothing was written"
    assert files(tmp_path) == {}


def test_an_exercise_without_its_lesson_is_a_warning(tmp_path, capsys):
    code, _, err = run(capsys, "build", "--root", str(project(tmp_path, lesson=None)))
    assert code == 0
    assert err == "warning: sources/exercises/02_rings.py has no lesson of the same number\n"


def test_the_wrong_folder_is_no_success(tmp_path, capsys):
    code, _, err = run(capsys, "check", "--root", str(tmp_path))
    assert code == 1
    assert "nothing to build" in err
    assert "--root DIR" in err


def test_style_prints_counts(tmp_path, capsys):
    prose = "\n# %% [markdown]\n# one two\n#\n# three\n\n# %%\nprint(1)\n"
    authoring.build(project(tmp_path, LESSON + prose * 3))
    code, out, _ = run(capsys, "check", "--style", "--root", str(tmp_path))
    assert code == 0
    assert "02_rings: 8 code cells; median 1 lines; words 0 to 3, median 0\n" in out


def test_without_a_command_it_prints_its_usage(capsys):
    done = subprocess.run(
        [sys.executable, "-m", "course_lib.authoring"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stdout.startswith("usage: python -m course_lib.authoring")
    assert "build" in done.stdout
    assert "check" in done.stdout


def test_a_write_that_fails_leaves_the_old_notebook(tmp_path, monkeypatch):
    authoring.build(project(tmp_path))
    before = files(tmp_path)
    project(tmp_path, LESSON + "\n# %%\nprint(1)\n")

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        authoring.build(tmp_path)
    assert files(tmp_path) == before
    assert [p.name for p in (tmp_path / "notebooks").iterdir()] == ["02_rings.ipynb"]
