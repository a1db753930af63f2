"""Something to save and to load, which remembers when each was done."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FULL = "no space left on the disk"


class SaveAndLoad:
    """One call of ``answer(save, load)`` on one rank, and when it did what.

    Saving leaves half a file for a while, and one rank is slow to load, so that who comes too early
    is seen by the clock that all ranks share, and not only by bad luck.

    Attributes:
        got: What the answer returned.
        error: The text of what it raised, if saving was to fail; other errors are not caught.
        saves: When each save on this rank began and ended, in seconds of ``time.monotonic``.
        loads: The same for each load.
        returned: When the answer came back.
    """

    def __init__(self, path: Path, text: str | None, late: bool) -> None:
        """Prepare a call.

        Args:
            path: The file.
            text: What is to be saved; None if saving is to fail.
            late: Whether this rank is slow to load.
        """
        self.path, self.text, self.late = path, text, late
        self.saves, self.loads = [], []
        self.got = self.error = None

    def save(self) -> None:
        """Write the file in two steps, or raise ``OSError``."""
        begin = time.monotonic()
        if self.text is None:
            self.saves.append((begin, begin))
            raise OSError(FULL)
        self.path.write_text("half of ")
        time.sleep(0.05)
        self.path.write_text(self.text)
        self.saves.append((begin, time.monotonic()))

    def load(self) -> str:
        """What is in the file at this moment."""
        begin = time.monotonic()
        time.sleep(0.05 if self.late else 0)
        read = self.path.read_text() if self.path.exists() else "no file"
        self.loads.append((begin, time.monotonic()))
        return read

    def run(self, answer: Callable[..., Any]) -> None:
        """Call the answer."""
        try:
            self.got = answer(self.save, self.load)
        except NotImplementedError:
            raise
        except Exception as error:
            if self.text is not None:
                raise
            self.error = str(error)
        self.returned = time.monotonic()
