"""The demo as a user has it, and then the same lake kept up: every word of it is true."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaConsumer

from cliplake.samples import CUTS, EMPTY, NO_VIDEO, REAL_SAMPLES, TRUNCATED
from deploy.local.state import StateFolder
from ingest.kafka_client import client_options
from processors.pool.lake import Lake
from schemas.settings import load_settings
from schemas.tables import TABLES

pytestmark = pytest.mark.e2e

PROGRAM = str(Path(sys.executable).parent / "cliplake")
SETTINGS = ("--settings", ".cliplake/demo/cliplake.yaml")
LETTERS = "dead-letters"
OTHERS = "select clip_id from enriched_clips where video_key <> '{key}' order by clip_id"


def run(*command: str, cwd: Path, timeout: float = 400.0) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("CLIPLAKE")}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**environment, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def rows(folder: Path, query: str) -> list[dict[str, Any]]:
    done = run(PROGRAM, *SETTINGS, "sql", "--json", query, cwd=folder)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def processes_of(folder: Path) -> list[str]:
    """Command lines of what still runs on behalf of a state folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(folder) in line and process.pid != os.getpid():
            found.append(line)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    """One run of the demo over its samples."""
    done = run(PROGRAM, "demo", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_demo_shows_clips_and_dead_letters_and_stops_everything(
    demo: subprocess.CompletedProcess[str], folder: Path
) -> None:
    for shown in ("bikes.mp4", "kept", "too_short", "too_long", "low_motion"):
        assert shown in demo.stdout
    for reason in ("not_json", "not_a_video", "truncated", "empty_file"):
        assert reason in demo.stdout
    assert "9 messages received: 8 new videos, 0 repeats, 1 rejected" in demo.stdout
    assert "13 clips, 7 kept; 4 dead letters. Accounts: balanced" in demo.stdout
    assert re.search(r"Flink's web page: http://127\.0\.0\.1:\d+", demo.stdout)
    assert processes_of(folder) == []


def test_the_query_that_it_prints_works_as_it_is_printed(
    demo: subprocess.CompletedProcess[str], folder: Path
) -> None:
    (line,) = (line for line in demo.stdout.splitlines() if line.startswith("Query it: "))
    done = run(*shlex.split(line.removeprefix("Query it: ")), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "bigbuckbunny.mp4" in done.stdout


def test_the_lake_holds_what_try_says_of_the_same_files(
    demo: subprocess.CompletedProcess[str], folder: Path
) -> None:
    files = [*REAL_SAMPLES.glob("*.mp4"), folder / ".cliplake/demo/samples" / CUTS.name]
    done = run(PROGRAM, "try", "--json", *map(str, files), cwd=folder)
    expected = {
        (Path(video["path"]).resolve().as_uri(), clip["clip_index"]): clip
        for video in json.loads(done.stdout)["videos"]
        for clip in video["clips"]
    }
    found = {
        (row["uri"], row["clip_index"]): row
        for row in rows(folder, "select * from enriched_clips")
        if "long-take" not in row["uri"]
    }
    assert sorted(found) == sorted(expected), done.stderr
    for key, clip in expected.items():
        for name in ("clip_id", "start_s", "end_s", "kept", "reject_reason", "start_frame"):
            assert found[key][name] == clip[name]
        for name in ("nsfw_score", "motion_score", "sharpness"):
            assert found[key][name] == pytest.approx(clip[name], abs=1e-5)


def test_dead_letters_say_where_in_kafka_they_came_from(
    demo: subprocess.CompletedProcess[str], folder: Path
) -> None:
    found = rows(folder, "select uri, reason, kafka_topic, kafka_offset from failed_videos")
    assert {Path(row["uri"]).name: row["reason"] for row in found} == {
        NO_VIDEO: "not_a_video",
        TRUNCATED: "truncated",
        EMPTY: "empty_file",
    }
    assert all(row["kafka_topic"] == "video-uploads" for row in found)
    assert all(row["kafka_offset"] is not None for row in found)
    (message,) = rows(folder, "select payload, reason from rejected_messages")
    assert message == {"payload": "dGhpcyBpcyBubyBKU09O", "reason": "not_json"}


def forgettable(folder: Path) -> dict[str, Any]:
    """The demo's video with cuts, as the arrivals job accepted it; nothing once it is forgotten."""
    found = rows(folder, f"select * from videos where uri like '%/{CUTS.name}'")
    return found[0] if found else {}


def rows_about(folder: Path, key: str, clip_ids: list[str]) -> dict[str, int]:
    """Rows about a video by table, as `cliplake sql` has them, and as pypaimon has them."""
    lake = Lake(load_settings(folder / SETTINGS[1]))
    clips = ", ".join(f"'{clip_id}'" for clip_id in clip_ids)
    found = {}
    for table in TABLES:
        name = "video_key" if "video_key" in table.column_names else "clip_id"
        if name not in table.column_names or table.name == "forgotten":
            continue
        wanted = f"'{key}'" if name == "video_key" else clips
        by_sql = rows(folder, f"select {name} from {table.name} where {name} in ({wanted})")
        ids = lake.read(table.name, [name]).column(name).to_pylist()
        assert len(by_sql) == sum(id in {key, *clip_ids} for id in ids), table.name
        found[table.name] = len(by_sql)
    return found


@pytest.fixture(scope="module")
def forgotten(demo: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    """One of the demo's videos, forgotten while nothing runs; what there was, and what was said."""
    video = forgettable(folder)
    key = video["video_key"]
    clips = rows(folder, f"select clip_id from clips where video_key = '{key}'")
    clip_ids = [row["clip_id"] for row in clips]
    before = rows_about(folder, key, clip_ids)
    others = rows(folder, OTHERS.format(key=key))
    done = run(PROGRAM, *SETTINGS, "forget", video["video_id"], "--yes", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        "video": video,
        "before": before,
        "after": rows_about(folder, key, clip_ids),
        "others": others,
        "said": " ".join(done.stdout.split()),
    }


def test_a_video_that_went_through_it_all_is_forgotten_everywhere(
    forgotten: dict[str, Any], folder: Path
) -> None:
    video, before = forgotten["video"], forgotten["before"]
    assert (before["videos"], before["clips"], before["enriched_clips"]) == (1, 4, 4)
    assert before["clip_frames"] > 0
    assert set(forgotten["after"].values()) == {0}
    key = video["video_key"]
    assert rows(folder, OTHERS.format(key=key)) == forgotten["others"]
    for name in ("video_key", "video_id", "uri"):
        # In no column of any table, but for the hash that the accounts need.
        for table in (t for t in TABLES if t.name != "forgotten"):
            assert video[name] not in json.dumps(rows(folder, f"select * from {table.name}"))
    (left,) = rows(folder, "select * from forgotten")
    assert (left["video_key"], left["kafka_offset"]) == (key, video["kafka_offset"])


def test_what_still_has_a_forgotten_video_is_said(forgotten: dict[str, Any]) -> None:
    video, said = forgotten["video"], forgotten["said"]
    at = f"{video['kafka_topic']}[{video['kafka_partition']}]@{video['kafka_offset']}"
    assert f"the topic, until its retention ends: {at}" in said
    for table in ("videos", "clips", "clip_frames", "enriched_clips"):
        assert re.search(rf"snapshots up to .*\b{table} \d+", said), table
    assert "the file itself" in said


@pytest.fixture(scope="module")
def up(forgotten: dict[str, Any], folder: Path) -> Iterator[Path]:
    """The demo's lake, topic and checkpoints, kept up by `up --detach`, with a topic for letters.

    A video of it is forgotten by now.
    """
    with (folder / SETTINGS[1]).open("a") as file:
        file.write(f"kafka: {{dead_letter_topic: {LETTERS}}}\n")
    done = run(PROGRAM, *SETTINGS, "up", "--detach", cwd=folder)
    try:
        assert done.returncode == 0, done.stderr
        yield folder
    finally:
        down = run(PROGRAM, *SETTINGS, "down", cwd=folder)
    assert down.returncode == 0, down.stderr
    assert processes_of(folder) == []


def status(folder: Path) -> dict[str, Any]:
    done = run(PROGRAM, *SETTINGS, "status", "--json", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_is_kept_up_goes_on_where_the_demo_ended(up: Path) -> None:
    before = status(up)
    assert before["balanced"]
    assert [job["state"] for job in before["jobs"]] == ["RUNNING", "RUNNING"]
    assert before["pool"]["actors"] == 1

    files = [*map(str, sorted(REAL_SAMPLES.glob("*.mp4")))]
    sent = run(PROGRAM, *SETTINGS, "submit", *files, cwd=up)
    assert sent.returncode == 0, sent.stderr
    assert f"{len(files)} references acknowledged" in sent.stderr

    total = before["stages"]["arrivals"]["done"] + len(files) + 1
    deadline = time.monotonic() + 120
    while True:
        after = status(up)
        arrivals = after["stages"]["arrivals"]
        finished = arrivals["done"] + arrivals["repeats"] + arrivals["dead"]
        if after["balanced"] and finished == total:
            break
        assert time.monotonic() < deadline, after
        time.sleep(1)
    assert arrivals["repeats"] == len(files)
    assert after["rows"]["enriched_clips"] == before["rows"]["enriched_clips"]
    assert after["rows"]["clip_frames"] == before["rows"]["clip_frames"]


def test_the_demo_s_dead_letters_are_on_their_topic(up: Path) -> None:
    settings = StateFolder(up / ".cliplake" / "demo").running_settings()
    assert settings is not None
    consumer = KafkaConsumer(
        LETTERS,
        **client_options(settings.kafka, "consumer"),
        auto_offset_reset="earliest",
        consumer_timeout_ms=60_000,
    )
    found = {}
    for record in consumer:
        headers = dict(record.headers)
        found[headers["__connect.errors.exception.class.name"].decode()] = record.value
        if len(found) == 4:
            break
    consumer.close()
    assert set(found) == {"not_json", "not_a_video", "truncated", "empty_file"}
    assert found["not_json"] == b"this is no JSON"
    assert TRUNCATED in json.loads(found["truncated"])["uri"]


def test_a_second_stack_on_the_same_folder_is_refused(up: Path) -> None:
    done = run(PROGRAM, *SETTINGS, "up", cwd=up)
    assert done.returncode == 4  # in the way of another one: no fault of what was given
    assert "is running already" in done.stderr


def test_status_reads_as_a_table(up: Path) -> None:
    shown = run(PROGRAM, *SETTINGS, "status", cwd=up).stdout
    for words in ("arrivals", "enriched_clips", "not_json 1", "0 messages behind", "balanced"):
        assert words in shown
