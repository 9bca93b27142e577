"""The closed lists of reasons: why a message, a video or a clip is not a kept clip.

They are column values, metric labels and what people search for, so a reason is never
renamed and never built from input; the details go into the ``error`` column beside it.
"""

from __future__ import annotations

from enum import StrEnum


class RejectedMessageReason(StrEnum):
    """Why a Kafka record did not become a row of ``videos``."""

    EMPTY_MESSAGE = "empty_message"
    MESSAGE_TOO_LARGE = "message_too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    UNKNOWN_SCHEMA_VERSION = "unknown_schema_version"
    MISSING_URI = "missing_uri"
    INVALID_URI = "invalid_uri"
    INVALID_FIELD = "invalid_field"
    NOT_AN_UPLOAD_EVENT = "not_an_upload_event"


class MediaReason(StrEnum):
    """Why a video or a clip could not be read: ``failed_videos`` and ``failed_clips``."""

    URI_NOT_ALLOWED = "uri_not_allowed"
    NOT_FOUND = "not_found"
    FETCH_FAILED = "fetch_failed"
    FETCH_TIMEOUT = "fetch_timeout"
    TOO_LARGE = "too_large"
    SOURCE_CHANGED = "source_changed"
    EMPTY_FILE = "empty_file"
    TRUNCATED = "truncated"
    NOT_A_VIDEO = "not_a_video"
    NO_VIDEO_STREAM = "no_video_stream"
    NO_FRAMES = "no_frames"
    DECODE_ERROR = "decode_error"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
    OUT_OF_MEMORY = "out_of_memory"
    STAGE_ERROR = "stage_error"


class ClipStatus(StrEnum):
    """The verdict on a clip: ``enriched_clips.status``."""

    KEPT = "kept"
    REJECTED = "rejected"
    FAILED = "failed"


class RejectReason(StrEnum):
    """Which gate a clip failed first: ``enriched_clips.reject_reason``."""

    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    UNSAFE = "unsafe"
    LOW_MOTION = "low_motion"
    HIGH_MOTION = "high_motion"
    LOW_AESTHETICS = "low_aesthetics"
    HIGH_AESTHETICS = "high_aesthetics"
    LOW_QUALITY = "low_quality"
