"""Why the driver stops: one line for the person, and an exit code for whoever watches it."""

from __future__ import annotations

from typing import ClassVar

RESCAN = (
    "run `cliplake process --rescan` to read the current table and go on from there: clips that "
    "have their row already are left alone"
)


class PoolError(Exception):
    """The driver cannot go on. ``exit_code`` is what its process should end with."""

    exit_code: ClassVar[int] = 1


class SourceLost(PoolError):
    """A stored position in a table leads nowhere: going on would lose or stall silently.

    ``way_out`` says what to do; by default that of the driver and ``clips``.
    """

    exit_code = 3

    def __init__(self, problem: str, way_out: str = RESCAN) -> None:
        super().__init__(f"{problem}; {way_out}")


class OtherSplit(PoolError):
    """Clips were cut by another split than the recipe's: the operator changed one of the two."""

    exit_code = 2

    def __init__(self, found: str, wanted: str, clip_id: str) -> None:
        super().__init__(
            f"clips have split {found}, like clip {clip_id}, and the recipe's split is {wanted}: "
            "the Flink job split runs with another recipe, or did when they were cut. Submit it "
            "anew with this recipe (`cliplake ingest`), and run `cliplake process --any-split` "
            "to score clips however they were cut"
        )


class AlreadyRunning(PoolError):
    """Another driver writes to the same lake, or another process publishes its dead letters."""

    exit_code = 4


class CommitFailed(PoolError):
    """The lake refused a commit again and again; nothing was lost, and a restart goes on."""

    exit_code = 5


class PoolUnavailable(PoolError):
    """Ray cannot be reached, or its actors do not start."""

    exit_code = 6
