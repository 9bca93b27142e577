"""Failpoints: one arming makes one fault, and without the variable there are none."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processors.failpoints import POINTS, VARIABLE, arm, disarm, hits
from schemas.settings import CHECKOUT

PASSES = """
from processors.failpoints import passing
for number in range(5):
    try:
        passing("commit.begun")
    except OSError as error:
        print(number, error.errno, flush=True)
print("done", flush=True)
"""


def passes(folder: Path | None) -> subprocess.CompletedProcess[str]:
    variables = {} if folder is None else {VARIABLE: str(folder)}
    return subprocess.run(
        [sys.executable, "-c", PASSES],
        env=variables,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_without_the_variable_nothing_happens(tmp_path: Path) -> None:
    arm(tmp_path, "commit.begun")
    assert passes(None).stdout == "done\n"
    assert hits(tmp_path, "commit.begun") == 0


def test_the_nth_passage_is_met_once(tmp_path: Path) -> None:
    arm(tmp_path, "commit.begun", nth=3)
    killed = passes(tmp_path)
    assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, "")
    assert hits(tmp_path, "commit.begun") == 1
    assert passes(tmp_path).stdout == "done\n"


def test_a_point_may_fail_instead(tmp_path: Path) -> None:
    arm(tmp_path, "commit.begun", "full", nth=2)
    assert passes(tmp_path).stdout == "1 28\ndone\n"
    arm(tmp_path, "commit.begun", "fail")
    assert passes(tmp_path).stdout == "0 5\ndone\n"


def test_an_arming_can_be_taken_back(tmp_path: Path) -> None:
    arm(tmp_path, "commit.begun")
    disarm(tmp_path, "commit.begun")
    assert passes(tmp_path).stdout == "done\n"


def test_every_point_is_passed_somewhere_and_no_other_is_known() -> None:
    found = set()
    for folder in ("ingest", "processors"):
        for file in (CHECKOUT / folder).rglob("*.py"):
            found |= set(re.findall(r'passing\("([^"]+)"\)', file.read_text()))
    assert found == set(POINTS)
    with pytest.raises(ValueError, match="no failpoint is called nowhere"):
        arm(CHECKOUT, "nowhere")
