"""Identifiers that come out the same on every replay.

Every id is a SHA-256 over its parts, each preceded by its length so that no two different
lists of parts can join to the same bytes. Ids are 128 bits, written as 32 hex characters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

ID_HEX_CHARS = 32
FINGERPRINT_HEX_CHARS = 16


def _digest(*parts: str) -> str:
    pieces: list[bytes] = []
    for part in parts:
        raw = part.encode("utf-8")
        pieces += (len(raw).to_bytes(8, "big"), raw)
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def default_video_id(uri: str) -> str:
    """The id of a video whose producer gave none: a hash of its URI."""
    return _digest("video_id", uri)[:ID_HEX_CHARS]


def video_key(video_id: str, uri: str, etag: str | None = None) -> str:
    """The key of one upload: the same id with another URI or etag is another video."""
    parts = ["video_key", video_id, uri]
    if etag is not None:
        parts.append(etag)
    return _digest(*parts)[:ID_HEX_CHARS]


def clip_id(
    video_key: str, splitter_fingerprint: str, start_pts: int, end_pts: int, time_base: str
) -> str:
    """The key of one clip, ``[start_pts, end_pts)`` in units of ``time_base`` (``"1/12800"``)."""
    return _digest(
        "clip_id", video_key, splitter_fingerprint, str(start_pts), str(end_pts), time_base
    )[:ID_HEX_CHARS]


def fingerprint(parameters: Mapping[str, Any]) -> str:
    """A short hash of parameters; equal parameters in any order give equal fingerprints."""
    canonical = json.dumps(parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return _digest("fingerprint", canonical)[:FINGERPRINT_HEX_CHARS]
