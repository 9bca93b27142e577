"""DataJuicer's operators by signature: what they are called, what they take, what cannot stream.

The table beside this module is made by ``docs/generate_operators.py`` of one version of the
package. Nothing of DataJuicer is imported or run: a recipe is checked where it is not installed.
Imported in DataJuicer's environment as well, so it needs nothing but Python.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

SERVER_KEY = "CLIPLAKE_KEY_DATAJUICER"
"""The environment variable whose value operators send to the servers that a recipe names."""
TABLE = Path(__file__).with_name("datajuicer_operators.json")

_WHOLE_DATA_SET = "it needs the whole data set, and a stream has no end"
_ONE_ROW = "it makes several samples of one, and a clip is one row"
_CHANGES_VIDEO = (
    "it writes another video, and a clip is a range of the uploaded one: nothing is encoded here"
)
_CHANGES_IMAGES = (
    "it writes other images, and a clip's frames are those of the uploaded video: no later stage "
    "would see what it wrote"
)
_ENTRIES = "name the operators themselves under process, in their order"

_KINDS_REFUSED = {
    "deduplicator": f"a deduplicator compares samples with all others: {_WHOLE_DATA_SET}",
    "selector": f"a selector ranks or draws samples among all others: {_WHOLE_DATA_SET}",
    "grouper": f"a grouper puts samples together: {_WHOLE_DATA_SET}",
    "aggregator": "an aggregator reads the groups of a grouper, and a stream has none",
    "pipeline": "a pipeline runs a data set of its own through Ray Data",
    "fused": f"fused operators are DataJuicer's own rewriting of a recipe; {_ENTRIES}",
}
_SPLITS = (
    "video_split_by_duration_mapper",
    "video_split_by_key_frame_mapper",
    "video_split_by_scene_mapper",
    "video_clip_reassembly_mapper",
)
_NAMES_REFUSED = {
    **dict.fromkeys(
        _SPLITS, "it would cut again what video_split_by_scene_mapper has cut, and there is one cut"
    ),
    **dict.fromkeys(
        (
            "video_trajectory_overlay_mapper",
            "video_undistort_mapper",
        ),
        _CHANGES_VIDEO,
    ),
    **dict.fromkeys(
        (
            "generate_qa_from_examples_mapper",
            "generate_qa_from_text_mapper",
            "image_diffusion_mapper",
            "nlpaug_en_mapper",
            "nlpcda_zh_mapper",
            "sdxl_prompt2prompt_mapper",
            "text_chunk_mapper",
        ),
        _ONE_ROW,
    ),
    **dict.fromkeys(
        ("download_file_mapper", "s3_download_file_mapper"),
        "videos are fetched before the split, under the rules of the settings (fetch)",
    ),
    **dict.fromkeys(
        ("export_to_lerobot_mapper", "s3_upload_file_mapper"),
        "it writes files, and what is found out about a clip is written to the lake's tables",
    ),
    "human_preference_annotation_mapper": "it waits for a person's answer",
    "python_file_mapper": (
        "the file's code would not be part of the scores' fingerprint; name a class in process "
        "instead, like my_stage.py:MyStage"
    ),
}
_AUDIO_FILES = "it reads audio files, and a clip is a range of a video"
_SOUND = "it listens to the sound of a clip, and clips are decoded without sound"
_NOTHING_READ = "it reads none of video, images and text, which is what a clip has"

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "mapping": (dict,),
    "list": (list,),
    "null": (type(None),),
}


class Modality(StrEnum):
    """A part of a clip that an operator can be given."""

    VIDEO = "video"
    """An exact cut of the clip."""
    FRAMES = "frames"
    """Its sampled frames, as images."""
    TEXT = "text"
    """Its caption."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operator, as its constructor declares it."""

    types: tuple[str, ...] = ()
    """Names in `_PYTHON_TYPES`; empty if anything goes."""
    default: Any = None
    has_default: bool = False
    """Whether ``default`` is known; one that is made when the operator runs is not."""
    required: bool = False
    gate: bool = False
    """Whether only a filter's verdict depends on it, and no statistic."""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None

    @property
    def is_float(self) -> bool:
        return "number" in self.types and not {"integer", "boolean"} & set(self.types)

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, in words; None if it may be given."""
        kinds = tuple(kind for name in self.types for kind in _PYTHON_TYPES[name])
        is_bool = isinstance(value, bool)
        if self.types and (
            not isinstance(value, kinds) or (is_bool and "boolean" not in self.types)
        ):
            return f"should be {' or '.join(self.types)} (got {value!r})"
        if not isinstance(value, int | float) or is_bool:
            return None
        if abs(value) > sys.float_info.max or math.isnan(value):
            return "should be a finite number"
        if self.minimum is not None and value < self.minimum:
            return f"should be {self.minimum} or more (got {value!r})"
        if self.above is not None and value <= self.above:
            return f"should be above {self.above} (got {value!r})"
        if self.maximum is not None and value > self.maximum:
            return f"should be {self.maximum} or less (got {value!r})"
        return None


@dataclass(frozen=True)
class Signature:
    """One operator of DataJuicer."""

    name: str
    kind: str
    """``filter``, ``mapper`` or one of those that cannot stream."""
    parameters: dict[str, Parameter]
    reads: frozenset[Modality] = frozenset()
    """What it is given of a clip."""
    writes: frozenset[Modality] = frozenset()
    """What its code puts something else in place of."""
    sound: bool = False
    """Whether its code is about sound."""
    bounds: tuple[tuple[str, str | None, str | None], ...] = ()
    """Of a filter whose verdict is that statistics lie in ranges: each statistic, and the
    parameters that are its lower and its upper bound, both included. Else empty."""

    def why_not(self) -> str | None:
        """Why it cannot run on the clips of a stream; None if it can."""
        if self.name in _NAMES_REFUSED:
            return _NAMES_REFUSED[self.name]
        if self.kind in _KINDS_REFUSED:
            return _KINDS_REFUSED[self.kind]
        if self.name.startswith("audio_"):
            return _AUDIO_FILES
        if "valid_dataset" in self.parameters:
            return f"it compares with a data set of its own: {_WHOLE_DATA_SET}"
        if self.sound:
            return _SOUND
        if Modality.VIDEO in self.writes:
            return _CHANGES_VIDEO
        if Modality.FRAMES in self.writes:
            return _CHANGES_IMAGES
        return None if self.reads else _NOTHING_READ


@dataclass(frozen=True)
class Signatures:
    """All operators of one version of DataJuicer, and what its recipes may say beside them."""

    version: str
    operators: dict[str, Signature]
    base_parameters: frozenset[str]
    """Parameters that every operator, or every filter, takes for how it runs."""
    config_keys: frozenset[str]
    """Keys at the top of a configuration file."""
    result_names: frozenset[str]
    """Names under which operators leave statistics and tags."""


@cache
def signatures() -> Signatures:
    """The table, read once."""
    content = json.loads(TABLE.read_text(encoding="utf-8"))
    every_filter = content["filter_parameters"]
    judging = {name: _parameter(e) for name, e in every_filter.items() if e.get("gate")}
    return Signatures(
        version=content["version"],
        operators={n: _signature(n, e, judging) for n, e in content["operators"].items()},
        base_parameters=frozenset(content["base_parameters"]) | (every_filter.keys() - judging),
        config_keys=frozenset(content["config_keys"]),
        result_names=frozenset(n for names in content["result_names"].values() for n in names),
    )


def _signature(name: str, entry: dict[str, Any], judging: dict[str, Parameter]) -> Signature:
    parameters = {parameter: _parameter(e) for parameter, e in entry["parameters"].items()}
    return Signature(
        name=name,
        kind=entry["kind"],
        parameters=({**judging, **parameters} if entry["kind"] == "filter" else parameters),
        reads=frozenset(map(Modality, entry.get("reads", ()))),
        writes=frozenset(map(Modality, entry.get("writes", ()))),
        sound=entry.get("sound", False),
        bounds=tuple((s, lower, upper) for s, lower, upper in entry.get("bounds", ())),
    )


def _parameter(entry: dict[str, Any]) -> Parameter:
    others = {key: value for key, value in entry.items() if key != "types"}
    return Parameter(types=tuple(entry.get("types", ())), has_default="default" in entry, **others)
