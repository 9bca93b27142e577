"""What is sent to the topic, and what has to come of it: made from a seed, by nothing of ours.

Videos are built of shots whose lengths and movement are chosen, so that their clips and verdicts
are known by construction; messages and files that must be refused carry their reason with them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.clip_media import panning, texture
from tests.media import encode

FPS = 25
SIZE = (96, 128)
TINTS = ((1.0, 0.25, 0.2), (0.2, 0.35, 1.0), (0.95, 0.95, 0.3), (0.2, 0.8, 0.25), (0.9, 0.9, 0.9))


@dataclass(frozen=True)
class Shot:
    """Some frames of one picture; ``step`` pixels of movement from one to the next."""

    frames: int
    step: int

    @property
    def verdict(self) -> str:
        """``kept``, or the reason to reject it under recipes/laptop.yaml."""
        if self.frames < 2 * FPS:
            return "too_short"
        return "kept" if self.step else "low_motion"


VIDEOS: dict[str, tuple[Shot, ...]] = {
    "moving": (Shot(55, 2),),
    "three": (Shot(55, 2), Shot(60, 0), Shot(52, 3)),
    "short": (Shot(20, 2), Shot(54, 2)),
    "many": (Shot(70, 1), Shot(51, 0), Shot(30, 1), Shot(58, 4)),
    "still": (Shot(56, 0),),
}
BROKEN_FILES: dict[str, tuple[bytes | None, str]] = {
    "empty": (b"", "empty_file"),
    "text": (b"not a video at all\n" * 40, "not_a_video"),
    "absent": (None, "not_found"),
}
"""Contents, None for no file, and the reason in failed_videos."""
BROKEN_MESSAGES: tuple[tuple[bytes | None, str], ...] = (
    (b"", "empty_message"),
    (None, "empty_message"),
    (b"\xff\xfe\x00", "not_utf8"),
    (b"{", "not_json"),
    (b"[1, 2]", "not_an_object"),
    (b'{"uri": "file:///x.mp4"}', "unknown_schema_version"),
    (b'{"schema_version": 1}', "missing_uri"),
    (b'{"schema_version": 1, "uri": 7}', "invalid_field"),
)

Place = tuple[str, int, int]
"""Topic, partition and offset of a message."""


@dataclass
class Order:
    """Messages in the order in which they are sent, and what they must become."""

    seed: int
    messages: list[bytes | None] = field(default_factory=list)
    contents: dict[str, str] = field(default_factory=dict)
    """video_id → name in `VIDEOS`: a row of ``videos``, and its clips."""
    broken: dict[str, str] = field(default_factory=dict)
    """video_id → reason in ``failed_videos``; it has a row of ``videos`` as well."""
    repeats: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason → messages in ``rejected_messages``."""
    places: set[Place] = field(default_factory=set)
    """Of each message, once it is sent."""

    @property
    def clips(self) -> int:
        return sum(len(VIDEOS[name]) for name in self.contents.values())

    def add(self, other: Order) -> None:
        """Take in what was sent after this."""
        self.messages += other.messages
        self.contents |= other.contents
        self.broken |= other.broken
        self.repeats += other.repeats
        self.places |= other.places
        for reason, count in other.rejected.items():
            self.rejected[reason] = self.rejected.get(reason, 0) + count


def new_order(seed: int, references: int, folder: Path) -> Order:
    """``references`` different references, and among them a tenth of poison and of repeats.

    The order is shuffled, so that a repeat may come long after its first message, or at once. No
    content comes again before all others came: a small order has each of them too.
    """
    rng, order = random.Random(seed), Order(seed)
    names: list[str] = []
    queue: list[tuple[float, bytes | None]] = []
    for number in range(references):
        video_id = f"ledger-{seed}-{number}"
        if rng.random() < 0.08:
            name = rng.choice(sorted(BROKEN_FILES))
            order.broken[video_id] = BROKEN_FILES[name][1]
        else:
            names = names or rng.sample(sorted(VIDEOS), len(VIDEOS))
            name = names.pop()
            order.contents[video_id] = name
        message = _message(folder / f"{name}.mp4", video_id, rng)
        place = rng.random()
        queue.append((place, message))
        while rng.random() < 0.1:
            queue.append((rng.uniform(place, 1), message))
            order.repeats += 1
        if rng.random() < 0.1:
            broken, reason = rng.choice(BROKEN_MESSAGES)
            queue.append((rng.random(), broken))
            order.rejected[reason] = order.rejected.get(reason, 0) + 1
    order.messages = [message for _, message in sorted(queue, key=lambda item: item[0])]
    return order


def write_files(folder: Path) -> None:
    """The files that the messages of any order point to."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, shots in VIDEOS.items():
        encode(folder / f"{name}.mp4", pictures(shots), fps=FPS, options={"g": "24"})
    for name, (content, _) in BROKEN_FILES.items():
        if content is not None:
            (folder / f"{name}.mp4").write_bytes(content)


def pictures(shots: Sequence[Shot]) -> Iterator[NDArray[np.uint8]]:
    """RGB frames, uint8 [96, 128, 3]; neighbouring shots differ in texture and colour."""
    for number, shot in enumerate(shots):
        tint = np.array(TINTS[number % len(TINTS)], np.float32)
        if shot.step:
            frames: Iterator[NDArray[np.uint8]] = panning(shot.frames, *SIZE, shot.step, number)
        else:
            frames = iter([texture(*SIZE, number)] * shot.frames)
        for frame in frames:
            yield (frame * tint).astype(np.uint8)


def _message(path: Path, video_id: str, rng: random.Random) -> bytes:
    document = {
        "schema_version": 1,
        "uri": path.as_uri(),
        "video_id": video_id,
        "source": f"source-{rng.randrange(4)}",
        "attributes": {"n": str(rng.randrange(1000))},
    }
    return json.dumps(document).encode()
