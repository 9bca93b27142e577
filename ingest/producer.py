"""Sends references of videos to the topic; what `cliplake submit` uses.

Each record's key is its video's key, so that messages about one video keep their order. The
producer is idempotent and waits for all replicas: a retry after a lost answer doubles nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from ingest.kafka_client import client_options, explained
from schemas.message import MessageRejected, parse_message, render_message
from schemas.problems import ConfigError, Unreachable
from schemas.replay import Replay
from schemas.settings import Settings

SEND_TIMEOUT_MS = 30_000
"""How long one record may take to be acknowledged before `flush` gives it up."""
METADATA_TIMEOUT_MS = 10_000
"""How long a send may wait for the topic or for room; a missing broker shows up as this."""


class NotAcknowledged(Unreachable):
    """The broker has not acknowledged some of the records that were sent since the last flush."""

    def __init__(self, text: str, failures: Sequence[BaseException]) -> None:
        super().__init__(text)
        self.failures = failures
        """Why, in the order in which they were sent."""

    @property
    def too_large(self) -> bool:
        """Whether one of them is more than the topic takes: trying again would not help.

        An idempotent client of kafka-python sends nothing more after that.
        """
        return any(isinstance(e, MessageSizeTooLargeError) for e in self.failures)


class RecordTooLarge(ConfigError):
    """A record that this client sends to no broker (``max.request.size``)."""


class Producer:
    """A connection to the topic; `ConfigError` within about ten seconds if no broker answers."""

    def __init__(self, settings: Settings) -> None:
        self._kafka = settings.kafka
        self._pending: list[Any] = []
        self.sent = 0
        """Records that were acknowledged."""
        options = {
            "linger_ms": 5,
            "delivery_timeout_ms": SEND_TIMEOUT_MS,
            "request_timeout_ms": SEND_TIMEOUT_MS // 2,
            "max_block_ms": METADATA_TIMEOUT_MS,
            **client_options(self._kafka, "producer"),
            # These are a promise, not a preference.
            "acks": "all",
            "enable_idempotence": True,
            "allow_auto_create_topics": False,
        }
        with explained(self._kafka):
            self._client = KafkaProducer(**options)

    def send(
        self,
        uri: str,
        *,
        video_id: str | None = None,
        etag: str | None = None,
        source: str | None = None,
        uploaded_at: datetime | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> str:
        """Queue a reference; returns its video_key. `ConfigError` if our reader would refuse it."""
        try:
            payload = render_message(
                uri,
                video_id=video_id,
                etag=etag,
                source=source,
                uploaded_at=uploaded_at,
                attributes=dict(attributes) if attributes else None,
            )
            key = parse_message(payload)[0].video_key
        except MessageRejected as error:
            raise ConfigError(f"{uri}: {error.error}") from None
        self._send(payload, key.encode())
        return key

    def send_raw(
        self,
        payload: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Queue a record's value as it is, valid or not; `RecordTooLarge` says how large."""
        # kafka-python refuses a record that has neither key nor value.
        key = b"" if payload is None and key is None else key
        self._send(payload, key, headers=list(headers))

    def send_again(self, payload: bytes | None, replay: Replay) -> None:
        """Queue a replay of a message, on the partition that it was on.

        There its offset is higher than that of whatever came of the message before, and so its
        rows are the newer ones.
        """
        key = b"" if payload is None else None
        self._send(payload, key, partition=replay.of.partition, headers=replay.headers())

    def flush(self) -> None:
        """Wait until every queued record is acknowledged; `NotAcknowledged` says how many were not.

        Those that were are counted in `sent` all the same.
        """
        with explained(self._kafka), suppress(KafkaTimeoutError):
            self._client.flush(timeout=SEND_TIMEOUT_MS / 1000 + 5)
        pending, self._pending = self._pending, []
        failures = [
            future.exception or KafkaTimeoutError("no answer")
            for future in pending
            if not future.succeeded()
        ]
        self.sent += len(pending) - len(failures)
        if failures:
            raise NotAcknowledged(
                f"Kafka at {self._kafka.bootstrap_servers}, topic {self._kafka.topic}: "
                f"{len(failures):,} of {len(pending):,} records were not acknowledged, the first "
                f"for {failures[0]}; is the broker running and kafka.client in "
                "the settings right?",
                failures,
            )

    def close(self) -> None:
        """Flush and disconnect."""
        try:
            if self._pending:
                self.flush()
        finally:
            self._client.close(timeout=5)

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, payload: bytes | None, key: bytes | None, **more: Any) -> None:
        try:
            with explained(self._kafka):
                sent = self._client.send(self._kafka.topic, value=payload, key=key, **more)
        except Unreachable as error:
            if isinstance(error.__cause__, MessageSizeTooLargeError):
                raise RecordTooLarge(f"topic {self._kafka.topic}: {error.__cause__}") from error
            raise
        self._pending.append(sent)
        if len(self._pending) >= 10_000:
            self.flush()
