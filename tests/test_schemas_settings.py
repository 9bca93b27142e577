"""Settings: file, then environment; what would be silently without effect is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.problems import ConfigError
from schemas.settings import (
    CHECKOUT,
    Settings,
    dump_settings,
    load_settings,
    load_settings_json,
)


@pytest.fixture(autouse=True)
def _nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file and no variables of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    import os

    for name in list(os.environ):
        if name.upper().startswith("CLIPLAKE"):
            monkeypatch.delenv(name)


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    return file


def refused(path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return str(caught.value)


def test_without_a_file_everything_has_a_default() -> None:
    settings = load_settings()
    assert settings.kafka.bootstrap_servers == "127.0.0.1:9092"
    assert settings.fetch.file_roots == ()
    assert settings.state_dir.is_absolute()
    assert settings.catalog_options["warehouse"].startswith("file:///")


def test_the_file_of_the_working_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "cliplake.yaml").write_text("kafka: {topic: mine}")
    assert load_settings().kafka.topic == "mine"


def test_a_variable_wins_over_the_file_and_leaves_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "kafka: {topic: mine, partitions: 7}\nfetch: {file_roots: [/a, /b]}")
    monkeypatch.setenv("CLIPLAKE__KAFKA__TOPIC", "other")
    settings = load_settings(file)
    assert (settings.kafka.topic, settings.kafka.partitions) == ("other", 7)
    assert settings.fetch.file_roots == ("/a", "/b")


def test_the_file_may_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPLAKE_SETTINGS", str(write(tmp_path, "kafka: {topic: named}")))
    assert load_settings().kafka.topic == "named"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kafak: {}", "unknown key 'kafak'; did you mean 'kafka'?"),
        ("fetch: {file_roots: /videos}", "fetch.file_roots: Input should be a list"),
        ("kafka: {topics: a}", "unknown key 'kafka.topics'; did you mean 'topic'?"),
        ("flink: {parallelism: many}", "flink.parallelism"),
        ("flink: {parallelism: 0}", "flink.parallelism"),
        ("kafka: {client: {security.protocol: SSL}}", "bootstrap.servers is missing"),
        ("kafka: nothing", "kafka"),
        ("kafka:", "kafka"),
        ("- kafka", "should hold sections"),
        ("kafka: [", "not YAML"),
        ("recipe: a\nrecipe: b", "there twice"),
        ("local: {kafka_port: 70000}", "local.kafka_port"),
        ("log_level: LOUD", "log_level"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_nearest_key(
    tmp_path: Path, text: str, says: str
) -> None:
    problem = refused(write(tmp_path, text))
    assert says in problem
    assert "s.yaml" in problem


def test_every_problem_of_a_file_is_listed_at_once(tmp_path: Path) -> None:
    problem = refused(write(tmp_path, "kafak: {}\nflink: {paralelism: 2}"))
    assert "'kafka'" in problem
    assert "'parallelism'" in problem


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CLIPLAKE__KAFAK__TOPIC", "a", "did you mean 'kafka'?"),
        ("CLIPLAKE__KAFKA__TOPICS", "a", "did you mean 'topic'?"),
        ("CLIPLAKE__FETCH__FILE_ROOTS", "/videos", "JSON"),
        ("CLIPLAKE__KAFKA", "a", "JSON"),
        ("CLIPLAKE__FLINK__PARALLELISM", "many", "flink.parallelism"),
        ("CLIPLAKE_SETTINGS", "/gone/s.yaml", "/gone/s.yaml is not there"),
    ],
)
def test_a_variable_without_effect_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)
    assert says in refused()


def test_a_section_given_in_code_wins_over_the_file_and_not_over_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, "kafka: {topic: file, partitions: 3}")
    assert load_settings(file, kafka={"topic": "code"}).kafka.topic == "code"
    assert load_settings(file, kafka={"topic": "code"}).kafka.partitions == 3
    monkeypatch.setenv("CLIPLAKE__KAFKA__TOPIC", "variable")
    assert load_settings(file, kafka={"topic": "code"}).kafka.topic == "variable"


def test_a_child_process_has_exactly_the_parent_s_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(fetch={"file_roots": ["/a"]}, kafka={"topic": "exact"})
    file = tmp_path / "s.json"
    file.write_text(dump_settings(settings))
    (tmp_path / "cliplake.yaml").write_text("kafka: {topic: file}")
    monkeypatch.setenv("CLIPLAKE__KAFKA__TOPIC", "variable")
    assert load_settings().kafka.topic == "variable"
    again = load_settings_json(file)
    assert isinstance(again, Settings)
    assert again.model_dump() == settings.anchored().model_dump()


def test_a_child_process_in_another_folder_finds_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").touch()
    settings = load_settings(
        recipe="mine.yaml", fetch={"file_roots": ["videos", "/abs"]}, local={"state_dir": "state"}
    )
    file = tmp_path / "s.json"
    file.write_text(dump_settings(settings))
    monkeypatch.chdir("/")
    again = load_settings_json(file)
    assert again.recipe_file == tmp_path / "mine.yaml"
    assert again.fetch.file_roots == (str(tmp_path / "videos"), "/abs")
    assert again.state_dir == tmp_path / "state"
    assert again.model_dir == CHECKOUT / ".cache" / "models"
    assert again.catalog_options == {"warehouse": (tmp_path / "state" / "lake").as_uri()}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"kafak": {}}'])
def test_settings_that_did_not_arrive_whole_are_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"s\.json"):
        load_settings_json(file)


def test_places_follow_the_state_folder_unless_they_are_set(tmp_path: Path) -> None:
    settings = load_settings(local={"state_dir": str(tmp_path / "state")})
    assert settings.scratch_dir == tmp_path / "state" / "scratch"
    assert settings.checkpoint_dir == (tmp_path / "state" / "checkpoints").as_uri()
    assert settings.model_dir == CHECKOUT / ".cache" / "models"
    moved = load_settings(
        catalog={"options": {"warehouse": "s3://lake/"}}, flink={"checkpoint_dir": "s3://state/"}
    )
    assert moved.catalog_options == {"warehouse": "s3://lake/"}
    assert moved.checkpoint_dir == "s3://state/"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("video-uploads", "every dead letter would be read as a message"),
        ("a/b", "249 of the characters"),
        ("..", "249 of the characters"),
        ("x" * 250, "249 of the characters"),
    ],
)
def test_a_topic_for_dead_letters_is_another_one_with_a_name_that_kafka_takes(
    tmp_path: Path, name: str, says: str
) -> None:
    assert load_settings().kafka.dead_letter_topic == ""
    good = write(tmp_path, "kafka: {dead_letter_topic: video-uploads.dead_1}")
    assert load_settings(good).kafka.dead_letter_topic == "video-uploads.dead_1"
    assert says in refused(write(tmp_path, f"kafka: {{dead_letter_topic: {name}}}"))
    assert "249 of the characters" in refused(write(tmp_path, "kafka: {topic: ''}"))
