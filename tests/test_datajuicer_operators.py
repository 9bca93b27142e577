"""Operators of DataJuicer through our stage give what DataJuicer's own run gives.

The same files, frames and texts go to both: to the stage through the host process, and to the
plain script `datajuicer_own_run`, which knows nothing of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from clip_media import span
from datajuicer_cases import PYTHON, need_datajuicer, settings_in, stage_on
from media import sample

from processors.clip_files import ClipFiles
from processors.datajuicer.hosts import DataJuicerHost
from processors.errors import MediaError
from processors.frames import FrameSampling
from processors.stage import FileRequest, Sample
from schemas.settings import Settings

pytestmark = pytest.mark.datajuicer

TEXTS = (
    "Two people ride their bikes, see https://example.org/bikes or write to ride@example.org ！",
    "a a a a a a a a a a rabbit\n\nthe   rabbit　looks <table><tr><td>up</td></tr></table> #$%&",
)
FRAMES = 3
STORED_DECIMALS = 0.51e-10
"""Its run keeps statistics as JSON of ten decimals."""

OPERATORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("video_resolution_filter", {"min_width": 641}),
    ("video_aspect_ratio_filter", {"min_ratio": "9/21", "max_ratio": "2/1"}),
    ("video_duration_filter", {"max_duration": 2.2, "video_backend": "av"}),
    ("video_motion_score_filter", {"min_score": 2.0, "sampling_fps": 1, "size": 120}),
    ("image_shape_filter", {"min_height": 300, "any_or_all": "all"}),
    ("image_aspect_ratio_filter", {"max_ratio": 2.0}),
    ("image_size_filter", {"max_size": "250 KB"}),
    ("image_subplot_filter", {}),
    ("alphanumeric_filter", {"min_ratio": 0.7}),
    ("character_repetition_filter", {"rep_len": 3, "max_ratio": 0.1}),
    ("word_repetition_filter", {"rep_len": 2, "max_ratio": 0.3}),
    ("special_characters_filter", {"max_ratio": 0.3}),
    ("text_length_filter", {"min_len": 89}),
    ("words_num_filter", {"min_num": 14}),
    ("average_line_length_filter", {"min_len": 40}),
    ("whitespace_normalization_mapper", {}),
    ("punctuation_normalization_mapper", {}),
    ("clean_links_mapper", {}),
    ("clean_email_mapper", {"repl": "<mail>"}),
    ("remove_specific_chars_mapper", {"chars_to_remove": "#$%"}),
    ("remove_long_words_mapper", {"max_len": 10}),
    ("extract_tables_from_html_mapper", {}),
)
NAMES = [name for name, _ in OPERATORS]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    need_datajuicer()
    return settings_in(tmp_path_factory.mktemp("operators"))


@pytest.fixture(scope="module")
def clips(settings: Settings) -> Iterator[list[Sample]]:
    """Two clips of two real videos: as files, as frames and with a caption."""
    wanted, sampling = FileRequest(cut=True, frames=True), FrameSampling("uniform", FRAMES)
    found = []
    with ExitStack() as cleanup:
        files = ClipFiles(settings.decode, settings.scratch_dir, wanted, sampling)
        cleanup.callback(files.close)
        for name, start, end in (("bikes.mp4", 76, 137), ("bigbuckbunny.mp4", 10, 60)):
            path = sample(name)
            found.append(files.write(str(path), span(path, start, end), cleanup).columns)
        yield [{**columns, "caption": text} for columns, text in zip(found, TEXTS, strict=True)]


@pytest.fixture(scope="module")
def own_run(
    clips: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[str]]:
    """DataJuicer's own run, started: it imports its package while the host does as well."""
    samples = [
        {"videos": [c["clip_file"]], "images": c["frame_files"], "text": c["caption"]}
        for c in clips
    ]
    folder = tmp_path_factory.mktemp("own_run")
    asked = folder / "asked.json"
    asked.write_text(json.dumps({"samples": samples, "operators": OPERATORS}))
    environment = {"HF_DATASETS_CACHE": str(folder / "datasets"), "OMP_NUM_THREADS": "1"}
    with (
        asked.open() as file,
        subprocess.Popen(
            [PYTHON, "-P", Path(__file__).with_name("datajuicer_own_run.py")],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=(folder / "log").open("w"),
            env={**os.environ, **environment},
            text=True,
        ) as process,
    ):
        yield process
        process.kill()


@pytest.fixture(scope="module")
def host(own_run: object, settings: Settings) -> Iterator[DataJuicerHost]:
    host = DataJuicerHost(settings, OPERATORS)
    host.start()
    yield host
    host.close()


@pytest.fixture(scope="module")
def reference(own_run: subprocess.Popen[str], host: object) -> dict[str, Any]:
    """By operator: what DataJuicer says of each clip."""
    answers, _ = own_run.communicate()
    assert own_run.returncode == 0
    return dict(zip(NAMES, json.loads(answers), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_gives_what_datajuicers_own_run_gives(
    name: str,
    host: DataJuicerHost,
    settings: Settings,
    clips: list[Sample],
    reference: dict[str, Any],
) -> None:
    stage = stage_on(host, settings, name, dict(OPERATORS)[name])
    results = stage.run(clips)
    for clip, result, theirs in zip(clips, results, reference[name], strict=True):
        assert not isinstance(result, MediaError), result
        stats = theirs["row"].get("__dj__stats__") or {}
        meta = theirs["row"].get("__dj__meta__") or {}
        flags = {k: v for k, v in stats.items() if isinstance(v, bool)}
        numbers = {k: v for k, v in stats.items() if k not in flags}
        assert result["operator_stats"] == pytest.approx(
            {k: fmean(v) if isinstance(v, list) else v for k, v in numbers.items()},
            rel=0,
            abs=STORED_DECIMALS,
        )
        outputs = {k: json.loads(v) for k, v in result["operator_outputs"].items()}
        assert outputs == {**flags, **meta}
        assert (stage.rejects(result) is None) == theirs["kept"]
        assert result.get("caption", clip["caption"]) == theirs["row"]["text"]
        assert result["operator_versions"] == {name: "py-data-juicer 1.6.1"}


def test_the_comparison_has_both_verdicts_and_changes_of_text(reference: dict[str, Any]) -> None:
    filters = [name for name in NAMES if name.endswith("_filter")]
    verdicts = [answer["kept"] for name in filters for answer in reference[name]]
    assert verdicts.count(True) >= 10
    assert verdicts.count(False) >= 10
    changed = [
        name
        for name in NAMES
        if any(a["row"]["text"] != t for a, t in zip(reference[name], TEXTS, strict=True))
    ]
    assert len(changed) >= 6


def test_a_bad_file_fails_its_own_clip_and_no_other(
    host: DataJuicerHost, settings: Settings, clips: list[Sample], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"neither a video nor a picture")
    for name, column, value in (
        ("video_resolution_filter", "clip_file", str(broken)),
        # One that DataJuicer runs on whole batches.
        ("image_shape_filter", "frame_files", [str(broken)]),
    ):
        stage = stage_on(host, settings, name)
        first, second, third = stage.run([clips[0], {**clips[1], column: value}, clips[1]])
        assert isinstance(second, MediaError)
        assert second.stage == name
        assert "Error" in second.error
        (alone,) = stage.run([clips[1]])
        assert not isinstance(first, MediaError)
        assert first["operator_stats"] != {}
        assert third == alone


def test_results_are_joined_with_those_of_the_operators_before(
    host: DataJuicerHost, settings: Settings, clips: list[Sample]
) -> None:
    given = {
        **clips[0],
        "operator_stats": {"text_len": 5.0, "other": 1.0},
        "operator_outputs": {"tags": "[]"},
        "operator_versions": {"another_filter": "py-data-juicer 1.6.1"},
    }
    (result,) = stage_on(host, settings, "text_length_filter").run([given])
    assert not isinstance(result, MediaError)
    assert result["operator_stats"] == {
        "text_len": 5.0,
        "other": 1.0,
        "text_length_filter.text_len": float(len(TEXTS[0])),
    }
    assert result["operator_outputs"] == {"tags": "[]"}
    assert set(result["operator_versions"]) == {"another_filter", "text_length_filter"}
