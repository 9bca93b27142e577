"""How fast the arrivals job reads a topic that is full already, and the CPU time of a message.

``python -m benchmarks.arrivals --messages 500000 --repeats 0.1 --invalid 0.01`` starts a broker
and a Flink cluster with that job alone, sends the messages, starts the job and follows its
commits. At the end every row is compared with what was sent. Rates are from commit to commit of
`videos`. A JVM spends its first half-minute compiling its code, so that rate and CPU time are
also, and first of all, given from the commit on by which ``--warm-up`` of the messages were done.
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
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from benchmarks.cluster import FlinkCluster, benchmark_settings, flink_cluster
from benchmarks.committed import committed
from deploy.local.flink_cluster import ask_rest
from ingest.client import submit_jobs
from ingest.kafka_client import client_options
from processors.pool.lake import Lake
from schemas.message import parse_message
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
PARTITIONS = 2
POLL_S = 0.5
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
    """From the commit on by which the warm-up was over, to the last."""
    cpu_us_per_message: dict[str, float]
    """Microseconds of CPU a message, by process, over the same time."""
    cold_messages_per_s: float
    """From the first commit to the last."""
    first_commit_s: float
    """From the submission to the first commit."""
    checkpoint_bytes: int
    """What the last checkpoint wrote."""
    state_bytes: int
    """What it holds, with what earlier ones wrote."""
    load: tuple[float, float, float]
    """The machine's load average at the end."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.arrivals", description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--repeats", type=float, default=0.1, help="share that names a video again")
    parser.add_argument("--invalid", type=float, default=0.01, help="share that is rejected")
    parser.add_argument("--warm-up", type=float, default=0.3, help="share of the messages")
    parser.add_argument("--parallelism", type=int, default=1, help="flink.arrivals_parallelism")
    parser.add_argument("--option", action="append", default=[], help="Flink option: name=value")
    parser.add_argument("--checkpoint-interval", type=float, default=3.0, metavar="S")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    flink: dict[str, object] = {
        "arrivals_parallelism": options.parallelism,
        "checkpoint_interval_s": options.checkpoint_interval,
        "options": dict(option.split("=", 1) for option in options.option),
    }
    with tempfile.TemporaryDirectory(prefix="cliplake-arrivals-") as folder:
        settings = benchmark_settings(
            Path(folder), flink={"rest_port": 0, **flink}, kafka={"partitions": PARTITIONS}
        )
        with flink_cluster(settings) as cluster:
            sent = fill(cluster.settings, options.messages, options.repeats, options.invalid)
            result = measure(cluster, sent, options.warm_up)
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
    partitions = itertools.cycle(range(PARTITIONS))
    try:
        for table, payload in payloads(messages, repeats, invalid):
            producer.send(settings.kafka.topic, value=payload, partition=next(partitions))
            counts[table] += 1
        producer.flush(timeout=120)
    finally:
        producer.close(timeout=5)
    return Sent(**counts)


def measure(cluster: FlinkCluster, sent: Sent, warm_up: float) -> Result:
    """Start the job and follow it until everything that was sent is a row of some table."""
    settings = cluster.settings
    lake = Lake(settings)
    started = time.time()
    job = submit_jobs(settings, only="arrivals")["arrivals"]
    warm_cpu: dict[str, float] = {}
    warm_done = done = 0
    moved_at = time.monotonic()
    while done < sent.messages:
        time.sleep(POLL_S)
        now = sum(committed(lake, table) for table in TABLES)
        if now >= warm_up * sent.messages and not warm_cpu:
            warm_cpu, warm_done = _cpu(cluster), now
            warm_commits = len(_commits(lake, "videos"))
        if now > done:
            done, moved_at = now, time.monotonic()
        elif time.monotonic() > moved_at + STALLED_S:
            raise SystemExit(f"{done} of {sent.messages} messages after {STALLED_S} s: {job}")
    cpu = _cpu(cluster)
    videos = _commits(lake, "videos")
    if len(videos) < warm_commits + 2:
        raise SystemExit(f"{len(videos)} commits are too few to measure: send more messages")
    per_video = sent.messages / sent.videos
    checkpoint = ask_rest(settings, f"/jobs/{job}/checkpoints")["latest"]["completed"]
    return Result(
        sent=sent,
        commits=len(videos),
        messages_per_s=per_video * _rate(videos[warm_commits - 1], videos[-1]),
        cpu_us_per_message={
            kind: 1e6 * (seconds - warm_cpu[kind]) / (sent.messages - warm_done)
            for kind, seconds in cpu.items()
        },
        cold_messages_per_s=per_video * _rate(videos[0], videos[-1]),
        first_commit_s=videos[0].at - started,
        checkpoint_bytes=checkpoint["checkpointed_size"],
        state_bytes=checkpoint["state_size"],
        load=os.getloadavg(),
    )


def check(settings: Settings, sent: Sent) -> None:
    """Compare the rows with what was sent; ends the process with what differs."""
    lake = Lake(settings)
    places = ["kafka_partition", "kafka_offset"]
    found = {name: lake.read(name, places) for name in TABLES}
    if {name: rows.num_rows for name, rows in found.items()} != asdict(sent):
        raise SystemExit(f"wrong: sent {sent}, found { {n: t.num_rows for n, t in found.items()} }")
    records = {tuple(row.values()) for rows in found.values() for row in rows.to_pylist()}
    videos = lake.read("videos", ["video_key", "message"])
    if len(records) != sent.messages or len(videos["video_key"].unique()) != sent.videos:
        raise SystemExit("wrong: a record or a video is there twice, and another one is missing")
    for key, message in zip(*(column.to_pylist() for column in videos.columns), strict=True):
        if parse_message(message)[0].video_key != key:
            raise SystemExit(f"wrong: video {key} has the message of another one: {message!r}")


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
        "benchmark": time.process_time(),
    }


def _words(result: Result) -> str:
    sent, cpu = result.sent, result.cpu_us_per_message
    parts = ", ".join(f"{kind} {value:.1f}" for kind, value in cpu.items())
    return (
        f"{sent.messages} messages: {sent.videos} videos, {sent.repeats} repeats, "
        f"{sent.rejected_messages} rejected; every row is there once\n"
        f"{result.messages_per_s:,.0f} messages/s when warm, {result.cold_messages_per_s:,.0f} "
        f"from the first of {result.commits} commits on\n"
        f"CPU, microseconds a message: {parts}; together {sum(cpu.values()):.1f}\n"
        f"the last checkpoint wrote {result.checkpoint_bytes / 1e6:.1f} MB of "
        f"{result.state_bytes / 1e6:.1f} MB of state\n"
        f"first commit {result.first_commit_s:.1f} s after the submission; "
        f"load average {', '.join(f'{value:.1f}' for value in result.load)} "
        f"on {os.cpu_count()} CPUs"
    )


if __name__ == "__main__":
    sys.exit(main())
