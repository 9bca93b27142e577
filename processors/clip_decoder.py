"""Decoding the clips of a local file in a limited child process, so that none hurts another.

What is made of a clip is in `processors.clip_pass`; this is about which clips share a call, how
long it may take, and who is to blame when it fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from processors.clip_pass import DecodedClip, DecodePlan, decode_clips, locate_clips
from processors.clip_reader import ClipSpan
from processors.errors import DependencyFault, MediaError
from processors.media.sandbox import Sandbox
from schemas.reasons import MediaReason

_CLIPS_PER_CALL = 8
_SECONDS_PER_CALL = 60.0
"""A call that hangs costs its whole deadline, and one that crashes is repeated clip by clip."""

_DEADLINE_PIXELS = 854 * 480
"""Larger pictures get more time in proportion: optical flow takes as long as it has pixels. The
full time for pictures of this size is several times what it takes on a busy machine."""
_DEADLINE_SAMPLING_FPS = 2.0
"""A higher sampling rate of the motion score gets more time in proportion as well."""

_WORTH_ANOTHER_TRY = (
    MediaReason.DECODER_CRASHED,
    MediaReason.DECODER_TIMEOUT,
    MediaReason.OUT_OF_MEMORY,
    MediaReason.STAGE_ERROR,
)
"""What may be another clip's doing, or the machine's."""


class ClipDecoder:
    """Decodes clips of local files in a sandbox, by one plan."""

    def __init__(self, sandbox: Sandbox, plan: DecodePlan) -> None:
        self._sandbox = sandbox
        self._plan = plan

    def decode(self, path: str, spans: Sequence[ClipSpan]) -> list[DecodedClip | MediaError]:
        """One result a clip, in order: what the pass gave, or why it gave nothing.

        Adjacent clips share the open file. A clip whose call crashed, hung or exhausted the child
        runs once more, alone, and is blamed for what comes back then. `DependencyFault` if there
        can be no child, say for want of memory: no clip is to blame.
        """
        results: list[DecodedClip | MediaError] = []
        try:
            for chunk in _chunks(spans):
                for span, result in zip(chunk, self._attempt(path, chunk), strict=True):
                    if isinstance(result, MediaError) and result.reason in _WORTH_ANOTHER_TRY:
                        (result,) = self._attempt(path, [span])
                    results.append(result)
        except (RuntimeError, OSError) as error:
            raise DependencyFault(f"the decoder's process cannot run: {error}") from error
        return results

    def _attempt(self, path: str, chunk: Sequence[ClipSpan]) -> list[DecodedClip | MediaError]:
        """One call of the child; an error of the call as a whole is that of all its clips."""
        try:
            located = self._sandbox.run(
                locate_clips, path, tuple(chunk), deadline_s=self._sandbox.deadline_for(0)
            )
            seconds = sum(work_seconds(span, self._plan) for span in located)
            return self._sandbox.run(
                decode_clips,
                path,
                located,
                self._plan,
                deadline_s=self._sandbox.deadline_for(seconds),
            )
        except MediaError as error:
            return [error] * len(chunk)


def work_seconds(span: ClipSpan, plan: DecodePlan) -> float:
    """Seconds of ordinary video that are as much work as this clip; its deadline depends on it."""
    pixels = max(1.0, span.width * span.height / _DEADLINE_PIXELS)
    sampling = plan.motion.sampling_fps / _DEADLINE_SAMPLING_FPS if plan.motion else 1.0
    return pixels * (span.lead_s + span.length_s * max(1.0, sampling))


def _chunks(spans: Sequence[ClipSpan]) -> Iterator[list[ClipSpan]]:
    chunk: list[ClipSpan] = []
    seconds = 0.0
    for span in spans:
        length = span.length_s
        if chunk and (len(chunk) >= _CLIPS_PER_CALL or seconds + length > _SECONDS_PER_CALL):
            yield chunk
            chunk, seconds = [], 0.0
        chunk.append(span)
        seconds += length
    if chunk:
        yield chunk
