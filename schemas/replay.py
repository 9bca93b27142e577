"""The headers by which a replayed message is told from a repeat, and the names of messages.

A replay is the stored message, byte for byte, on the topic once more. Its headers are as hostile
as the rest: they can make a reference be worked on again, which a new id could do as well, and
they mark no letter resolved whose bytes are not the message's own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass

ID_HEADER = "cliplake-replay-id"
"""Hexadecimal; one for all messages of a replay."""
OF_HEADER = "cliplake-replay-of"
"""Name of the message that is sent again, as `message_name` writes it."""
VIDEOS_HEADER = "cliplake-replay-videos"
"""The video_keys that are meant, if the message named others as well; separated by commas."""

_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"([A-Za-z0-9._-]{1,249})\[(\d{1,9})\]@(\d{1,18})")


@dataclass(frozen=True)
class MessageName:
    """Where a message is, or was, on Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


def parse_message_name(text: str) -> MessageName | None:
    """``video-uploads[0]@5`` as coordinates; None if it is no such name."""
    found = _NAME.fullmatch(text)
    return MessageName(found[1], int(found[2]), int(found[3])) if found else None


@dataclass(frozen=True)
class Replay:
    """What the headers of a replayed message say."""

    id: str
    of: MessageName
    video_keys: frozenset[str] = frozenset()
    """Empty: every reference in the message is meant."""

    def means(self, video_key: str) -> bool:
        return not self.video_keys or video_key in self.video_keys

    def headers(self) -> list[tuple[str, bytes]]:
        """As a producer sends them."""
        found = [(ID_HEADER, self.id.encode()), (OF_HEADER, str(self.of).encode())]
        if self.video_keys:
            found.append((VIDEOS_HEADER, ",".join(sorted(self.video_keys)).encode()))
        return found


def parse_replay(
    replay_id: bytes | None, of: bytes | None, video_keys: bytes | None
) -> Replay | None:
    """What the three headers say; None if they are not there, or make no sense."""
    if replay_id is None or of is None:
        return None
    try:
        name = parse_message_name(of.decode("ascii"))
        text = replay_id.decode("ascii")
        keys: Collection[str] = video_keys.decode("ascii").split(",") if video_keys else ()
    except UnicodeDecodeError:
        return None
    if name is None or not _ID.fullmatch(text):
        return None
    return Replay(text, name, frozenset(keys))


def new_replay_id() -> str:
    return secrets.token_hex(16)
