"""Questions for the exercises of lesson 53: what each node is told, what a batch file starts."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from course_lib._loopback import loopback_store
from course_lib.checks import _batch_jobs, _job_faults, _node_launches, _two_agents
from course_lib.checks._engine import Ask, exercise
from course_lib.checks._launch_words import Launch, read


class _Given(NamedTuple):
    """What one node is told.

    Attributes:
        words: As they came back; None if torchrun refuses them.
        launch: What torchrun makes of them, or why it refuses them.
        untouched: Whether node 0's words are as before.
    """

    words: list[str] | None
    launch: Launch | str
    untouched: bool


@exercise("53.1 · Complete the launch of node 1")
def launch_of(ask: Ask, answer) -> None:
    """``answer(node, command, address) -> words``: what is typed there."""
    with TemporaryDirectory(prefix="two_agents_") as folder, loopback_store() as port:
        real = _two_agents.case(Path(folder), port)
        cases = [*_node_launches.CASES, real]
        hint = "command is a list of words, node a number, address a text; no node is asked but 1 "
        hint += "and up"
        (told,) = ask.run(_launches, answer, cases, nprocs=1, hint=hint)
        for case, (first, others) in zip(cases, told, strict=True):
            for (node, address), given in zip(case.others(), others, strict=True):
                _one_node(ask, f"{case.says}, node {node}", node, address, first, given)
            if case is not real:
                print(f"✓ {case.says}: {_which(len(others))} the others at {first.endpoint}")
        places = _two_agents.start([real.words(), told[-1][1][0].words], Path(folder))
        says = f"{real.says}, started with these words: 4 ranks meet"
        ask.that(not isinstance(places, str), says, f"{places}")
        got = [tuple(place) for place in places]
        says = "node, local rank and rank: " + ", ".join(f"{p[0]} {p[1]} {p[2]}" for p in got)
        hint = "node 0 has the first ranks; each node counts its own from 0; all see all of them"
        ask.that(got == _two_agents.PLACES, says, hint)


def _one_node(ask: Ask, says: str, node: int, address: str, first: Launch, given: _Given) -> None:
    """Silent if all is well."""
    if isinstance(given.launch, str):
        ask.that(False, f"{says}: torchrun takes the words", given.launch)
    what, why = _node_launches.what_is_wrong(node, address, first, given.launch)
    if what:
        ask.that(False, f"{says}: {what}", why)
    if not given.untouched:
        why = "node 0's words are still needed: list(command), or [*command[:k], …], is a new list"
        ask.that(False, f"{says}: the list that was passed in is unchanged", why)


def _launches(answer, cases) -> list[tuple[Launch, list[_Given]]]:
    told = []
    for case in cases:
        others = []
        for node, address in case.others():
            command = case.words()
            words = answer(node, command, address)
            launch = read(words)
            kept = None if isinstance(launch, str) else [*map(str, words)]  # odd ones stay here
            others.append(_Given(kept, launch, command == case.words()))
        told.append((read(case.words()), others))
    return told


@exercise("53.2 · Read an sbatch file")
def mended_job(ask: Ask, answer) -> None:
    """``answer() -> text``: a batch file that starts one agent a node, which all meet."""
    with TemporaryDirectory(prefix="batch_job_") as folder:
        patience = _batch_jobs.PATIENCE  # of what may wait inside the rank
        given = answer, Path(folder), patience
        ((text, runs, failed),) = ask.run(_submitted, *given, nprocs=1, timeout=4 * patience)
    hint = f"return the text of the file (got {text})"
    ask.that(runs is not None, "a text comes back", hint)
    first = text.partition("\n")[0]
    hint = f"sbatch wants #!/bin/bash in the first line (got {first[:40]!r})"
    ask.that(first.startswith("#!"), "its first line names a shell", hint)
    hint = _batch_jobs.grammar(text)
    ask.that(not hint, "bash can read it", hint)
    asked = _batch_jobs.directives(text)
    hint = _job_faults.why_not_asked(text, asked)
    says = f"it asks for {_job_faults.NODES} nodes, for {_job_faults.HOURS} hours"
    ask.that(not hint, says, hint)
    hint = _job_faults.why_one_output(runs[0], _batch_jobs.CLUSTERS[0], asked)
    ask.that(not hint, "what it writes stays when the next job runs", hint)
    jobs = zip(_batch_jobs.CLUSTERS, runs, strict=True)
    for k, (cluster, run) in enumerate(jobs):
        for says, hint in _job_faults.questions(run, cluster, asked):
            if hint or not k:  # of the second job only what is wrong
                ask.that(not hint, says, hint)
    hint = _job_faults.why_unnoticed(failed)
    ask.that(not hint, "if the agents fail, the job fails", hint)
    print(f"✓ the next job, on {', '.join(cluster.nodes)}: all this holds there, too")


def _submitted(
    answer, folder: Path, patience: float
) -> tuple[str, list[_batch_jobs.Run] | None, _batch_jobs.Run | None]:
    """The text, what it did on each cluster, and what it did when its agents failed."""
    text = answer()
    if not isinstance(text, str):
        return f"{text!r:.60}", None, None
    asked, runs = _batch_jobs.directives(text), []
    for cluster in _batch_jobs.CLUSTERS:
        place = folder / str(cluster.job)
        place.mkdir()
        runs.append(_batch_jobs.run(text, asked, cluster, place, patience))
        if runs[-1].code is None:  # once is enough to wait
            return str(text), [*runs, runs[-1]][:2], runs[-1]
    place = folder / "failing"
    place.mkdir()
    failed = _batch_jobs.run(text, asked, _batch_jobs.CLUSTERS[0], place, patience, code=1)
    return str(text), runs, failed


def _which(others: int) -> str:
    return "node 1 meets" if others == 1 else f"nodes 1 to {others} meet"
