"""Files with stages of the user's own, for tests, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processors.custom import COLUMNS_OF_EVERY_CLIP, stage_of
from processors.custom_host import HostedStage
from processors.errors import MediaError
from schemas.operators import CustomStage
from schemas.plugins import custom_stage
from schemas.problems import ConfigError
from schemas.reasons import MediaReason

HEAD = """\
from processors.errors import DependencyFault, StageStartError
from processors.frames import FrameRequest, FrameSampling
from processors.resize import Fitted
from processors.stage import ModelIdentity, Resources, Stage
"""
WHOLE = """
class Mine(Stage):
    name = "mine"
    def inputs(self): return ("fps",)
    def outputs(self): return ("twice",)
    def process(self, batch): return [{"twice": 2 * s["fps"]} for s in batch]
"""
AVAILABLE = (*COLUMNS_OF_EVERY_CLIP, "motion_score")


def operator(folder: Path, source: str, **parameters: Any) -> CustomStage:
    (folder / "my_stage.py").write_text(HEAD + source, encoding="utf-8")
    return custom_stage("my_stage.py:Mine", parameters, folder)


def changed(old: str, new: str) -> str:
    assert old in WHOLE
    return WHOLE.replace(old, new)


def hosted(folder: Path, source: str, **parameters: Any) -> HostedStage:
    stage = stage_of(operator(folder, source, **parameters), AVAILABLE)
    stage.setup()
    return stage


def problem(folder: Path, source: str, **parameters: Any) -> str:
    """What is wrong, without the file and the class, which every such line begins with."""
    made = operator(folder, source, **parameters)
    with pytest.raises(ConfigError) as caught:
        stage_of(made, AVAILABLE, names=("other",))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{made.file}: Mine: ")
    assert "cliplake_custom" not in text
    return text.removeprefix(f"{made.file}: Mine: ")


FRAMES = """
class Mine(Stage):
    name = "mine"
    def inputs(self): return ("pictures", "fps")
    def outputs(self): return ("count",)
    def frames(self): return FrameRequest("pictures", FrameSampling("uniform", 2), Fitted(64))
    def process(self, batch): return [{"count": len(s["pictures"])} for s in batch]
"""


def framed(old: str, new: str) -> str:
    assert old in FRAMES
    return FRAMES.replace(old, new)


def run(stage: HostedStage, **columns: Any) -> Any:
    (result,) = stage.run([{"fps": 10.0, **columns}])
    return result


def blamed(stage: HostedStage) -> str:
    error = run(stage)
    assert isinstance(error, MediaError)
    assert error.reason is MediaReason.STAGE_ERROR
    assert error.stage == "mine"
    return error.error
