"""A job goes on from its newest completed checkpoint, and only where the state still fits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.job_record import FILE, JobRecord, NewState, read_record, write_record
from ingest.recovery import Start, job_folder, newest_checkpoint, next_generation, plan_start
from ingest.submission_lock import only_submission
from schemas.problems import ConfigError
from schemas.settings import Settings, load_settings

SIGNATURE = {"Flink": "2.3.0", "kafka.topic": "video-uploads"}
NEW_STATE = NewState("keys.npy", "records.npy", {0: 17})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, flink={"checkpoint_dir": (tmp_path / "checkpoints").as_uri()})


def checkpoint(folder: Path, run: str, number: int, *, completed: bool = True) -> Path:
    path = folder / run / f"chk-{number}"
    path.mkdir(parents=True)
    (path / "state").write_bytes(b"state")
    if completed:
        (path / "_metadata").write_bytes(b"metadata")
    return path


def start(settings: Settings, *, has_rows: bool = False, **signature: str) -> Start:
    return plan_start(
        settings, "arrivals", {**SIGNATURE, **signature}, has_rows=has_rows, new_state=None
    )


def test_the_highest_number_of_any_run_is_the_newest(tmp_path: Path) -> None:
    checkpoint(tmp_path, "first-run", 9)
    newest = checkpoint(tmp_path, "second-run", 10)
    checkpoint(tmp_path, "third-run", 8)
    assert newest_checkpoint(tmp_path) == newest


def test_a_checkpoint_that_was_not_completed_does_not_count(tmp_path: Path) -> None:
    complete = checkpoint(tmp_path, "run", 3)
    checkpoint(tmp_path, "run", 4, completed=False)
    (checkpoint(tmp_path, "run", 5) / "_metadata").write_bytes(b"")
    assert newest_checkpoint(tmp_path) == complete


def test_of_two_runs_with_the_same_number_the_later_one_counts(tmp_path: Path) -> None:
    later = checkpoint(tmp_path, "a", 7)
    earlier = checkpoint(tmp_path, "b", 7)
    os.utime(earlier / "_metadata", ns=(0, 0))
    assert newest_checkpoint(tmp_path) == later


def test_nothing_there_is_no_checkpoint(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "missing") is None


def test_the_first_start_has_empty_state(settings: Settings) -> None:
    first = start(settings)
    assert first.restore_from is None
    assert first.checkpoint_dir.endswith("/arrivals/0")


def test_a_restart_goes_on_from_the_newest_checkpoint(settings: Settings) -> None:
    folder = job_folder(settings, "arrivals")
    write_record(folder, start(settings).record)
    newest = checkpoint(folder / "0", "run", 12)
    assert start(settings, has_rows=True).restore_from == newest.as_uri()


def test_a_change_that_state_does_not_survive_is_named(settings: Settings) -> None:
    folder = job_folder(settings, "arrivals")
    write_record(folder, start(settings).record)
    checkpoint(folder / "0", "run", 12)
    with pytest.raises(ConfigError) as caught:
        start(settings, has_rows=True, **{"kafka.topic": "others"})
    assert "kafka.topic: was video-uploads, is others" in str(caught.value)
    assert "Flink" not in str(caught.value).split("\n")[1]
    assert "--new-state" in str(caught.value)


def test_lost_checkpoints_are_not_taken_for_a_first_start(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"write the same rows again.*--new-state"):
        start(settings, has_rows=True)


def test_new_state_has_checkpoints_of_its_own(settings: Settings) -> None:
    folder = job_folder(settings, "arrivals")
    write_record(folder, start(settings).record)
    checkpoint(folder / "0", "run", 40)
    assert next_generation(settings, "arrivals") == 1
    anew = plan_start(settings, "arrivals", SIGNATURE, has_rows=True, new_state=NEW_STATE)
    assert anew.restore_from is None
    assert anew.checkpoint_dir.endswith("/arrivals/1")

    write_record(folder, anew.record)
    first = checkpoint(folder / "1", "run", 1)
    again = start(settings, has_rows=True)
    # Numbers begin again, and what was known at the start is still needed.
    assert again.restore_from == first.as_uri()
    assert again.record.new_state == NEW_STATE


def test_new_state_that_never_had_a_checkpoint_is_made_again(settings: Settings) -> None:
    anew = plan_start(settings, "arrivals", SIGNATURE, has_rows=True, new_state=NEW_STATE)
    write_record(job_folder(settings, "arrivals"), anew.record)
    with pytest.raises(ConfigError, match=r"ended before its first checkpoint.*--new-state"):
        start(settings, has_rows=True)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = JobRecord(3, SIGNATURE, NEW_STATE, job_id="ab", topic_id="cd")
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}'])
def test_a_record_that_cannot_be_read_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"job\.json.*--new-state"):
        read_record(tmp_path)


@pytest.mark.parametrize("uri", ["s3://bucket/checkpoints", "file://host/checkpoints", "relative"])
def test_a_checkpoint_folder_that_cannot_be_looked_into_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"flink\.checkpoint_dir"):
        job_folder(load_settings(None, flink={"checkpoint_dir": uri}), "split")


def test_one_who_submits_is_waited_for_and_not_without_end(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with (
        only_submission(folder, patience_s=0.0),
        pytest.raises(ConfigError, match=r"another process submits .*submission\.lock"),
        only_submission(folder, patience_s=0.1),
    ):
        pass
    with only_submission(folder, patience_s=0.0):
        pass
