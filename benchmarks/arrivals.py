"""How fast the arrivals job reads a topic that is full already, and the CPU time of a message.

``python -m benchmarks.arrivals --messages 500000 --repeats 0.1 --invalid 0.01`` starts a broker
and a Flink cluster with that job alone, sends the messages, starts the job and follows its
commits. At the end every row is compared with what was sent. Rates are from commit to commit of
`videos`: the job's start is in none of them, and the last commit waits for a checkpoint.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from benchmarks.cluster import FlinkCluster, flink_cluster, free_port_settings
from ingest.client import jobs, submit_jobs
from ingest.kafka_client import client_options
from processors.pool.lake import Lake
from schemas.settings import Settings

TABLES = ("videos", "repeats", "rejected_messages")
INVALID = (
    b"junk",
    b"\xff\xfe",
    b"[1]",
    b"{}",
    b'{"schema_version": 1, "uri": "ftp://host/video.mp4"}',
    b'{"schema_version": 1, "uri": "s3://uploads/video.mp4", "titel": "a"}',
)
S3_EVENTS = 0.1
"""Share of the valid messages that are an object store's notifications, one object each."""
STALLED_S = 120.0


@dataclass(frozen=True)
class Sent:
    """What is on the topic, by the table that it belongs in."""

    videos: int
    repeats: int
    rejected_messages: int

    @property
    def messages(self) -> int:
        return self.videos + self.repeats + self.rejected_messages


@dataclass(frozen=True)
class Commit:
    """One snapshot of `videos`."""

    at: float
    """Seconds since 1970."""
    rows: int
    """Rows of the table so far."""


@dataclass(frozen=True)
class Result:
    """Rates and CPU time of one run."""

    sent: Sent
    commits: int
    messages_per_s: float
    """From the first commit to the last."""
    full_speed_messages_per_s: float
    """From the first commit to the last but one: the last waits for its checkpoint."""
    cpu_us_per_message: dict[str, float]
    """Microseconds of CPU a message, by process, from the first commit to the last."""
    first_commit_s: float
    """From the submission to the first commit."""
    load: tuple[float, float, float]
    """The machine's load average at the end."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.arrivals", description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--repeats", type=float, default=0.1, help="share that names a video again")
    parser.add_argument("--invalid", type=float, default=0.01, help="share that is rejected")
    parser.add_argument("--option", action="append", default=[], help="Flink option: name=value")
    parser.add_argument("--checkpoint-interval", type=float, default=3.0, metavar="S")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    flink: dict[str, object] = {
        "checkpoint_interval_s": options.checkpoint_interval,
        "options": dict(option.split("=", 1) for option in options.option),
    }
    with tempfile.TemporaryDirectory(prefix="cliplake-arrivals-") as folder:
        settings = free_port_settings(Path(folder), flink={"rest_port": 0, **flink})
        with flink_cluster(settings) as cluster:
            sent = fill(cluster.settings, options.messages, options.repeats, options.invalid)
            result = measure(cluster, sent)
            check(cluster.settings, sent)
    print(json.dumps(asdict(result)) if options.json else _words(result))
    return 0


def payloads(messages: int, repeats: float, invalid: float) -> Iterator[tuple[str, bytes]]:
    """``messages`` messages, each with the table it belongs in; the shares are kept throughout."""
    wanted = {"repeats": repeats, "rejected_messages": invalid}
    so_far = dict.fromkeys(TABLES, 0)
    for number in range(messages):
        table = next(
            (t for t, share in wanted.items() if so_far[t] + 1 <= share * (number + 1)), "videos"
        )
        if table == "rejected_messages":
            payload = INVALID[so_far[table] % len(INVALID)]
        else:
            # A repeat names the video half way back.
            video = so_far["videos"] // 2 if table == "repeats" else so_far["videos"]
            payload = _valid(video)
        so_far[table] += 1
        yield table, payload


def _valid(number: int) -> bytes:
    key = f"2026/11/25/{number % 97:02d}/video-{number:09d}.mp4"
    if number % round(1 / S3_EVENTS) == 0:
        event = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": "eu-central-1",
            "eventTime": "2026-11-25T12:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {
                "bucket": {"name": "uploads", "arn": "arn:aws:s3:::uploads"},
                "object": {"key": key, "size": 1_048_576, "eTag": f"{number:032x}"},
            },
        }
        return json.dumps({"Records": [event]}).encode()
    message = {
        "schema_version": 1,
        "uri": f"s3://uploads/{key}",
        "video_id": f"video-{number:09d}",
        "source": "phone",
        "uploaded_at": "2026-11-25T12:00:00+00:00",
        "attributes": {"camera": "front", "language": "de"},
    }
    return json.dumps(message).encode()


def fill(settings: Settings, messages: int, repeats: float, invalid: float) -> Sent:
    """Send the messages to the topic, and wait until all of them are there."""
    producer = KafkaProducer(
        **client_options(settings.kafka, "producer"),
        acks="all",
        linger_ms=20,
        batch_size=1 << 18,
    )
    counts = dict.fromkeys(TABLES, 0)
    partitions = itertools.cycle(range(settings.kafka.partitions))
    try:
        for table, payload in payloads(messages, repeats, invalid):
            producer.send(settings.kafka.topic, value=payload, partition=next(partitions))
            counts[table] += 1
        producer.flush(timeout=120)
    finally:
        producer.close(timeout=5)
    return Sent(**counts)


def measure(cluster: FlinkCluster, sent: Sent) -> Result:
    """Start the job and follow it until everything that was sent is a row of some table."""
    settings = cluster.settings
    lake = Lake(settings)
    started = time.time()
    submit_jobs(settings, only="arrivals")
    first_cpu: dict[str, float] = {}
    done, moved_at = 0, time.monotonic()
    while done < sent.messages:
        time.sleep(0.2)
        rows = {table: _commits(lake, table) for table in TABLES}
        now = sum(commits[-1].rows for commits in rows.values() if commits)
        if rows["videos"] and not first_cpu:
            first_cpu, first_done = _cpu(cluster), now
        if now > done:
            done, moved_at = now, time.monotonic()
        elif time.monotonic() > moved_at + STALLED_S:
            (job,) = (job for job in jobs(settings) if job.state != "MISSING")
            raise SystemExit(f"{done} of {sent.messages} messages after {STALLED_S} s: {job}")
    last_cpu = _cpu(cluster)
    videos = _commits(lake, "videos")
    if len(videos) < 3:
        raise SystemExit(f"{len(videos)} commits are too few to measure: send more messages")
    per_video = sent.messages / sent.videos
    return Result(
        sent=sent,
        commits=len(videos),
        messages_per_s=per_video * _rate(videos[0], videos[-1]),
        full_speed_messages_per_s=per_video * _rate(videos[0], videos[-2]),
        cpu_us_per_message={
            kind: 1e6 * (seconds - first_cpu[kind]) / (sent.messages - first_done)
            for kind, seconds in last_cpu.items()
        },
        first_commit_s=videos[0].at - started,
        load=os.getloadavg(),
    )


def check(settings: Settings, sent: Sent) -> None:
    """Compare the rows with what was sent; ends the process with what differs."""
    lake = Lake(settings)
    found = {name: lake.read(name, [_ANY[name]]).num_rows for name in TABLES}
    keys = lake.read("videos", ["video_key"])["video_key"]
    distinct = len(keys.unique())
    if found != asdict(sent) or distinct != sent.videos:
        raise SystemExit(f"wrong: sent {sent}, found {found}, {distinct} different videos")


_ANY = {"videos": "video_key", "repeats": "video_key", "rejected_messages": "kafka_offset"}


def _commits(lake: Lake, table: str) -> list[Commit]:
    """The snapshots that added rows, in order."""
    handle = lake.table(table)
    manager: Any = handle.snapshot_manager()
    latest = lake.latest_snapshot_id(table) or 0
    snapshots = [manager.get_snapshot_by_id(number) for number in range(1, latest + 1)]
    return [
        Commit(snapshot.time_millis / 1000, snapshot.total_record_count)
        for snapshot in snapshots
        if snapshot is not None and snapshot.commit_kind == "APPEND"
    ]


def _rate(first: Commit, last: Commit) -> float:
    return (last.rows - first.rows) / (last.at - first.at)


def _cpu(cluster: FlinkCluster) -> dict[str, float]:
    task_manager = cluster.cpu_seconds("taskmanager")
    return {
        "taskmanager": task_manager["java"],
        "python_worker": task_manager.get("python", 0.0),
        "jobmanager": cluster.cpu_seconds("jobmanager")["java"],
        "broker": cluster.cpu_seconds("broker")["java"],
    }


def _words(result: Result) -> str:
    sent, cpu = result.sent, result.cpu_us_per_message
    parts = ", ".join(f"{kind} {value:.1f}" for kind, value in cpu.items())
    return (
        f"{sent.messages} messages: {sent.videos} videos, {sent.repeats} repeats, "
        f"{sent.rejected_messages} rejected; every row is there once\n"
        f"first to last of {result.commits} commits: {result.messages_per_s:,.0f} messages/s; "
        f"to the last but one: {result.full_speed_messages_per_s:,.0f}\n"
        f"CPU, microseconds a message: {parts}; together {sum(cpu.values()):.1f}\n"
        f"first commit {result.first_commit_s:.1f} s after the submission; "
        f"load average {', '.join(f'{value:.1f}' for value in result.load)} "
        f"on {os.cpu_count()} CPUs"
    )


if __name__ == "__main__":
    sys.exit(main())
