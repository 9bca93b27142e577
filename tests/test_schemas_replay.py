"""Headers of a replay say what they said, and headers that make no sense say nothing."""

from __future__ import annotations

import pytest

from schemas.replay import MessageName, Replay, new_replay_id, parse_message_name, parse_replay

NAME = MessageName("video-uploads", 3, 41)
ID = "0123456789abcdef" * 2


def parsed(replay: Replay) -> Replay | None:
    headers = dict(replay.headers())
    names = ("cliplake-replay-id", "cliplake-replay-of", "cliplake-replay-videos")
    return parse_replay(*(headers.get(name) for name in names))


@pytest.mark.parametrize("keys", [frozenset(), frozenset({"a" * 32}), frozenset({"b", "c"})])
def test_headers_come_back_as_they_were_sent(keys: frozenset[str]) -> None:
    replay = Replay(new_replay_id(), NAME, keys)
    assert parsed(replay) == replay


def test_a_replay_of_some_videos_means_no_other() -> None:
    assert Replay(ID, NAME).means("any")
    assert Replay(ID, NAME, frozenset({"a"})).means("a")
    assert not Replay(ID, NAME, frozenset({"a"})).means("b")


@pytest.mark.parametrize(
    ("replay_id", "of"),
    [
        (None, b"t[0]@1"),
        (ID.encode(), None),
        (b"short", b"t[0]@1"),
        (b"\xff" * 32, b"t[0]@1"),
        (ID.encode(), b"t[0]@-1"),
        (ID.encode(), b"t[0]@99999999999999999999"),
        (ID.encode(), b"a b[0]@1"),
        (ID.encode(), b"\xff"),
    ],
)
def test_what_makes_no_sense_is_no_replay(replay_id: bytes | None, of: bytes | None) -> None:
    assert parse_replay(replay_id, of, None) is None


def test_a_message_is_named_by_where_it_is() -> None:
    assert str(NAME) == "video-uploads[3]@41"
    assert parse_message_name("video-uploads[3]@41") == NAME
    assert parse_message_name("video-uploads[3]") is None
