"""Replay of dead letters: which messages go back to the topic, and sending them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cliplake.query import LakeSql
from schemas.replay import MessageName, Replay

if TYPE_CHECKING:
    from ingest.producer import Producer
    from ingest.topic import PartitionOffsets

_AT_A_TIME = 500
"""Messages that are read from the lake at once: each may have a megabyte."""


@dataclass
class Plan:
    """What a replay sends."""

    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Letters by table and reason."""
    messages: dict[MessageName, set[str]] = field(default_factory=dict)
    """Messages to send again, with the video_keys that are meant; none: a rejected one."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Letters that cannot be replayed, by why."""


def plan_replay(
    sql: LakeSql,
    letters: Iterable[Mapping[str, Any]],
    topic: str,
    offsets: Mapping[int, PartitionOffsets],
) -> Plan:
    """The messages behind letters, each once, however many letters it has.

    ``letters`` are rows of `find_letters`, ``offsets`` those of ``topic`` now.
    """
    plan = Plan()
    rows = list(letters)
    videos = _messages_of_videos(sql, {r["video_key"] for r in rows if r["video_key"]})
    for row in rows:
        name = MessageName(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"])
        of = name if row["video_key"] is None else _best(videos.get(row["video_key"], []), name)
        if of is None:
            plan.left_out["its video has no row in videos any more"] += 1
        elif name.topic != topic or of.topic != topic:
            plan.left_out[f"it is of topic {name.topic}, and the settings say {topic}"] += 1
        elif any(n.partition not in offsets or n.offset >= offsets[n.partition].end
                 for n in (name, of)):  # fmt: skip
            plan.left_out["the topic was deleted and made again since"] += 1
        else:
            plan.letters[row["table_name"], row["reason"]] += 1
            keys = plan.messages.setdefault(of, set())
            if row["video_key"] is not None:
                keys.add(row["video_key"])
    return plan


def send_replay(
    sql: LakeSql,
    producer: Producer,
    plan: Plan,
    replay_id: str,
    progress: Callable[[int], None] = lambda sent: None,
) -> None:
    """Send a plan's messages and wait until the broker has them all; ``producer.sent`` counts.

    A message that is not in the lake any more is not sent.
    """
    names = list(plan.messages)
    for start in range(0, len(names), _AT_A_TIME):
        wanted = {name: plan.messages[name] for name in names[start : start + _AT_A_TIME]}
        for name, payload in _payloads(sql, wanted):
            producer.send_again(payload, Replay(replay_id, name, frozenset(wanted[name])))
        try:
            producer.flush()
        finally:
            progress(producer.sent)


def _best(messages: list[MessageName], letter: MessageName) -> MessageName | None:
    """The message that the letter is of, else the newest one about the same video."""
    if letter in messages:
        return letter
    same = [name for name in messages if name.topic == letter.topic]
    return max(same or messages, key=lambda name: name.offset, default=None)


def _messages_of_videos(sql: LakeSql, keys: set[str]) -> dict[str, list[MessageName]]:
    found: dict[str, list[MessageName]] = {}
    ordered = sorted(keys)
    for start in range(0, len(ordered), _AT_A_TIME):
        some = ", ".join(f"'{key}'" for key in ordered[start : start + _AT_A_TIME])
        for row in sql.query(
            "SELECT video_key, kafka_topic, kafka_partition, kafka_offset FROM videos "
            f"WHERE video_key IN ({some})"
        ).to_pylist():
            name = MessageName(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"])
            found.setdefault(row["video_key"], []).append(name)
    return found


def _payloads(
    sql: LakeSql, wanted: Mapping[MessageName, set[str]]
) -> Iterator[tuple[MessageName, bytes | None]]:
    for table, column in (("rejected_messages", "payload"), ("videos", "message")):
        names = [name for name, keys in wanted.items() if bool(keys) == (table == "videos")]
        if not names:
            continue
        where = " OR ".join(
            f"(kafka_partition = {name.partition} AND kafka_offset = {name.offset})"
            for name in names
        )
        topic = names[0].topic.replace("'", "''")
        payloads = {
            MessageName(r["kafka_topic"], r["kafka_partition"], r["kafka_offset"]): r["bytes"]
            for r in sql.query(
                f"SELECT kafka_topic, kafka_partition, kafka_offset, {column} AS bytes "
                f"FROM {table} WHERE kafka_topic = '{topic}' AND ({where})"
            ).to_pylist()
        }
        # In the order of the topic, as they came the first time.
        yield from sorted(payloads.items(), key=lambda item: (item[0].partition, item[0].offset))
