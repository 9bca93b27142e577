"""A secret goes where it is needed and nowhere else: a canary is looked for after failing runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from deploy.local.state import StateFolder
from processors.pool.lake import Lake
from schemas.problems import ConfigError
from schemas.recipe import load_recipe
from schemas.settings import CHECKOUT, Settings, load_settings
from tests import clip_media, pool_lake
from tests.canary import arguments_with, files_with
from tests.chat_model import MODEL, Asked, ChatModel, completion, error
from tests.cli import cliplake
from tests.conftest import wait_until
from tests.media import write_video
from tests.servers import Answer

CANARY = "c4n4ry-9f1b7e"
KEY = f"sk-{CANARY}-key"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-s3",
    "HF_TOKEN": f"hf_{CANARY}",
    "CLIPLAKE_KEY_TEST": KEY,
    "CLIPLAKE__KAFKA__CLIENT": json.dumps(
        {
            "bootstrap.servers": "127.0.0.1:1",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="u" password="{CANARY}-kafka";',
        }
    ),
}
RECIPE = """
process:
  - video_split_by_scene_mapper
  - video_extract_frames_mapper
  - video_captioning_from_video_mapper:
      {{engine: openai, base_url: {url}, model: {model}, api_key_env: CLIPLAKE_KEY_TEST,
        attempts: 1}}
"""


class Echo:
    """A server that says the key that it was given, in the one way or the other."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)

    def __call__(self, asked: Asked) -> Answer | dict[str, object]:
        if asked.is_probe:
            return completion("fine")
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        words = f"no: Authorization: Bearer {KEY}\n{KEY}\x1b[2J"
        return error(status, words, WWW_Authenticate=f"Bearer {KEY}", X_Key=KEY)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder with a settings file, videos and a recipe's place; and one for temporary files."""
    # Sockets lie in there, whose paths may be no longer than 107 bytes.
    temporary = Path(tempfile.mkdtemp(prefix="cl-", dir="/tmp"))
    write_video(tmp_path / "good.mp4", (30,), size=(64, 48))
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    (tmp_path / "cliplake.yaml").write_text(
        f"recipe: recipe.yaml\nfetch: {{file_roots: ['{tmp_path}']}}\n"
        f"local: {{state_dir: '{tmp_path / 'state'}'}}\n"
        f"pool: {{poll_interval_s: 0.1, commit_interval_s: 0.1}}\n"
        "catalog: {options: {s3.access-key: AKIATEST}}\n"
    )
    yield tmp_path, temporary
    shutil.rmtree(temporary, ignore_errors=True)


def _variables(temporary: Path) -> dict[str, str]:
    folder = str(temporary)
    return {**SECRETS, "TMPDIR": folder, "RAY_TMPDIR": folder}


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_try_shows_no_key_that_a_server_says_back(
    status: int, debug: tuple[str, ...], place: tuple[Path, Path]
) -> None:
    folder, temporary = place
    model = ChatModel(reply=Echo(status))
    with model.serving() as server:
        (folder / "recipe.yaml").write_text(RECIPE.format(url=server.url, model=MODEL))
        done = cliplake(
            *debug,
            "try",
            "--json",
            "good.mp4",
            "bad.mp4",
            cwd=folder,
            timeout=200,
            **_variables(temporary),
        )
        assert server.requests[-1][1]["Authorization"] == f"Bearer {KEY}"
    assert model.clips, done.stderr
    assert "***" in done.stdout + done.stderr
    assert CANARY not in done.stdout
    assert CANARY not in done.stderr
    assert not files_with(CANARY, folder, temporary)


def _lake_with_a_clip(folder: Path, variables: Mapping[str, str]) -> tuple[Settings, Lake]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings = load_settings(folder / "cliplake.yaml")
    assert CANARY in settings.kafka.client["sasl.jaas.config"]
    lake = pool_lake.new_lake(settings)
    recipe = load_recipe(folder / "recipe.yaml")
    video = folder / "good.mp4"
    rows = [clip_media.clip(video, start, start + 10, recipe) for start in (0, 10, 20)]
    broken = {**rows[0], "clip_id": "f" * 32, "video_key": "bad"}
    broken |= {"uri": (folder / "bad.mp4").as_uri(), "content_sha256": None}
    pool_lake.append_clips(lake, [*rows, broken])
    return settings, lake


def test_the_pool_writes_no_secret_anywhere(place: tuple[Path, Path]) -> None:
    folder, temporary = place
    # Out first, which blames nobody and is logged; then each clip is refused.
    model = ChatModel(reply=Echo(401, 503, 400))
    variables = _variables(temporary)
    log = folder / "driver.log"
    with model.serving() as server:
        (folder / "recipe.yaml").write_text(RECIPE.format(url=server.url, model=MODEL))
        _, lake = _lake_with_a_clip(folder, variables)
        with log.open("wb") as output:
            driver = subprocess.Popen(
                [sys.executable, "-m", "cliplake.main", "--debug", "process"],
                cwd=folder,
                env={**os.environ, **variables, "PYTHONPATH": str(CHECKOUT)},
                stdout=output,
                stderr=output,
            )
        try:
            wait_until(lambda: model.asked or driver.poll() is not None, 120)
            assert not arguments_with(CANARY)
            wait_until(
                lambda: lake.read("enriched_clips").num_rows == 4 or driver.poll() is not None, 120
            )
            assert not arguments_with(CANARY)
            driver.send_signal(signal.SIGTERM)
            driver.wait(60)
        finally:
            driver.kill()
            driver.wait()
    failures = lake.read("failed_clips").to_pylist()
    assert len(failures) == 4, log.read_text(errors="replace")
    assert any("***" in row["error"] for row in failures)
    assert not any(CANARY in str(row) for row in failures)
    assert not any("\x1b" in row["error"] for row in failures)
    # What was looked through holds the driver's log, Ray's logs and the lake.
    assert log.stat().st_size > 0
    assert [*temporary.rglob("raylet.out")]
    assert [*folder.rglob("*.parquet")]
    assert not files_with(CANARY, folder, temporary)


def test_the_files_that_pass_settings_on_are_their_owner_s_alone_and_go(tmp_path: Path) -> None:
    settings = load_settings(
        kafka={"client": {"bootstrap.servers": "h:1", "sasl.jaas.config": CANARY}},
        local={"state_dir": str(tmp_path)},
    )
    state = StateFolder(tmp_path)
    state.own()
    (tmp_path / "settings.json.part").touch(mode=0o644)
    file = state.publish(settings, {"kafka": 1})
    assert CANARY in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    state.release()
    assert not files_with(CANARY, tmp_path)


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ("kafka", {"client": {"bootstrap.servers": "h:1", "sasl.password": 7341}}),
        ("kafka", {"client": {"bootstrap.servers": "h:1", "sasl.jaas.config": 7341}}),
        ("catalog", {"options": {"s3.secret-key": 7341}}),
        ("catalog", {"options": {"fs.oss.accessKeySecret": 7341}}),
        ("flink", {"options": {"s3.secret.key": 7341}}),
    ],
)
def test_an_option_of_a_wrong_type_is_named_and_a_secret_not_shown(
    section: str, options: dict[str, dict[str, object]]
) -> None:
    (name,) = set(next(iter(options.values()))) - {"bootstrap.servers"}
    with pytest.raises(ConfigError) as caught:
        load_settings(**{section: options})
    assert name in str(caught.value)
    assert "7341" not in str(caught.value)
