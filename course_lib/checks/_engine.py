"""Ask an answer its questions, and survive whatever the learner wrote.

A lesson's module holds one function an exercise::

    @exercise("0.1 · Roll call")
    def roll_call(ask, answer):
        for n in (2, 3, 4):
            lines = ask.run(answer, nprocs=n)
            ask.equal(lines, [f"rank {r} of {n}" for r in range(n)],
                      f"{n} ranks give {n} lines, in rank order", hint="…")

Invariants: the learner's code runs on ranks only, never in the kernel, so it cannot hang it or
leave anything behind; the first property that fails ends the check; a check raises only after
``raise_on_failure()``.
"""

import functools
import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from numbers import Integral, Real
from typing import Any

from course_lib.errors import RankError
from course_lib.launcher import launch

SILENCE = 8  # seconds without a sign of life after which an answer counts as hanging
LONGEST = 60  # seconds any one run may take: only an answer that keeps printing gets so far

_raises = False


class CheckFailed(AssertionError):
    """In a solutions notebook: an answer that is wrong, or missing."""


class _NotDone(Exception):
    """The answer is still a stub."""


class _WrongAnswer(Exception):
    def __init__(self, says: str, hint: str) -> None:
        super().__init__(says)
        self.says, self.hint = says, hint


def raise_on_failure() -> None:
    """From here on a check that does not end in ✓ raises ``CheckFailed``."""
    global _raises
    _raises = True


def exercise(title: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn ``check(ask, *answers)`` into what the notebook calls: ``check.name(*answers)``.

    Args:
        title: Number and name of the exercise, as its heading gives them.
    """

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(check)
        def ask_all(*answers: Any) -> None:
            print(title)
            try:
                _judge(check, answers)
            except _NotDone:
                _end("○ not done yet")
            except _WrongAnswer as wrong:
                hint = f"\n  hint: {wrong.hint}" if wrong.hint else ""
                _end(f"✗ {wrong.says}{hint}")

        return ask_all

    return decorate


def _judge(check: Callable[..., None], answers: tuple) -> None:
    for answer in answers:
        if not callable(answer):
            raise _WrongAnswer(
                f"a function is needed here, not {_short(answer)}",
                "pass the function itself, without calling it: check.name(my_function)",
            )
    try:
        check(Ask(), *answers)
    except (_NotDone, _WrongAnswer):
        raise
    except Exception as error:  # the answer is so odd that the questions could not be put
        raise _WrongAnswer(
            f"the answer could not be judged: {type(error).__name__}: {error}",
            "does it take the arguments and return what its docstring says?",
        ) from None


def _end(text: str) -> None:
    print(text)
    if _raises:
        raise CheckFailed(text)


class Ask:
    """What a check asks with."""

    def run(
        self, fn: Callable[..., Any], *args: Any, nprocs: int, hint: str = "", **kwargs: Any
    ) -> list[Any]:
        """Run ``fn(*args, **kwargs)`` on ``nprocs`` real ranks.

        They compute on the CPU, whatever the machine has, and what they print is kept out of the
        notebook. Options of ``launch`` (``debug``, …) may be among ``kwargs``.

        Args:
            fn: The learner's function, or one of the check's own that calls it.
            *args: Its arguments.
            nprocs: World size.
            hint: Shown if the run fails.
            **kwargs: Its keyword arguments.

        Returns:
            The ranks' results, in rank order.
        """
        options = {"timeout": SILENCE, "deadline": LONGEST, "device": "cpu"} | kwargs
        printed = _Tail()
        try:
            with redirect_stdout(printed):
                return launch(fn, *args, nprocs=nprocs, **options)
        except RankError as error:
            if error.headline == "interrupted":  # by the person at the keyboard: Run All ends
                raise KeyboardInterrupt from None
            if _is_stub(error):
                raise _NotDone from None
            raise _WrongAnswer(_story(error, nprocs, printed.text), hint) from None
        except TypeError as error:  # refused before any rank started
            raise _WrongAnswer(f"runs on {_ranks(nprocs)}: {error}", hint) from None

    def that(self, holds: Any, says: str, hint: str = "") -> None:
        """One property: print ``✓ says``, or end the check with ``✗ says`` and the hint."""
        if not holds:
            raise _WrongAnswer(says, hint)
        print(f"✓ {says}")

    def equal(self, got: Any, expected: Any, says: str, hint: str = "") -> None:
        """``got`` is ``expected``: the same plain values, or equal tensors of one shape and dtype.

        A list may stand for a tuple. Where a whole number is expected, 2.0 is not 2.
        """
        self.that(_same(got, expected, 0.0), says + _unless(got, expected, 0.0), hint)

    def close(
        self, got: Any, expected: Any, says: str, hint: str = "", *, relative: float = 1e-6
    ) -> None:
        """Like ``equal`` for numbers, within a relative difference and of any dtype."""
        self.that(_same(got, expected, relative), says + _unless(got, expected, relative), hint)


class _Tail(io.TextIOBase):
    """Keeps the end of what is written to it: an answer may print gigabytes."""

    text = ""

    def write(self, text: str) -> int:
        self.text = (self.text + text)[-4000:]
        return len(text)


def _is_stub(error: RankError) -> bool:
    """Whether the learner's own code raised NotImplementedError; torch has its own reasons to."""
    frames = error.cause.frames if error.exception == "NotImplementedError" else ()
    return bool(frames) and frames[-1].is_the_readers


def _story(error: RankError, nprocs: int, printed: str) -> str:
    lines = str(error).splitlines()
    if lines[0].startswith("no sign of life"):
        lines[0] = f"it hangs ({lines[0]})"
    elif lines[0].startswith("not done after"):
        lines[0] = f"it does not end ({lines[0]})"
    said = [line for line in printed.splitlines() if re.match(r"\[rank \d+\] *\S", line)]
    last = [_clip(line) for line in said[-2:]]
    return "\n  ".join([f"runs on {_ranks(nprocs)}: {lines[0]}", *lines[1:], *last])


def _same(got: Any, expected: Any, relative: float) -> bool:
    import torch

    if isinstance(expected, list | tuple):
        return (
            isinstance(got, list | tuple)
            and len(got) == len(expected)
            and all(_same(g, e, relative) for g, e in zip(got, expected, strict=True))
        )
    if isinstance(expected, torch.Tensor):
        if not isinstance(got, torch.Tensor) or got.shape != expected.shape:
            return False
        if not relative and got.dtype != expected.dtype:
            return False
        return torch.allclose(got.double(), expected.double(), rtol=relative, atol=0.0)
    if isinstance(got, torch.Tensor):
        return False
    if isinstance(expected, Real) and not isinstance(expected, bool):
        kind = Integral if isinstance(expected, Integral) and not relative else Real
        number = isinstance(got, kind) and not isinstance(got, bool)
        return number and bool(got == expected or abs(got - expected) <= relative * abs(expected))
    return isinstance(got, type(expected)) and bool(got == expected)


def _unless(got: Any, expected: Any, relative: float) -> str:
    return "" if _same(got, expected, relative) else f" (got {_short(got)}, not {_short(expected)})"


def _short(value: Any) -> str:
    return _clip(" ".join(repr(value).split()))


def _clip(text: str) -> str:
    return text if len(text) <= 90 else text[:89] + "…"


def _ranks(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"
