"""Each record of the topic becomes rows, whatever is in it; none stops the job."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from ingest.validation import parsed_rows
from schemas.ids import default_video_id, video_key
from schemas.message import render_message
from schemas.replay import MessageName, Replay

URI = "file:///videos/a.mp4"
KEY = video_key(default_video_id(URI), URI)


def test_a_reference_becomes_one_row() -> None:
    moment = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
    payload = render_message(URI, source="studio", uploaded_at=moment, attributes={"a": "b"})
    (row,) = parsed_rows(payload)
    assert row.video_key == KEY
    assert row.uri == URI
    assert row.source == "studio"
    assert row.uploaded_at_ms == round(moment.timestamp() * 1000)
    assert row.attributes == {"a": "b"}
    assert row.reason is None
    assert not row.is_known


def test_a_video_from_before_the_state_began_is_known() -> None:
    (row,) = parsed_rows(render_message(URI), {KEY})
    assert row.is_known


def test_an_event_with_several_objects_becomes_a_row_each() -> None:
    record = {
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "b"}, "object": {"key": "one.mp4", "eTag": "e"}},
    }
    second = json.loads(json.dumps(record).replace("one.mp4", "two.mp4"))
    rows = list(parsed_rows(json.dumps({"Records": [record, second]}).encode()))
    assert [(row.record_index, row.uri) for row in rows] == [
        (0, "s3://b/one.mp4"),
        (1, "s3://b/two.mp4"),
    ]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "empty_message"),
        (b"junk", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b"{}", "unknown_schema_version"),
        (b'{"schema_version": 1}', "missing_uri"),
        (b'{"schema_version": 1, "uri": "\\ud800"}', "invalid_field"),
    ],
)
def test_anything_else_becomes_one_row_with_its_reason(payload: bytes | None, reason: str) -> None:
    (row,) = parsed_rows(payload)
    assert row.reason == reason
    assert row.error
    assert row.video_key is None
    # What goes to the table must be UTF-8, whatever the message was.
    assert row.error.encode("utf-8")


REPLAY = Replay("0" * 32, MessageName("t", 2, 7))


def test_a_replay_is_said_with_each_reference_that_it_means() -> None:
    (row,) = parsed_rows(render_message(URI), replay=REPLAY)
    assert row.replay_id == REPLAY.id
    assert (row.letter_topic, row.letter_partition, row.letter_offset) == ("t", 2, 7)
    other = Replay(REPLAY.id, REPLAY.of, frozenset({"another video"}))
    (row,) = parsed_rows(render_message(URI), replay=other)
    assert row.replay_id is None


def test_a_replay_that_is_rejected_again_names_its_letter() -> None:
    (row,) = parsed_rows(b"junk", replay=REPLAY)
    assert row.reason == "not_json"
    assert (row.letter_topic, row.letter_partition, row.letter_offset) == ("t", 2, 7)
    (row,) = parsed_rows(b"junk")
    assert row.letter_topic is None
