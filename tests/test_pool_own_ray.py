"""The Ray that the driver starts for itself takes in nobody without its token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

JOIN = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR'); print('joined')"


def _token() -> str:
    return Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text()


def _join(address: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    return subprocess.run(
        [sys.executable, "-c", JOIN, address],
        env={**own, **variables},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_whoever_has_not_the_token_cannot_join(ray_address: str) -> None:
    token = _token()
    wrong = _join(ray_address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert wrong.returncode != 0
    assert "joined" not in wrong.stdout
    assert token not in wrong.stdout + wrong.stderr
    right = _join(ray_address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
    assert right.stdout.strip().endswith("joined"), right.stderr


def test_the_token_is_in_no_arguments(ray_address: str) -> None:
    token = _token()
    for process in psutil.Process().children(recursive=True):
        assert not any(token in argument for argument in process.cmdline())
