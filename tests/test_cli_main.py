"""The command line's manners: help is fast, errors are a line, exit codes mean something."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from schemas.settings import CHECKOUT
from tests.cli import cliplake

COMMANDS = ["up", "down", "submit", "ingest", "process", "status", "demo", "sql", "try", "models"]


def test_help_names_every_command_and_the_exit_codes(tmp_path: Path) -> None:
    shown = cliplake("--help", cwd=tmp_path).stdout
    for command in COMMANDS:
        assert f" {command} " in shown
    assert "Exit codes" in shown


def test_the_version_is_shown(tmp_path: Path) -> None:
    shown = cliplake("--version", cwd=tmp_path)
    assert (shown.returncode, shown.stdout) == (0, f"cliplake {version('cliplake')}\n")


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, cliplake.main; "
        "print([m for m in ('ray', 'pypaimon', 'cv2', 'av', 'pyarrow', 'onnxruntime', 'kafka') "
        "if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    ["up", "down", "submit", "ingest", "process", "status", "demo", "sql", "try", "models"],
)
def test_every_command_explains_itself(command: str, tmp_path: Path) -> None:
    done = cliplake(command, "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "Usage: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["stauts"], "status"),
        (["status", "--nope"], "--nope"),
        (["--settings", "gone.yaml", "status"], "gone.yaml is not there"),
        (["submit"], "nothing to submit"),
        (["submit", "gone.mp4"], "gone.mp4: no such file"),
        (["submit", "."], "is a folder"),
        (["submit", "ftp://host/a.mp4"], "scheme ftp"),
        (["submit", "https://me:secret@host/a.mp4"], "credentials"),
        (["submit", "--file-list", "gone.txt"], "gone.txt"),
        (["demo", "gone-*.mp4"], "gone-*.mp4: there is no such file"),
        (["demo", "."], "is a folder"),
        (["sql", "select 1"], "there is no lake"),
        (["status"], "there is no lake"),
        (["sql", "--json", "--csv", "select 1"], "exclude each other"),
        (["try"], "FILE"),
        (["try", "--recipe", "gone.yaml", "a.mp4"], "gone.yaml"),
    ],
)
def test_what_cannot_work_is_a_line_and_exit_code_2(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = cliplake(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / ".cliplake" / "lake").exists()


def test_a_wrong_key_in_the_settings_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "cliplake.yaml").write_text("kafak: {}")
    done = cliplake("status", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'kafka'?" in done.stderr


def test_debug_shows_where(tmp_path: Path) -> None:
    assert "Traceback" in cliplake("--debug", "submit", cwd=tmp_path).stderr


def test_down_with_nothing_up_says_so_and_is_no_error(tmp_path: Path) -> None:
    done = cliplake("down", cwd=tmp_path)
    assert done.returncode == 0
    assert "nothing runs" in done.stderr


def test_a_broker_that_does_not_answer_is_exit_code_6(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "cliplake.yaml").write_text(
        "kafka: {client: {bootstrap.servers: '127.0.0.1:1', request.timeout.ms: '2000'}}"
    )
    done = cliplake("submit", "a.mp4", cwd=tmp_path)
    assert done.returncode == 6, done.stderr
    assert "127.0.0.1:1" in done.stderr


def test_paths_that_the_settings_would_refuse_are_pointed_out_before_sending(
    tmp_path: Path,
) -> None:
    (tmp_path / "a b.mp4").touch()
    (tmp_path / "cliplake.yaml").write_text(
        "kafka: {client: {bootstrap.servers: '127.0.0.1:1', request.timeout.ms: '2000'}}"
    )
    listed = (
        "# mine\n\na b.mp4\ns3://mine/a.mp4\ns3://other/b.mp4\ns3://other/c.mp4\n"
        "https://cdn.example/a.mp4?token=hidden\nhttp://a.example/1.mp4\nhttp://a.example/2.mp4\n"
    )
    with (tmp_path / "cliplake.yaml").open("a") as file:
        file.write("\nfetch: {s3_buckets: [mine]}")
    done = cliplake("submit", "--file-list", "-", cwd=tmp_path, stdin=listed)
    uri = (tmp_path / "a b.mp4").as_uri()
    end = "would end as dead letters (uri_not_allowed)"
    assert f"{uri} {end}: it is under none of the folders in fetch.file_roots" in done.stderr
    assert f"s3://other/b.mp4 and 1 more {end}: bucket 'other'" in done.stderr
    assert "host 'cdn.example' is not among the allowed ones" in done.stderr
    assert f"http://a.example/1.mp4 and 1 more {end}: http is off" in done.stderr
    assert done.stderr.count("note: ") == 4
    assert "hidden" not in done.stderr
    assert "`cliplake up` starts it" in done.stderr


def test_a_root_that_is_not_there_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "cliplake.yaml").write_text(
            f"fetch: {{file_roots: [/not/there, {tmp_path}]}}\nlocal: {{kafka_port: {port}}}"
        )
        done = cliplake("up", cwd=tmp_path)
    assert done.returncode != 0
    assert "local.kafka_port" in done.stderr
    assert "note: /not/there, which fetch.file_roots names, is no folder" in done.stderr
    assert done.stderr.count("note: ") == 1
