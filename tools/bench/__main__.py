"""The program behind ``make bench``: rounds, tables, verdicts."""

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean, median

import psutil

from . import launches, peers, report, tracing_cost, trainings
from .processes import Kernel, ToolFailed, kernel

ROOT = Path(__file__).parents[2]


def main(words: list[str] | None = None) -> int:
    """Measure, print, keep; return the exit code.

    Returns:
        0 whatever the verdicts; 1 when something could not be run, or with ``--strict`` when a bar
        was missed.
    """
    options = _parser().parse_args(words)
    env = _environment(options)
    with contextlib.ExitStack() as stack:
        kernels = [stack.enter_context(kernel(env)) for _ in range(3 if options.peers else 2)]
        measured = _measure(options, env, *kernels)
    found = report.summary(options, measured)
    text = report.text(found)
    print("\n" + text)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(found, indent=1))
    file.with_suffix(".md").write_text(text)
    print(f"\nKept in {file} and {file.with_suffix('.md').name}")
    missed = any(row[-1] != "met" for row in found["verdicts"])
    return int(bool(measured.failures) or (options.strict and missed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="at most (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=4.5, help="no new round after so long (default: 4.5)"
    )
    parser.add_argument("--epochs", type=int, default=15, help="a training (default: 15)")
    parser.add_argument("--nprocs", type=int, default=2, help="ranks (default: 2)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--quick", action="store_true", help="3 epochs, 2 rounds: does it work?")
    parser.add_argument(
        "--no-peers", dest="peers", action="store_false", help="without accelerate and Fabric"
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 when a bar is missed")
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="folder (default: runs)")
    return parser


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Choose the device, install the peers; what every program and kernel is given."""
    import torch

    from course_lib.group import cores

    if options.quick:
        options.epochs, options.rounds = 3, min(options.rounds, 2)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if options.device == "auto":
        options.device = "cuda" if gpus >= options.nprocs else "cpu"
    options.threads = max(1, cores() // options.nprocs)
    path = [str(peers.install(ROOT / ".cache/bench"))] if options.peers else []
    path += [given] if (given := os.environ.get("PYTHONPATH")) else []
    kept = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_")}
    return kept | {
        "PYTHONPATH": os.pathsep.join(path),
        # torchrun would take 1, the course takes cores ÷ ranks. To be fair, all take that.
        "OMP_NUM_THREADS": str(options.threads),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _measure(
    options, env, home: Kernel, trainer: Kernel, forked: Kernel | None = None
) -> report.Measured:
    """Go through all rounds."""
    ways = launches.Launches(home, forked, options.nprocs, env)
    names = ways.names()
    schooled = [trainings.COURSE, trainings.BARE]
    schooled += [n for n in trainings.SCRIPTS if n not in schooled and options.peers]
    measured = report.Measured(names, schooled)
    with _noted(measured.failures, trainings.COURSE):
        trainings.prepare(trainer)
    tracing_cost.prepare(home)
    begun = time.monotonic()
    for number in range(options.rounds):
        if number and time.monotonic() - begun > 60 * options.minutes:
            break
        print(f"round {number + 1} of {options.rounds}: ", end="", flush=True)
        now = {kind: {} for kind in report.KINDS}
        others = [_busy_meanwhile()]
        turn = number % len(names)  # nobody is always first
        for name in names[turn:] + names[:turn]:
            with _noted(measured.failures, name):
                if number == 0:
                    now["first"][name] = ways.seconds(name)[0]
                times = launches.AGAIN if name in (launches.COURSE, launches.NOTEBOOK) else 1
                now["again"][name] = median(ways.seconds(name, times))
                for kind in ("memory", "ready") if number == 0 else ():
                    if sizes := ways.memory(name, ready=kind == "ready"):
                        now[kind][name] = median(sizes)
        turn = number % len(schooled)
        for name in schooled[turn:] + schooled[:turn]:
            others.append(_busy_meanwhile())
            with _noted(measured.failures, name):
                what = options.epochs, options.nprocs, options.device
                if name == trainings.COURSE:
                    run = trainings.train_with_launch(trainer, *what)
                else:
                    run = trainings.train_with_script(name, *what, env)
                measured.trained[name] = run
                now["rate"][name] = run.rows_per_second(trainings.BATCH)
        with _noted(measured.failures, "trace"):
            for name, times in tracing_cost.measure(home, options.nprocs).items():
                now["plain"][name], now["traced"][name] = times
        now["load"]["others"] = mean(others)
        measured.rounds.append(now)
        print(f"{time.monotonic() - begun:.0f} s", flush=True)
    return measured


def _busy_meanwhile() -> float:
    """The share of the machine that other programs take: nothing of ours runs here."""
    return psutil.cpu_percent(0.5) / 100


@contextlib.contextmanager
def _noted(failures: dict[str, str], name: str):
    """One contestant's failure is told at the end, and does not keep the others from running."""
    try:
        yield
    except ToolFailed as failure:
        failures.setdefault(name, str(failure))


if __name__ == "__main__":
    sys.exit(main())
