"""Questions for the exercises of lesson 00."""

from operator import index

from course_lib.checks._engine import Ask, exercise


@exercise("0.1 · Roll call")
def roll_call(ask: Ask, answer) -> None:
    """``answer() -> str``: the line ``rank r of N`` on every rank."""
    for n in (2, 3, 4):
        hint = "both numbers are in the environment, as text: RANK and WORLD_SIZE"
        lines = ask.run(answer, nprocs=n, hint=hint)
        if lines == [None] * n:
            hint = "the line is printed but not returned: end the function with `return`"
        elif lines == [f"rank {r + 1} of {n}" for r in range(n)]:
            hint = "ranks count from 0"
        expected = [f"rank {r} of {n}" for r in range(n)]
        ask.equal(lines, expected, f"{n} ranks return {n} lines, in rank order", hint)


@exercise("0.2 · Divide the work")
def my_share(ask: Ask, answer) -> None:
    """``answer(n) -> list[int]``: this rank's share of the indices 0 to n - 1."""
    text = "return a list of whole numbers; os.environ holds text: int(os.environ['RANK'])"
    for n, items in ((2, 10), (3, 10), (4, 10), (4, 3), (3, 0)):
        shares = [_numbers(share) for share in ask.run(answer, items, nprocs=n, hint=text)]
        where = f"{items} items on {n} ranks"
        ask.that(
            None not in shares,
            f"{where}: every rank returns a list of whole numbers",
            "return list(...) of the indices themselves",
        )
        dealt = sorted(i for share in shares for i in share)
        strange = sorted(set(dealt) - set(range(items)))
        if strange:
            hint = f"there is no item {strange[0]}: the {items} items are numbered from 0"
        elif len(set(dealt)) < len(dealt):
            hint = "some index is taken twice: is the share of each RANK another one?"
        else:
            missing = sorted(set(range(items)) - set(dealt))
            hint = f"nobody takes {missing}: is the remainder of {items} ÷ {n} dealt out as well?"
        ask.that(dealt == list(range(items)), f"{where}: every index exactly once", hint)
        sizes = [len(share) for share in shares]
        ask.that(
            max(sizes) - min(sizes) <= 1,
            f"{where}: no rank has more than one item more than another",
            f"the sizes are {sizes}: spread the remainder over the ranks, one item each",
        )


def _numbers(share) -> list[int] | None:
    """The share as a list of ints, or None if it is something else (a mask of bools, say)."""
    try:
        items = list(share)
        return None if any(isinstance(i, bool) for i in items) else [index(i) for i in items]
    except (TypeError, ValueError):
        return None
