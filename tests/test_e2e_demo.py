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

from cliplake.samples import CUTS, EMPTY, NO_VIDEO, REAL_SAMPLES, TRUNCATED

pytestmark = pytest.mark.e2e

PROGRAM = str(Path(sys.executable).parent / "cliplake")
SETTINGS = ("--settings", ".cliplake/demo/cliplake.yaml")


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


@pytest.fixture(scope="module")
def up(demo: subprocess.CompletedProcess[str], folder: Path) -> Iterator[Path]:
    """The demo's lake, topic and checkpoints, kept up by `up --detach`."""
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


def test_a_second_stack_on_the_same_folder_is_refused(up: Path) -> None:
    done = run(PROGRAM, *SETTINGS, "up", cwd=up)
    assert done.returncode == 2
    assert "is running already" in done.stderr


def test_status_reads_as_a_table(up: Path) -> None:
    shown = run(PROGRAM, *SETTINGS, "status", cwd=up).stdout
    for words in ("arrivals", "enriched_clips", "not_json 1", "0 messages behind", "balanced"):
        assert words in shown
