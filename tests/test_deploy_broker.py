"""The broker's storage is formatted whatever its random id looks like."""

from __future__ import annotations

import shlex
import uuid
from pathlib import Path

import pytest

from deploy.local import broker


def test_an_id_that_begins_with_a_hyphen_is_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xf8" * 16))
    words = shlex.split(broker._command(tmp_path)[2])
    assert "--cluster-id=-Pj4-Pj4-Pj4-Pj4-Pj4-A" in words
