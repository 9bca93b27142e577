"""What a producer may send, what it becomes, and that nothing hostile gets further."""

from __future__ import annotations

import itertools
import json
import re
import sys
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.message import (
    MAX_MESSAGE_BYTES,
    MessageRejected,
    parse_message,
    render_message,
)
from schemas.reasons import RejectedMessageReason as Reason


def payload(**fields: Any) -> bytes:
    return json.dumps({"schema_version": 1, "uri": "file:///videos/a.mp4", **fields}).encode()


def rejected(raw: bytes | None) -> MessageRejected:
    with pytest.raises(MessageRejected) as caught:
        parse_message(raw)
    # The error goes to a log, a terminal and a UTF-8 column: it must survive all three.
    assert caught.value.error.encode("utf-8").decode().isprintable()
    assert len(caught.value.error) < 1000
    return caught.value


def test_a_minimal_message_is_one_reference_with_a_key_of_its_own() -> None:
    (reference,) = parse_message(payload())
    assert reference.uri == "file:///videos/a.mp4"
    assert len(reference.video_id) == len(reference.video_key) == 32
    assert reference.video_id != reference.video_key
    assert reference.record_index == 0
    assert reference.etag is reference.source is reference.uploaded_at is None


def test_every_optional_field_arrives_and_times_become_utc() -> None:
    (reference,) = parse_message(
        payload(
            video_id="v1",
            etag="e",
            source="phone",
            uploaded_at="2026-01-31T13:00:00+01:00",
            attributes={"title": "two\nlines"},
        )
    )
    assert reference.video_id == "v1"
    assert reference.uploaded_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert reference.attributes == {"title": "two\nlines"}


@pytest.mark.parametrize(
    "other", [{"video_id": "w"}, {"etag": "e"}, {"uri": "file:///videos/b.mp4"}]
)
def test_another_id_etag_or_uri_is_another_video(other: dict[str, str]) -> None:
    (first,) = parse_message(payload(video_id="v"))
    (second,) = parse_message(payload(**{"video_id": "v", **other}))
    assert first.video_key != second.video_key


def test_what_says_where_a_video_comes_from_does_not_change_its_key() -> None:
    (first,) = parse_message(payload())
    (second,) = parse_message(payload(source="tv", attributes={"a": "b"}))
    assert first.video_key == second.video_key


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, Reason.EMPTY_MESSAGE),
        (b"", Reason.EMPTY_MESSAGE),
        (b" \n", Reason.EMPTY_MESSAGE),
        (b"\xff\xfe{}", Reason.NOT_UTF8),
        (b"hello", Reason.NOT_JSON),
        (b'{"schema_version": 1,', Reason.NOT_JSON),
        (b'{"schema_version": NaN}', Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b'{"a":' * 100_000, Reason.NOT_JSON),
        (b'{"schema_version": ' + b"9" * 10_000 + b"}", Reason.NOT_JSON),
        (b"[]", Reason.NOT_AN_OBJECT),
        (b'"file:///a.mp4"', Reason.NOT_AN_OBJECT),
        (b"null", Reason.NOT_AN_OBJECT),
        (b'{"uri": "file:///a.mp4"}', Reason.UNKNOWN_SCHEMA_VERSION),
        (b'{"schema_version": 1}', Reason.MISSING_URI),
        (b'{"schema_version": 1, "schema_version": 2}', Reason.INVALID_FIELD),
        (b"x" * (MAX_MESSAGE_BYTES + 1), Reason.MESSAGE_TOO_LARGE),
    ],
)
def test_what_is_no_message_is_rejected_with_its_reason(raw: bytes | None, reason: Reason) -> None:
    assert rejected(raw).reason is reason


@pytest.mark.parametrize("version", [2, 0, "1", 1.0, True, None, [1], {"a": 1}])
def test_another_schema_version_is_rejected(version: object) -> None:
    assert rejected(payload(schema_version=version)).reason is Reason.UNKNOWN_SCHEMA_VERSION


@pytest.mark.parametrize("uri", ["", "  ", "\t"])
def test_an_empty_uri_is_missing(uri: str) -> None:
    assert rejected(payload(uri=uri)).reason is Reason.MISSING_URI


@pytest.mark.parametrize(
    "uri",
    [
        "/videos/a.mp4",
        "a.mp4",
        "ftp://host/a.mp4",
        "rtmp://host/a",
        "concat:file:///a|file:///b",
        "data:video/mp4;base64,AA",
        "file://host/a.mp4",
        "file:///",
        "file:",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "https://host",
        "https://user:secret@host/a.mp4",
        "https://user@host/a.mp4",
        "https://host:99999/a.mp4",
        "https://[::1/a.mp4",
        " file:///videos/a.mp4",
        "file:///videos/a.mp4 ",
    ],
)
def test_a_uri_that_names_nothing_we_could_fetch_is_invalid(uri: str) -> None:
    problem = rejected(payload(uri=uri))
    assert problem.reason is Reason.INVALID_URI
    assert "secret" not in problem.error


@pytest.mark.parametrize(
    "fields",
    [
        {"uri": 5},
        {"uri": ["file:///a"]},
        {"uri": "file:///a\x00.mp4"},
        {"uri": "file:///a\n.mp4"},
        {"uri": "file:///\ud800.mp4"},
        {"uri": "file:///" + "a" * 5000},
        {"video_id": ""},
        {"video_id": 7},
        {"video_id": "v" * 513},
        {"etag": "\x1b[2J"},
        {"source": {"a": 1}},
        {"uploaded_at": "yesterday"},
        {"uploaded_at": "2026-01-31T12:00:00"},
        {"uploaded_at": "1769860800"},
        {"uploaded_at": "-1.5e9"},
        {"uploaded_at": 1769860800},
        {"uploaded_at": True},
        {"uploaded_at": "0001-01-01T00:00:00+23:00"},
        {"attributes": []},
        {"attributes": {"a": 1}},
        {"attributes": {"a": None}},
        {"attributes": {"a": {"b": "c"}}},
        {"attributes": {"\ud800": "x"}},
        {"attributes": {"\ud800": 1}},
        {"attributes": {"\x1b[2J": 1}},
        {"attributes": {"a": "\udfff"}},
        {"attributes": {str(i): "x" for i in range(65)}},
        {"attributes": {"a": "x" * 5000}},
        {"attributes": {"k" * 600: "x"}},
        {"Uri": "file:///a"},
        {"\ud800": 1},
        {"\x1b[2J": 1},
        {"k" * 5000: 1},
    ],
)
def test_a_field_that_is_not_as_it_should_be_is_named(fields: dict[str, Any]) -> None:
    assert rejected(payload(**fields)).reason is Reason.INVALID_FIELD


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    problem = rejected(payload(vidoe_id="x"))
    assert "'vidoe_id'" in problem.error
    assert "video_id" in problem.error.replace("'vidoe_id'", "")


def test_a_repeated_key_among_very_many_is_found_without_quadratic_work() -> None:
    keys = ",".join(f'"{i}":0' for i in range(90_000))
    problem = rejected(f'{{{keys},"89999":1}}'.encode())
    assert "'89999'" in problem.error


def test_a_byte_order_mark_is_let_through() -> None:
    assert parse_message(b"\xef\xbb\xbf" + payload())[0].uri == "file:///videos/a.mp4"


def test_what_is_rendered_is_what_is_read() -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    raw = render_message(
        "s3://bucket/ключ.mp4", video_id="v", source="s", uploaded_at=moment, attributes={"a": "b"}
    )
    (reference,) = parse_message(raw)
    assert reference.uri == "s3://bucket/ключ.mp4"
    assert reference.uploaded_at == moment


@pytest.mark.parametrize("uri", ["a.mp4", "file:///\ud800", ""])
def test_what_would_be_rejected_is_not_rendered(uri: str) -> None:
    with pytest.raises(MessageRejected):
        render_message(uri)


# Event notifications of object stores.


def s3_record(**changes: Any) -> dict[str, Any]:
    """One record as AWS documents its notification, version 2.2."""
    record: dict[str, Any] = {
        "eventVersion": "2.2",
        "eventSource": "aws:s3",
        "awsRegion": "eu-central-1",
        "eventTime": "2026-01-31T12:00:00.123Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AIDA"},
        "requestParameters": {"sourceIPAddress": "192.0.2.1"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "uploads",
            "bucket": {
                "name": "videos",
                "ownerIdentity": {"principalId": "A3NL"},
                "arn": "arn:aws:s3:::videos",
            },
            "object": {
                "key": "2026/my+first%2Bclip.mp4",
                "size": 1024,
                "eTag": "d41d8cd98f00b204e9800998ecf8427e",
                "sequencer": "0055AED6DCD90281E5",
            },
        },
    }
    return {**record, **changes}


def s3_event(*records: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({**more, "Records": list(records)}).encode()


def test_an_aws_notification_is_a_reference_with_its_key_decoded_once() -> None:
    (reference,) = parse_message(s3_event(s3_record()))
    assert reference.uri == "s3://videos/2026/my%20first%2Bclip.mp4"
    assert reference.etag == "d41d8cd98f00b204e9800998ecf8427e"
    assert reference.source == "aws:s3"
    assert reference.uploaded_at == datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)


def test_a_minio_notification_is_a_reference() -> None:
    record = s3_record(
        eventSource="minio:s3",
        eventName="s3:ObjectCreated:CompleteMultipartUpload",
        source={"host": "10.0.0.1", "port": "", "userAgent": "MinIO (linux; amd64)"},
    )
    record["s3"]["object"] |= {
        "contentType": "video/mp4",
        "userMetadata": {"content-type": "video/mp4"},
        "versionId": "null",
    }
    raw = s3_event(
        record,
        EventName="s3:ObjectCreated:CompleteMultipartUpload",
        Key="videos/2026/my first+clip.mp4",
    )
    (reference,) = parse_message(raw)
    assert reference.uri == "s3://videos/2026/my%20first%2Bclip.mp4"
    assert reference.etag == "d41d8cd98f00b204e9800998ecf8427e"
    assert reference.source == "minio:s3"


def test_a_version_of_the_object_identifies_the_upload_better_than_its_hash() -> None:
    record = s3_record()
    record["s3"]["object"]["versionId"] = "096fKKXTRTtl3on89fVO.nfljtsv6qko"
    (reference,) = parse_message(s3_event(record))
    assert reference.etag == "096fKKXTRTtl3on89fVO.nfljtsv6qko"


def test_every_record_of_an_event_is_a_reference_in_order() -> None:
    second = s3_record()
    second["s3"] = {"bucket": {"name": "videos"}, "object": {"key": "b.mp4"}}
    references = parse_message(s3_event(s3_record(), second))
    assert [reference.record_index for reference in references] == [0, 1]
    assert references[1].uri == "s3://videos/b.mp4"
    assert references[1].etag is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        # What AWS sends once when a notification is configured.
        (
            b'{"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "videos"}',
            Reason.NOT_AN_UPLOAD_EVENT,
        ),
        (s3_event(), Reason.NOT_AN_UPLOAD_EVENT),
        (b'{"Records": {}}', Reason.NOT_AN_UPLOAD_EVENT),
        (b'{"Records": [1]}', Reason.INVALID_FIELD),
        (s3_event(s3_record(eventName="ObjectRemoved:Delete")), Reason.NOT_AN_UPLOAD_EVENT),
        (s3_event(s3_record(eventName=None)), Reason.NOT_AN_UPLOAD_EVENT),
        (s3_event(s3_record(s3={})), Reason.INVALID_FIELD),
        (s3_event(s3_record(s3="x")), Reason.INVALID_FIELD),
        (s3_event(s3_record(s3={"bucket": {"name": "b"}, "object": "k"})), Reason.INVALID_FIELD),
        (
            s3_event(s3_record(s3={"bucket": {"name": ""}, "object": {"key": "k"}})),
            Reason.MISSING_URI,
        ),
        (
            s3_event(s3_record(s3={"bucket": {"name": "b"}, "object": {"key": 5}})),
            Reason.MISSING_URI,
        ),
        (
            s3_event(s3_record(s3={"bucket": {"name": "a/../b"}, "object": {"key": "k"}})),
            Reason.INVALID_URI,
        ),
        (
            s3_event(s3_record(s3={"bucket": {"name": "me:pw@b"}, "object": {"key": "k"}})),
            Reason.INVALID_URI,
        ),
        (
            s3_event(s3_record(s3={"bucket": {"name": "b"}, "object": {"key": "%FF"}})),
            Reason.INVALID_URI,
        ),
        (
            s3_event(s3_record(s3={"bucket": {"name": "b"}, "object": {"key": "k", "eTag": 5}})),
            Reason.INVALID_FIELD,
        ),
        (s3_event(s3_record(eventTime="noon")), Reason.INVALID_FIELD),
        # One good record does not carry a bad one in.
        (s3_event(s3_record(), s3_record(s3={})), Reason.INVALID_FIELD),
    ],
)
def test_an_event_that_is_no_upload_is_rejected_with_its_reason(raw: bytes, reason: Reason) -> None:
    assert rejected(raw).reason is reason


def test_an_error_in_an_event_says_which_record() -> None:
    assert "Records[1]" in rejected(s3_event(s3_record(), s3_record(s3={}))).error


URI_PARTS = (
    ("s3://", "https://", "http://", "file://", "ftp://", "S3://", "s3:/", "//", ""),
    ("uploads", "up.lo-ads_1", "", "a:80", "a:x", "u:p@a", "[::1]", "[", "ä", ".", "-a"),
    ("/a.mp4", "/", "", "//", "/?x", "/#x", "/a?b=c#d", "/%20", "/a b", "/ä", "?a", "/=", "/a@b"),
)


def test_a_uri_that_is_recognised_at_once_has_the_verdict_of_one_that_is_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uris = ["".join(parts) for parts in itertools.product(*URI_PARTS)]
    at_once = [verdict(uri) for uri in uris]
    monkeypatch.setattr("schemas.message._PLAIN_URI", re.compile(r"(?!)"))
    assert at_once == [verdict(uri) for uri in uris]


def verdict(uri: str) -> str | None:
    try:
        parse_message(json.dumps({"schema_version": 1, "uri": uri}).encode())
    except MessageRejected as rejected:
        return rejected.error
    return None


def test_no_character_that_is_refused_is_printable() -> None:
    refused = {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for number in range(sys.maxunicode + 1):
        char = chr(number)
        if unicodedata.category(char) in refused or unicodedata.bidirectional(char) in turning:
            assert not char.isprintable()
