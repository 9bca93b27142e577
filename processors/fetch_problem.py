"""What can go wrong while bytes are fetched, and how long it may take; shared by the fetchers."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from schemas.reasons import MediaReason


class FetchProblem(Exception):
    """One attempt failed; ``retryable`` says whether another may not."""

    def __init__(
        self,
        reason: MediaReason,
        text: str,
        *,
        retryable: bool = False,
        every_object: bool = False,
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.retryable = retryable
        self.every_object = every_object
        """No object of the store can be had, whatever it answers when it is asked for nothing."""
        self.store: str | None = None
        """The store that may be at fault, if it is one that we depend on (`processors.stores`)."""


class Deadline:
    """A point in time by which everything about one object has to be done."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._end

    def remaining(self, at_most: float = float("inf")) -> float:
        """Seconds left, above zero; `FetchProblem` (``fetch_timeout``) if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise self.problem()
        return min(left, at_most)

    def problem(self) -> FetchProblem:
        return FetchProblem(
            MediaReason.FETCH_TIMEOUT,
            f"fetching took more than fetch.deadline_s ({self._seconds:g} s)",
            retryable=True,
        )


def redact(uri: str) -> str:
    """A URI as it may stand in errors and tables: without credentials, query and fragment.

    Pre-signed URLs carry their signature in the query.
    """
    try:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        if ":" in host:
            host = f"[{host}]"
        if parts.port is not None:
            host = f"{host}:{parts.port}"
    except ValueError:
        return "(unreadable uri)"
    hidden = "?…" if parts.query else ""
    return f"{parts.scheme}://{host}{parts.path}{hidden}"
