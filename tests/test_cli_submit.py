"""What `submit` makes of what people type."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliplake.commands.submit import reference_of
from cliplake.demo import expand
from schemas.message import parse_message, render_message
from schemas.problems import ConfigError


@pytest.mark.parametrize(
    "uri", ["s3://bucket/key.mp4", "https://host/a.mp4?x=1", "file:///videos/a.mp4"]
)
def test_a_uri_goes_as_it_is(uri: str) -> None:
    assert reference_of(uri) == uri


@pytest.mark.parametrize("name", ["a.mp4", "a b%.mp4", "ключ.mp4", "a:b.mp4", "#1?.mp4"])
def test_a_path_becomes_an_absolute_uri_that_leads_back_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from urllib.parse import unquote, urlsplit

    (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    uri = reference_of(name)
    assert unquote(urlsplit(uri).path) == str(tmp_path / name)
    assert parse_message(render_message(uri))[0].uri == uri


@pytest.mark.parametrize("name", ["gone.mp4", "."])
def test_what_is_no_file_and_no_uri_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        reference_of(name)


def test_the_demo_takes_patterns_and_names_each_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.mp4", "a.mp4", "c [1].mp4"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [f.name for f in expand(["[ab].mp4", "a.mp4"])] == ["a.mp4", "b.mp4"]
    assert [f.name for f in expand(["c [1].mp4"])] == ["c [1].mp4"]
    with pytest.raises(ConfigError, match=r"\*\.avi"):
        expand(["*.avi"])
