"""The process of DataJuicer's operators: what it refuses, how it comes back, and in the chain."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from clip_media import clip
from datajuicer_cases import PYTHON, need_datajuicer, settings_in, stage_on
from media import sample, write_video

from processors.chain import ClipResult, EnrichmentChain
from processors.datajuicer.hosts import ChildProcess, DataJuicerHost, HostGone
from processors.errors import DependencyFault, MediaError, StageStartError
from schemas.datajuicer import signatures
from schemas.reasons import ClipStatus, RejectReason
from schemas.recipe import Recipe, parse_recipe
from schemas.settings import Settings

pytestmark = pytest.mark.datajuicer

VERSION = signatures().version
TEXT = "a caption of the clip"
OPERATORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("text_length_filter", {}),
    ("fix_unicode_mapper", {}),
)
RECIPE = """
process:
  - video_split_by_scene_mapper
  - video_extract_frames_mapper: {frame_sampling_method: uniform, frame_num: 2}
  - video_motion_score_filter: {min_score: 3}
  - video_resolution_filter: {max_width: 1000}
  - image_shape_filter: {min_width: 200}
  - image_subplot_filter
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_datajuicer()
    return tmp_path_factory.mktemp("host")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Settings:
    return settings_in(folder, operator_timeout_s=20.0)


@pytest.fixture(scope="module")
def host(settings: Settings) -> Iterator[DataJuicerHost]:
    host = DataJuicerHost(settings, OPERATORS)
    host.start()
    yield host
    host.close()


def start(process: ChildProcess, name: str, **parameters: Any) -> dict[str, Any]:
    """What a host says that is to build one operator."""
    wanted = [(name, parameters, ["text"])]
    answer: dict[str, Any] = process.call("start", VERSION, wanted, deadline_s=120)
    return answer


def process_of_host() -> psutil.Process:
    """The child that runs operators, the youngest of them."""
    children = [
        child
        for child in psutil.Process().children()
        if "processors.datajuicer.host_child" in " ".join(child.cmdline())
    ]
    return max(children, key=psutil.Process.create_time)


def test_a_typo_in_the_interpreters_path_is_one_clear_line(folder: Path) -> None:
    wrong = settings_in(folder, datajuicer_python="/nowhere/bin/python")
    with pytest.raises(StageStartError) as caught:
        DataJuicerHost(wrong, OPERATORS).start()
    assert str(caught.value) == (
        "text_length_filter, fix_unicode_mapper run in DataJuicer's environment, and "
        "/nowhere/bin/python (pool.datajuicer_python) is no interpreter; make setup-datajuicer "
        "makes one"
    )


def test_an_interpreter_without_datajuicer_is_said_to_be(folder: Path) -> None:
    with pytest.raises(StageStartError, match="DataJuicer cannot be imported: ModuleNotFound") as e:
        DataJuicerHost(settings_in(folder, datajuicer_python=os.sys.executable), OPERATORS).start()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("text_lenght_filter", "DataJuicer has no operator of this name"),
        # Installs are prevented; the package that is missing is named.
        ("chinese_convert_mapper", "it needs the package opencc"),
        ("video_undistort_mapper", "it needs the package opencv-contrib-python"),
    ],
)
def test_what_cannot_be_built_is_said_at_the_start(
    bare: ChildProcess, name: str, reason: str
) -> None:
    answer = start(bare, name)
    assert answer["error"].startswith(f"operator {name} cannot start: ")
    assert reason in answer["error"]


@pytest.fixture(scope="module")
def bare(folder: Path) -> Iterator[ChildProcess]:
    """A host's process that can be started again and again, offline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        process = ChildProcess(PYTHON, 60)
    yield process
    process.end()


def test_a_model_that_is_not_there_is_missed_at_the_start(bare: ChildProcess) -> None:
    answer = start(bare, "token_num_filter")
    assert "operator token_num_filter cannot start" in answer["error"]
    assert "offline" in answer["error"]


def test_nothing_is_downloaded_where_the_hub_is_offline(bare: ChildProcess) -> None:
    answer = start(bare, "flagged_words_filter")
    assert "HF_HUB_OFFLINE is set, and it tried to download" in answer["error"]


def test_another_version_than_recipes_are_read_by_is_said_to_be_one(bare: ChildProcess) -> None:
    answer = bare.call("start", "1.5.0", [], deadline_s=60)
    assert answer["error"].startswith(
        f"DataJuicer is version {VERSION}, and recipes are read by the signatures of 1.5.0; "
    )


def test_a_package_that_is_missed_with_the_first_clip_blames_no_clip(
    host: DataJuicerHost, settings: Settings
) -> None:
    stage = stage_on(host, settings, "fix_unicode_mapper")
    with pytest.raises(DependencyFault, match=r"fix_unicode_mapper cannot run.*package ftfy"):
        stage.run([{"caption": TEXT}])


def test_a_killed_host_comes_back(host: DataJuicerHost, settings: Settings) -> None:
    stage = stage_on(host, settings, "text_length_filter")
    before = process_of_host()
    before.kill()
    results = stage.run([{"caption": TEXT}, {"caption": TEXT * 2}])
    lengths = [r["operator_stats"]["text_len"] for r in results if not isinstance(r, MediaError)]
    assert lengths == [len(TEXT), 2 * len(TEXT)]
    assert process_of_host().pid != before.pid
    stage.ping()


def test_a_host_that_hangs_is_ended_at_the_deadline(
    host: DataJuicerHost, settings: Settings
) -> None:
    host.start()
    stopped = process_of_host()
    stopped.send_signal(signal.SIGSTOP)
    with pytest.raises(HostGone, match="gave no answer within 1 s"):
        host.run("text_length_filter", {"text": TEXT}, deadline_s=1)
    assert not stopped.is_running()


def test_a_clip_that_hangs_its_operator_costs_no_other_one_its_place(folder: Path) -> None:
    # Its matches of a long text double with every letter.
    operators = [("clean_links_mapper", {"pattern": "(a|a)+$"})]
    settings = settings_in(folder, operator_timeout_s=5.0)
    host = DataJuicerHost(settings, operators)
    stage = stage_on(host, settings, *operators[0])
    first, hangs, last = stage.run([{"caption": c} for c in ("b a", "a" * 60 + "b", "c a")])
    host.close()
    assert isinstance(hangs, MediaError)
    assert "gave no answer within 5 s, twice" in hangs.error
    assert [r["caption"] for r in (first, last) if not isinstance(r, MediaError)] == ["b ", "c "]


def test_a_host_that_cannot_come_back_blames_no_clip(
    host: DataJuicerHost, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.close()
    monkeypatch.setattr(host, "_python", Path("/nowhere/bin/python"))
    with pytest.raises(DependencyFault, match="/nowhere/bin/python"):
        host.run("text_length_filter", {"text": TEXT}, deadline_s=20)


def recipe_of(text: str) -> Recipe:
    return parse_recipe(text, where="test", default_name="test")


def run(settings: Settings, recipe: Recipe, *rows: dict[str, Any]) -> list[ClipResult]:
    chain = EnrichmentChain(recipe, settings)
    try:
        chain.setup()
        return chain.run(rows)
    finally:
        chain.close()


def test_operators_take_their_place_in_the_chain(settings: Settings, folder: Path) -> None:
    recipe = recipe_of(RECIPE)
    still = write_video(folder / "still.mp4", (30,), size=(160, 90), motion=0)
    rows = [
        clip(sample("bikes.mp4"), 76, 137, recipe),
        clip(sample("bigbuckbunny.mp4"), 3, 30, recipe),
        clip(still, 0, 30, recipe),
    ]
    kept, wide, slow = run(settings, recipe, *rows)

    assert kept.status is ClipStatus.KEPT
    stats = kept.enriched["operator_stats"]
    assert [stats[n] for n in ("video_width", "image_width")] == [640, 640]
    assert "image_subplot_confidence" in stats
    assert kept.enriched["operator_outputs"] == {"subplot_detected": "false"}
    assert kept.enriched["operator_versions"] == dict.fromkeys(
        ("video_resolution_filter", "image_shape_filter", "image_subplot_filter"),
        "py-data-juicer 1.6.1",
    )

    # By the operator's own verdict; what it measured is kept, and nothing further is measured.
    assert wide.status is ClipStatus.REJECTED
    assert wide.enriched["reject_reason"] == "video_resolution_filter"
    assert wide.enriched["operator_stats"] == {"video_width": 1280, "video_height": 720}

    # By a gate before: files are made for clips that get that far.
    assert slow.enriched["reject_reason"] == RejectReason.LOW_MOTION
    made = ["cut" in r.enriched["stage_seconds"] for r in (kept, wide, slow)]
    assert made == [True, True, False]
    assert list(settings.scratch_dir.iterdir()) == []
