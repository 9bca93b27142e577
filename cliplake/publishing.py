"""Publishes dead letters to a topic of their own, each at least once.

The broker has a letter before the position moves past it. While the broker or the lake's store
is out nothing moves, and it goes on from there.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
from collections.abc import Sequence

from ingest.producer import NotAcknowledged, Producer, RecordTooLarge
from ingest.topic import create_topic
from processors.pool.lake import Lake
from processors.pool.letter_positions import LetterPositions, way_out
from processors.pool.letters import LetterSource
from processors.pool.lock import only_letter_publisher
from processors.pool.metrics import LetterMetrics
from schemas.letter import Letter
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings

LOOK_EVERY_S = 1.0
"""Pause between looks for new letters: two small reads a table each."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""After a fault of the broker or of the lake's store; doubling, with jitter."""

logger = logging.getLogger(__name__)


class Publisher:
    """Build it with settings that name ``kafka.dead_letter_topic``, then `run` it."""

    def __init__(self, settings: Settings) -> None:
        topic = settings.kafka.dead_letter_topic
        if not topic:
            raise ConfigError(
                "kafka.dead_letter_topic in the settings is empty: name the topic for dead letters"
            )
        self._settings = settings
        # Everything that sends to a topic takes it from there.
        kafka = settings.kafka.model_copy(update={"topic": topic})
        self._to_topic = settings.model_copy(update={"kafka": kafka})
        self._metrics = LetterMetrics()
        self._stop = threading.Event()
        self._faults = 0
        self._most_bytes = sys.maxsize
        """Of a message, as far as is known: the topic has a limit of its own."""

    def stop(self) -> None:
        """Make `run` return; from a signal handler or another thread."""
        self._stop.set()

    def run(self) -> None:
        """Publish until told to stop.

        `SourceLost` if a table was expired, replaced or made anew before it was read;
        `AlreadyRunning` if another process does the same; `ConfigError` for options, topic and
        tables.
        """
        metrics = self._metrics
        with only_letter_publisher(self._settings), metrics.served(self._settings.metrics):
            while not self._stop.is_set():
                try:
                    self._publish()
                except _TooLarge as found:
                    self._most_bytes = found.size - 1
                    logger.warning("messages of %d bytes are too large for the topic", found.size)
                except FileNotFoundError:
                    # Damage to the lake, which no waiting mends.
                    raise
                except (Unreachable, OSError) as error:
                    self._faults += 1
                    metrics.failures.inc()
                    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(self._faults - 1, 10))
                    wait = longest * random.uniform(0.5, 1.0)
                    logger.warning("%s; dead letters wait, again in %.1f s", error, wait)
                    self._stop.wait(wait)

    def _publish(self) -> None:
        lake = Lake(self._settings)
        positions = LetterPositions(self._settings)
        source = LetterSource(lake, positions.begin(lake), way_out(self._settings))
        self._show_lag(source)
        create_topic(self._to_topic)
        with Producer(self._to_topic) as producer:
            while not self._stop.is_set():
                more = False
                for chunk in source.read():
                    more = True
                    if chunk.letters:
                        self._deliver(producer, chunk.letters)
                        self._metrics.letters.labels(chunk.table).inc(len(chunk.letters))
                        logger.info("%d letters of %s published", len(chunk.letters), chunk.table)
                    positions.move(lake, chunk.table, chunk.after)
                self._faults = 0
                self._show_lag(source)
                if not more:
                    self._stop.wait(LOOK_EVERY_S)

    def _show_lag(self, source: LetterSource) -> None:
        for table, snapshots in source.lag().items():
            self._metrics.lag.labels(table).set(snapshots)

    def _deliver(self, producer: Producer, letters: Sequence[Letter]) -> None:
        """Send letters and wait until the broker has all; `Unreachable` if it has not.

        A message that is too large goes without its bytes. The broker says that one is, and the
        client gives up all that it has in hand, so which one remains to be told: the largest is.
        """
        largest = too_large = 0
        for letter in letters:
            size = len(letter.message or b"")
            try:
                if size > self._most_bytes:
                    raise RecordTooLarge
                producer.send_raw(letter.message, key=letter.key, headers=letter.headers())
                largest = max(largest, size)
            except RecordTooLarge:
                too_large += 1
                short = letter.without_message()
                producer.send_raw(None, key=short.key, headers=short.headers())
        try:
            producer.flush()
        except NotAcknowledged as error:
            if largest and error.too_large:
                raise _TooLarge(largest) from error
            raise
        self._metrics.too_large.inc(too_large)


class _TooLarge(Exception):
    """The largest message of those that were sent is more than the topic takes."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
