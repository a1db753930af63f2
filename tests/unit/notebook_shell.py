"""A notebook, and a plain Python, to write programs in and to run them in.

Started as a program it serves requests, one JSON object a line: ``shell`` runs cells in IPython's
own shell and writes a program from what they defined; ``plain`` imports a program.
"""

import contextlib
import importlib.util
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field


class Server:
    """One such process."""

    def __init__(self, kind: str, folder) -> None:
        command = [sys.executable, "-P", __file__, kind]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=folder)

    def ask(self, **request) -> dict:
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(30) == 0


@dataclass
class Written:
    """What became of a program: its text or why there is none, and what its function returns."""

    error: str = ""
    failed: list = field(default_factory=list)
    text: str = ""
    said: str = ""
    notebooks: str = ""
    programs: str = ""


class Notebook:
    """Runs cells, writes a program from a function in them, and calls that in both places."""

    def __init__(self, folder) -> None:
        self._folder = folder
        self._shell, self._plain = Server("shell", folder), Server("plain", "/")
        self._count = 0

    def write(self, *cells: str, fn="f", name=None, call=None, **defaults) -> Written:
        self._count += 1
        path = str(name or self._folder / f"program_{self._count}.py")
        written = Written(
            **self._shell.ask(cells=cells, fn=fn, path=path, call=call, defaults=defaults)
        )
        if written.text and call is not None:
            told = self._plain.ask(path=path, call=f"{fn.rpartition('.')[2]}{call}")
            written.programs = told["value"]
        return written

    def close(self) -> None:
        self._shell.close()
        self._plain.close()


def _answer_from_shell(request: dict) -> dict:
    from IPython.core.interactiveshell import InteractiveShell

    from course_lib import write_script

    shell = InteractiveShell.instance()
    shell.reset(new_session=True)
    answer = {"failed": []}
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        for number, cell in enumerate(request["cells"]):
            if not shell.run_cell(cell, store_history=True).success:
                answer["failed"].append(number)
        try:
            fn = eval(request["fn"], shell.user_ns)
            path = write_script(fn, request["path"], **request["defaults"])
            answer["text"] = path.read_text()
            if request["call"] is not None:
                answer["notebooks"] = repr(eval(request["fn"] + request["call"], shell.user_ns))
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {error}"
    return answer | {"said": said.getvalue()}


def _answer_from_plain(request: dict) -> dict:
    name = os.path.basename(request["path"]).removesuffix(".py")
    spec = importlib.util.spec_from_file_location(name, request["path"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        return {"value": repr(eval(request["call"], vars(module)))}
    except Exception as error:
        return {"value": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.path.insert(0, "")  # as in a kernel: files beside the notebook are found
    answer = _answer_from_shell if sys.argv[1] == "shell" else _answer_from_plain
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed is no answer
    for line in sys.stdin:
        talk.write(json.dumps(answer(json.loads(line))) + "\n")
        talk.flush()
