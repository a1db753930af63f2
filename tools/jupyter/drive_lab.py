"""JupyterLab as a learner meets it, driven by a program: `make lab`, opened in headless Chromium.

The server is started in a copy of the course, so that nothing that is run or saved changes the
checkout, and with an empty home. The page that is opened is the one `make lab` asks the browser to
open. The browser test and `tools/picture.py` both use this.

When ``Lab`` is left, however it is left, the server, its kernels and the browser have ended.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
from notebook_page import Notebook
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).absolute().parents[2]
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
)


def chromium() -> str | None:
    """The system's Chromium or Chrome, if there is one."""
    on_macos = "/Applications/{0}.app/Contents/MacOS/{0}"
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    names += (on_macos.format("Google Chrome"), on_macos.format("Chromium"))
    return next((path for name in names if (path := shutil.which(name))), None)


def copy_course(folder: Path) -> Path:
    """Copy what `make lab` shows and needs into ``folder``; notebooks written there do no harm."""
    for name in ("notebooks", "exercises", "tools/jupyter"):
        ignore = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


class Lab:
    """`make lab` in the course's copy at ``folder``, opened in headless Chromium.

    Args:
        folder: What ``copy_course`` has made.
        width: The window's, in CSS pixels.
        height: Likewise.
        scale: Device pixels for each of them.
        **env: Environment variables for the server and its kernels.
    """

    def __init__(
        self, folder: Path, width: int = 1400, height: int = 900, scale: float = 1, **env: str
    ) -> None:
        self.folder = folder
        self.log = folder / "make-lab.log"
        self._window = {"width": width, "height": height}
        self._scale = scale
        self._env = env
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Notebook:
        try:
            return self._start()
        except BaseException:
            self._ends.close()
            raise

    def __exit__(self, *error: object) -> None:
        self._ends.close()

    def _start(self) -> Notebook:
        url = self._serve()
        driver = self._ends.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=chromium(), args=FLAGS)
        self._ends.callback(browser.close)
        page = browser.new_page(viewport=self._window, device_scale_factor=self._scale)
        notebook = Notebook(page, self.folder)
        page.on("pageerror", lambda error: notebook.complaints.append(f"error: {error}"))
        page.on("console", lambda message: _note(message, notebook.complaints))
        page.goto(url)
        return notebook

    def _serve(self) -> str:
        """Start the server; the address that it asked the browser to open."""
        opened, home = self.folder / "opened", self.folder / "home"
        home.mkdir(exist_ok=True)
        browser = self.folder / "browser"
        browser.write_text(
            f'#!/bin/sh\necho "$1" > "{opened}.new" && mv "{opened}.new" "{opened}"\n'
        )
        browser.chmod(0o755)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        left_out = ("JUPYTER", "MAKE", "MFLAGS")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
        # A new user's home has no settings; caches of data and fonts are found as ever.
        environment |= {
            "BROWSER": f"{browser} %s",
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "IPYTHONDIR": str(home / "ipython"),
        }
        # -o: the environment that runs this is the one to use, and is complete.
        command = ["make", "-o", ".venv/.ready", "lab", f"PY={sys.executable}"]
        command += [f"ARGS=--port={port} --LabApp.expose_app_in_browser=True"]
        with self.log.open("w") as log:
            make = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._ends.callback(self._end, make)
        end = time.monotonic() + 120
        while not opened.exists():
            assert make.poll() is None, f"make lab ended:\n{self.log.read_text()}"
            assert time.monotonic() < end, f"make lab opened no page:\n{self.log.read_text()}"
            time.sleep(0.05)
        return opened.read_text().strip()

    def _end(self, make: subprocess.Popen) -> None:
        """End the server as Control-C does, then whatever should be left of it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(make.pid).children(recursive=True)
            for file in (self.folder / ".cache/jupyter/runtime").glob("jpserver-*.json"):
                server = psutil.Process(json.loads(file.read_text())["pid"])
                if server in family:
                    server.terminate()
                    psutil.wait_procs([server], timeout=30)
            for process in psutil.wait_procs([*family, psutil.Process(make.pid)], timeout=5)[1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        make.wait()


def _note(message, complaints: list[str]) -> None:
    if message.type == "error":
        complaints.append(f"console: {message.text} ({message.location.get('url', '')})")
