"""The message on the topic: what a producer may send, and what it becomes.

Two shapes are accepted: our own JSON object (`schema_version` 1), and the event notifications
that S3-compatible object stores publish to Kafka. A message is taken whole or rejected whole.
Whatever is in it is hostile until it has passed here: the result holds only what was checked.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, unquote_plus, urlsplit

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.ids import default_video_id, video_key
from schemas.reasons import RejectedMessageReason as Reason
from schemas.text import printable

MAX_MESSAGE_BYTES = 1_048_576
"""Kafka's own default limit of a message; a topic that allows more still gets it rejected."""
MAX_URI_CHARS = 4096
MAX_ID_CHARS = 512
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_CHARS = 4096
URI_SCHEMES = ("file", "s3", "https", "http")
"""Schemes that mean something to us; which of them are fetched is a setting."""

_REFUSED = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Controls, surrogates, separators of lines and paragraphs; of Unicode's general categories."""
_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""What turns the direction of the text around it: Unicode's Standard Annex 9."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_PLAIN_URI = re.compile(r"(?:s3|https?)://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._~%/+=-][!-~]*")
"""URIs as most are: `_check_uri` has no objection to any of these, and takes longer to see it."""
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TIME = TypeAdapter(datetime)
_S3_CREATED_PREFIXES = ("ObjectCreated:", "s3:ObjectCreated:")


class MessageRejected(Exception):
    """A message that is not a valid reference; ``reason`` is from the closed list."""

    def __init__(self, reason: Reason, error: str) -> None:
        # The error quotes the message, and goes to logs, terminals and a UTF-8 column.
        error = printable(error)
        super().__init__(f"{reason}: {error}")
        self.reason = reason
        self.error = error


_Id = Annotated[str, Field(max_length=MAX_ID_CHARS)]
_NonEmptyId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]


class UploadMessage(BaseModel):
    """Our own message, version 1. Unknown keys are refused: a typo would lose what it meant.

    Only what pydantic checks without calling Python, which is slower than all the rest of it:
    characters and the time are checked afterwards.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: Literal[1]
    uri: Annotated[str, Field(max_length=MAX_URI_CHARS)]
    video_id: _NonEmptyId | None = None
    etag: _NonEmptyId | None = None
    source: _Id | None = None
    uploaded_at: Annotated[str, Field(max_length=MAX_ID_CHARS)] | None = None
    attributes: (
        Annotated[
            dict[_Id, Annotated[str, Field(max_length=MAX_ATTRIBUTE_CHARS)]],
            Field(max_length=MAX_ATTRIBUTES),
        ]
        | None
    ) = None


class VideoReference(NamedTuple):
    """One video that a message named, checked, with its key."""

    video_key: str
    video_id: str
    uri: str
    etag: str | None = None
    source: str | None = None
    uploaded_at: datetime | None = None
    attributes: dict[str, str] | None = None
    record_index: int = 0


def parse_message(payload: bytes | None) -> list[VideoReference]:
    """The references in one Kafka record's value, at least one; `MessageRejected` otherwise."""
    text = _decode(payload)
    document = _object(text)
    # No string in it can then hold what is refused: there are no escapes, and none is printable.
    is_plain = text.isprintable() and "\\" not in text
    if "Records" in document or "Event" in document or "EventName" in document:
        return _from_s3_event(document, is_plain)
    if "schema_version" not in document:
        raise MessageRejected(
            Reason.UNKNOWN_SCHEMA_VERSION, 'schema_version is missing; add "schema_version": 1'
        )
    version = document["schema_version"]
    if version != 1 or isinstance(version, bool) or not isinstance(version, int):
        raise MessageRejected(
            Reason.UNKNOWN_SCHEMA_VERSION,
            f"schema_version is {_short(version)}, and this version reads 1",
        )
    uri = document.get("uri")
    if uri is None:
        raise MessageRejected(Reason.MISSING_URI, "uri is missing")
    if isinstance(uri, str) and not uri.strip():
        raise MessageRejected(Reason.MISSING_URI, "uri is empty")
    return [_reference(document, index=0, is_plain=is_plain)]


def render_message(
    uri: str,
    *,
    video_id: str | None = None,
    etag: str | None = None,
    source: str | None = None,
    uploaded_at: datetime | None = None,
    attributes: dict[str, str] | None = None,
) -> bytes:
    """The bytes to send for a reference; `MessageRejected` if our own reader would refuse them."""
    document: dict[str, Any] = {"schema_version": 1, "uri": uri}
    optional: dict[str, Any] = {
        "video_id": video_id,
        "etag": etag,
        "source": source,
        "uploaded_at": uploaded_at.isoformat() if uploaded_at else None,
        "attributes": attributes,
    }
    document.update({key: value for key, value in optional.items() if value is not None})
    payload = json.dumps(document, ensure_ascii=False).encode("utf-8", errors="surrogatepass")
    parse_message(payload)
    return payload


def _decode(payload: bytes | None) -> str:
    if payload is None or not payload.strip():
        raise MessageRejected(Reason.EMPTY_MESSAGE, "the message is empty")
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageRejected(
            Reason.MESSAGE_TOO_LARGE,
            f"the message has {len(payload)} bytes, and at most {MAX_MESSAGE_BYTES} are allowed",
        )
    try:
        # A byte order mark is not part of JSON, but some producers' libraries write one.
        return payload.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise MessageRejected(
            Reason.NOT_UTF8, f"byte {payload[error.start]:#04x} at {error.start} is not UTF-8"
        ) from None


def _object(text: str) -> dict[str, Any]:
    try:
        document = _JSON.decode(text)
    except MessageRejected:
        raise
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MessageRejected(Reason.NOT_JSON, f"not JSON: {problem}") from None
    if not isinstance(document, dict):
        raise MessageRejected(
            Reason.NOT_AN_OBJECT, f"a JSON object was expected, and this is {_short(document)}"
        )
    return document


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise MessageRejected(Reason.INVALID_FIELD, f"key {twice[:80]!r} is there twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise MessageRejected(Reason.NOT_JSON, f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_object_without_repeats, parse_constant=_refuse_constant)
"""Made once: making one takes as long as decoding a message."""


def _from_s3_event(document: dict[str, Any], is_plain: bool) -> list[VideoReference]:
    """S3 event notifications: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html"""
    records = document.get("Records")
    if not isinstance(records, list) or not records:
        raise MessageRejected(
            Reason.NOT_AN_UPLOAD_EVENT,
            f"an S3 event without records: {_short(document.get('Event', records))}",
        )
    return [_from_s3_record(record, index, is_plain) for index, record in enumerate(records)]


def _from_s3_record(record: object, index: int, is_plain: bool) -> VideoReference:
    where = f"Records[{index}]"
    if not isinstance(record, dict):
        raise MessageRejected(Reason.INVALID_FIELD, f"{where} is not an object")
    event = record.get("eventName")
    if not isinstance(event, str) or not event.startswith(_S3_CREATED_PREFIXES):
        raise MessageRejected(
            Reason.NOT_AN_UPLOAD_EVENT, f"{where}.eventName is {_short(event)}: nothing was created"
        )
    try:
        bucket, entry = record["s3"]["bucket"]["name"], record["s3"]["object"]
        key, etag, version = entry["key"], entry.get("eTag"), entry.get("versionId")
    except (KeyError, TypeError, AttributeError):
        raise MessageRejected(
            Reason.INVALID_FIELD, f"{where}.s3.bucket.name or s3.object.key is missing"
        ) from None
    if not isinstance(bucket, str) or not isinstance(key, str) or not bucket or not key:
        raise MessageRejected(Reason.MISSING_URI, f"{where} has an empty bucket or key")
    if not _BUCKET.fullmatch(bucket):
        raise MessageRejected(Reason.INVALID_URI, f"{where}: {_short(bucket)} names no bucket")
    try:
        # Keys come form-encoded (a space as '+'); a URI wants them percent-encoded.
        uri = f"s3://{bucket}/{quote(unquote_plus(key, errors='strict'))}"
    except UnicodeError:
        raise MessageRejected(
            Reason.INVALID_URI, f"{where}: key {_short(key)} is not UTF-8"
        ) from None
    document = {
        "schema_version": 1,
        "uri": uri,
        # Stores without versions send "null" or nothing.
        "etag": version if version and version != "null" else etag or None,
        "source": record.get("eventSource"),
        "uploaded_at": record.get("eventTime"),
    }
    return _reference(document, index, is_plain, where=f"{where}: ")


def _reference(
    document: dict[str, Any], index: int, is_plain: bool, where: str = ""
) -> VideoReference:
    try:
        message = UploadMessage.model_validate(document)
        uploaded_at = None if message.uploaded_at is None else _time(message.uploaded_at)
        if not is_plain:
            _check_characters(message)
    except ValidationError as error:
        raise MessageRejected(Reason.INVALID_FIELD, where + _first_problem(error)) from None
    except ValueError as error:
        raise MessageRejected(Reason.INVALID_FIELD, where + str(error)) from None
    _check_uri(message.uri)
    video_id = message.video_id or default_video_id(message.uri)
    return VideoReference(
        video_key=video_key(video_id, message.uri, message.etag),
        video_id=video_id,
        uri=message.uri,
        etag=message.etag,
        source=message.source,
        uploaded_at=uploaded_at,
        attributes=message.attributes,
        record_index=index,
    )


def _time(text: str) -> datetime:
    # pydantic would take a number in a string for seconds, or milliseconds, since 1970.
    if not _DATE.match(text):
        raise ValueError("uploaded_at: should be an ISO 8601 time, like 2026-01-31T12:00:00Z")
    try:
        time: datetime = _TIME.validator.validate_python(text)
    except ValidationError as error:
        raise ValueError(f"uploaded_at: {error.errors()[0]['msg']}") from None
    if time.tzinfo is None:
        raise ValueError("uploaded_at: has no time zone: write it like 2026-01-31T12:00:00Z")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError("uploaded_at: is out of range") from None


def _no_control_characters(field: str, value: str) -> None:
    """Refuse what would break a log line, a terminal or a C string, or show as other text than it
    is (bidirectional controls). Lone surrogates are no strings to pydantic."""
    if value.isprintable():
        return  # none of what is refused is printable; most texts are
    for position, char in enumerate(value):
        if unicodedata.category(char) in _REFUSED or unicodedata.bidirectional(char) in _TURNING:
            raise ValueError(f"{field}: character U+{ord(char):04X} at {position} is not allowed")


def _check_characters(message: UploadMessage) -> None:
    for field in ("uri", "video_id", "etag", "source"):
        _no_control_characters(field, getattr(message, field) or "")
    for key in message.attributes or {}:
        # Line breaks are fine in a description, so the values may hold what keys may not.
        _no_control_characters("attributes", key)


def _check_uri(uri: str) -> None:
    if _PLAIN_URI.fullmatch(uri):
        return
    if uri != uri.strip():
        # Readers of URIs differ in whether they strip it, so they would differ in what it names.
        raise MessageRejected(Reason.INVALID_URI, "uri begins or ends with white space")
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError as error:
        raise MessageRejected(Reason.INVALID_URI, f"uri cannot be read: {error}") from None
    if parts.scheme not in URI_SCHEMES:
        raise MessageRejected(
            Reason.INVALID_URI,
            f"uri has the scheme {parts.scheme or 'none'}, and one of "
            f"{', '.join(URI_SCHEMES)} was expected",
        )
    if parts.username is not None or parts.password is not None:
        raise MessageRejected(Reason.INVALID_URI, "uri carries credentials; they belong elsewhere")
    if parts.scheme == "file" and (
        parts.netloc not in ("", "localhost") or parts.path in ("", "/")
    ):
        raise MessageRejected(Reason.INVALID_URI, "a file uri looks like file:///folder/name.mp4")
    if parts.scheme != "file" and (not parts.hostname or parts.path in ("", "/")):
        raise MessageRejected(Reason.INVALID_URI, "uri names no object: host or path is missing")


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:80] for part in first["loc"]) or "message"
    if first["type"] == "extra_forbidden":
        known = ", ".join(UploadMessage.model_fields)
        return f"unknown key {where!r}; known ones are {known}"
    return f"{where}: {first['msg']}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
