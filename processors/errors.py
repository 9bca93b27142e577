"""How a stage says that something went wrong, and whose fault it is."""

from __future__ import annotations

from schemas.reasons import MediaReason


class MediaError(Exception):
    """This video or clip cannot be processed: it becomes a dead letter with this reason."""

    def __init__(
        self, reason: MediaReason, error: str, *, stage: str = "", retryable: bool = False
    ) -> None:
        super().__init__(f"{reason}: {error}")
        self.reason = reason
        self.error = error
        self.stage = stage
        self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process boundaries; the default would call us with one argument.
        return _media_error, (self.reason, self.error, self.stage, self.retryable)


def _media_error(reason: MediaReason, error: str, stage: str, retryable: bool) -> MediaError:
    return MediaError(reason, error, stage=stage, retryable=retryable)


class DependencyFault(Exception):
    """Something we depend on (a store, GPU memory, a node) is out; no clip is to blame."""


class StageStartError(Exception):
    """A stage cannot start, say for want of a model: one line for the person."""


class FetchError(Exception):
    """A model cannot be fetched, or not as it should be: a part of one line for the person."""


def in_one_line(error: BaseException) -> str:
    """An error's text as a part of one line for a person, 300 characters at most."""
    return " ".join(str(error).split())[:300]
