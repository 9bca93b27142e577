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

_DEADLINE_PIXELS = 1920 * 1080
"""Larger pictures get more time in proportion: optical flow takes as long as it has pixels."""

_WORTH_ANOTHER_TRY = (MediaReason.OUT_OF_MEMORY, MediaReason.STAGE_ERROR)


class ClipDecoder:
    """Decodes clips of local files in a sandbox, by one plan."""

    def __init__(self, sandbox: Sandbox, plan: DecodePlan) -> None:
        self._sandbox = sandbox
        self._plan = plan

    def decode(self, path: str, spans: Sequence[ClipSpan]) -> list[DecodedClip | MediaError]:
        """One result a clip, in order: what the pass gave, or why it gave nothing.

        Adjacent clips share the open file. A clip that crashes, hangs or exhausts the child is
        found by running the clips of its call one by one. `DependencyFault` if there can be no
        child, say for want of memory: no clip is to blame.
        """
        results: list[DecodedClip | MediaError] = []
        try:
            for chunk in _chunks(spans):
                results += self._decode_chunk(path, chunk)
        except (RuntimeError, OSError) as error:
            raise DependencyFault(f"the decoder's process cannot run: {error}") from error
        return results

    def _decode_chunk(self, path: str, chunk: Sequence[ClipSpan]) -> list[DecodedClip | MediaError]:
        try:
            located = self._sandbox.run(
                locate_clips, path, tuple(chunk), deadline_s=self._sandbox.deadline_for(0)
            )
            results = self._sandbox.run(
                decode_clips,
                path,
                located,
                self._plan,
                deadline_s=self._sandbox.deadline_for(sum(_work_s(span) for span in located)),
            )
        except MediaError as error:
            if len(chunk) == 1:
                return [error]
            results = [error] * len(chunk)
            again = list(range(len(chunk)))
        else:
            if len(chunk) == 1:
                return results
            again = [
                index
                for index, result in enumerate(results)
                if isinstance(result, MediaError) and result.reason in _WORTH_ANOTHER_TRY
            ]
        for index in again:
            (results[index],) = self._decode_chunk(path, [chunk[index]])
        return results


def _work_s(span: ClipSpan) -> float:
    return span.read_s * max(1.0, span.width * span.height / _DEADLINE_PIXELS)


def _chunks(spans: Sequence[ClipSpan]) -> Iterator[list[ClipSpan]]:
    chunk: list[ClipSpan] = []
    seconds = 0.0
    for span in spans:
        length = float(span.duration * span.time_base)
        if chunk and (len(chunk) >= _CLIPS_PER_CALL or seconds + length > _SECONDS_PER_CALL):
            yield chunk
            chunk, seconds = [], 0.0
        chunk.append(span)
        seconds += length
    if chunk:
        yield chunk
