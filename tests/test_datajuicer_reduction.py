"""How the results of DataJuicer's operators become columns, and what they may not do."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from processors.datajuicer.reduction import MAX_JSON_CHARACTERS, as_json, plain, sort_out
from schemas.settings import CHECKOUT


def test_numbers_stand_for_themselves_and_lists_of_them_for_their_mean() -> None:
    numbers, others = sort_out(
        {
            "text_len": 12,
            "ratio": np.float32(0.5),
            "video_width": [640],
            "image_sizes": np.array([1, 2, 6]),
        }
    )
    assert numbers == {"text_len": 12.0, "ratio": 0.5, "video_width": 640.0, "image_sizes": 3.0}
    assert others == {}
    assert all(type(value) is float for value in numbers.values())


def test_a_number_that_is_not_finite_is_null() -> None:
    assert sort_out({"a": math.nan, "b": [1.0, math.inf]})[0] == {"a": None, "b": None}


def test_what_is_no_number_is_left_as_it_is() -> None:
    stats = {"lang": "en", "flag": True, "none": [], "boxes": [[[1, 2, 3, 4]]], "mixed": [1, "a"]}
    assert sort_out(stats) == ({}, stats)


def test_outputs_are_strict_json() -> None:
    value = {"tags": ("dog", "car"), "scores": np.array([0.25, np.nan]), "set": {2, 1}}
    assert json.loads(as_json("x", value)) == {
        "tags": ["dog", "car"],
        "scores": [0.25, None],
        "set": [1, 2],
    }


def test_an_output_that_fits_in_no_column_says_so() -> None:
    with pytest.raises(TypeError, match="a value of type bytes"):
        plain({"frames": [b"picture"]})
    with pytest.raises(ValueError, match=r"its output flow has .* characters as JSON"):
        as_json("flow", ["x" * MAX_JSON_CHARACTERS])


def guarded(code: str, **environment: str) -> str:
    """What a process with the guards prints, having tried to run ``code``."""
    program = f"""
from processors.datajuicer.guards import forbid_installs_and_fetches
forbid_installs_and_fetches()
try:
    {code}
except (ImportError, OSError) as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(CHECKOUT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import subprocess, sys; subprocess.run([sys.executable, '-m', 'pip', 'install', 'xyz'])",
        "import subprocess; subprocess.Popen('uv pip install --quiet xyz', shell=True)",
        "import os; os.system('pip install xyz')",
    ],
)
def test_a_package_that_would_be_installed_is_an_import_error_with_its_name(code: str) -> None:
    said = guarded(code)
    assert said.startswith("ImportError it needs the package xyz, which ")


@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request; urllib.request.urlopen('http://files.example.org/model.bin')",
        "import requests; requests.get('http://files.example.org/model.bin')",
        "import subprocess; subprocess.run(['git', 'clone', 'http://files.example.org/model'])",
    ],
)
def test_offline_nothing_is_downloaded_by_the_way(code: str) -> None:
    said = guarded(code, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, and it tried to download" in said
    assert "files.example.org" in said


def test_other_programs_and_servers_of_this_machine_are_left_alone() -> None:
    assert guarded("import subprocess; print(subprocess.run(['true']).returncode)") == "0\n"
    refused = guarded(
        "import urllib.request; urllib.request.urlopen('http://localhost:1/')", HF_HUB_OFFLINE="1"
    )
    assert "Connection refused" in refused
