"""Run in another process what the cells ran: in which order, and whether it comes out alike.

What a program carries stands in the order in which the cells ran, but for this: a definition stands
before everything that looks at it while it is executed, wherever its cell was run last. And what
was made with an older version of something is refused, for made again it would be another thing.
"""

from collections.abc import Iterable, Mapping

from course_lib._cells import (
    DEFINITIONS,
    Statement,
    first_line,
    last_fresh,
    names_at_definition,
    names_used,
)


class CannotCarry(ValueError):
    """A function needs something that a program of its own would not have; the message names it."""


class Replay:
    """The statements a program executes.

    Args:
        statements: All that ran, in that order.
        makers: For each name that is made by statements, those that make and change it.
        constants: Names whose values are written down instead.
    """

    def __init__(
        self,
        statements: list[Statement],
        makers: Mapping[str, list[Statement]],
        constants: Iterable[str],
    ) -> None:
        self._statements = statements
        self._makers = makers
        self._constants = set(constants)
        kept = {statement for made in makers.values() for statement in made}
        self._kept = sorted(kept, key=lambda statement: statement.order)

    def in_order(self) -> list[Statement]:
        """The statements in an order in which they can be executed."""
        ordered: list[Statement] = []
        begun: set[tuple[Statement, bool]] = set()

        def place(statement: Statement, called: bool) -> None:
            if (statement, called) in begun:
                return
            begun.add((statement, called))
            for name in names_used(statement.node) if called else _needed(statement):
                for number, maker in enumerate(self._makers.get(name, ())):
                    if number == 0 or maker.order < statement.order:
                        place(maker, called=True)
            if statement not in ordered:
                ordered.append(statement)

        for statement in self._kept:
            place(statement, called=False)
        return ordered

    def bound_again(self) -> set[str]:
        """Constants to which a statement gives a value once more, perhaps not the last one."""
        return {n for s in self._kept for n in s.binds if n in self._constants}

    def check_nothing_has_changed(self) -> None:
        """See that everything would be made with what it was made with.

        Raises:
            CannotCarry: Something was made with an older version of something else.
        """
        for statement in self._kept:
            looked_at = self._looked_at(statement) - statement.binds - statement.touches
            for name in sorted(looked_at & (self._makers.keys() | self._constants)):
                then = self._version(name, statement.order)
                if then and then != self._version(name, len(self._statements)):
                    raise CannotCarry(
                        f"{name} has changed since `{first_line(statement)}` ran, which looked at "
                        "it: run that cell again"
                    )

    def _looked_at(self, statement: Statement) -> set[str]:
        """The names whose values a statement may use while it is executed."""
        names = list(_needed(statement))
        if not isinstance(statement.node, DEFINITIONS):
            for name in names:  # grows: what is called looks at names in turn
                for maker in self._makers.get(name, ()):
                    names += names_used(maker.node) - set(names)
        return set(names)

    def _version(self, name: str, before: int) -> list[str]:
        """The text of what gave ``name`` the value it had before a statement."""
        binding = [s for s in self._statements[:before] if name in s.binds]
        since = last_fresh(name, binding).order if binding else before
        return [
            statement.text
            for statement in self._statements[since:before]
            if name in statement.binds or (name in statement.touches and name in self._constants)
        ]


def _needed(statement: Statement) -> set[str]:
    """The global names a statement itself reads while it is executed."""
    definition = isinstance(statement.node, DEFINITIONS)
    return names_at_definition(statement.node) if definition else names_used(statement.node)
