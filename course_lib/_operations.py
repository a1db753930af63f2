"""What one rank did: its operations, with times on the clock that all processes share."""

from dataclasses import dataclass, field

from course_lib._places import Frame


@dataclass
class Operation:
    """One call of a torch.distributed operation on one rank. Times are seconds of ``monotonic``.

    Attributes:
        name: ``"send"``, ``"all_reduce"``, …
        rank: The rank that called it.
        peer: The partner of a send or recv, the root of a broadcast, reduce, gather or scatter,
            as global ranks; None where there is none.
        group: Global ranks of the group.
        nbytes: Bytes this rank put in; for a recv, and for the receivers of a broadcast or scatter,
            bytes it got.
        tag: Tag of a send or recv.
        begin: When it was called.
        returned: When the call came back.
        waited: For an asynchronous call, when its ``wait()`` was called; None before that.
        end: When it was done, as far as this rank knows; None if nobody waited for it.
        frame: The reader's line that called it.
    """

    name: str
    rank: int
    peer: int | None
    group: tuple[int, ...]
    nbytes: int
    tag: int
    begin: float
    returned: float = 0.0
    waited: float | None = None
    end: float | None = None
    frame: Frame | None = None

    @property
    def sends(self) -> bool:
        """Whether it is the sending side of a message."""
        return self.name in ("send", "isend", "send_object_list")

    @property
    def receives(self) -> bool:
        """Whether it is the receiving side of a message."""
        return self.name in ("recv", "irecv", "recv_object_list")

    @property
    def is_collective(self) -> bool:
        """Whether all ranks of the group take part."""
        return not (self.sends or self.receives)

    @property
    def where(self) -> str:
        """``Cell In[3], line 7``."""
        return self.frame.where if self.frame else ""


@dataclass
class Trace:
    """What one rank did between the beginning and the end of a ``with trace()`` block.

    Attributes:
        rank: The rank.
        world_size: Number of ranks.
        begin: When the block began, in seconds of the machine's monotonic clock.
        end: When it ended.
        operations: Its operations, in the order in which they were called.
    """

    rank: int
    world_size: int
    begin: float
    end: float = 0.0
    operations: list[Operation] = field(default_factory=list)

    @property
    def sent(self) -> list[Operation]:
        """The messages this rank sent, in order."""
        return [operation for operation in self.operations if operation.sends]

    @property
    def received(self) -> list[Operation]:
        """The messages this rank received, in order."""
        return [operation for operation in self.operations if operation.receives]

    @property
    def collectives(self) -> list[Operation]:
        """The collective operations this rank took part in, in order."""
        return [operation for operation in self.operations if operation.is_collective]

    def __repr__(self) -> str:
        return (
            f"<Trace of rank {self.rank}: {len(self.sent)} messages sent, {len(self.received)} "
            f"received, {len(self.collectives)} collectives, "
            f"{1e3 * (self.end - self.begin):.1f} ms>"
        )
