"""Ids are promises: what they are today they stay, or every replay makes other rows."""

from __future__ import annotations

from schemas import ids


def test_ids_are_what_they_have_always_been() -> None:
    key = ids.video_key("v1", "file:///videos/a.mp4")
    assert ids.default_video_id("file:///videos/a.mp4") == "f09f3eeec7349602c92af3377dfe9206"
    assert key == "34bf46ab9fa69727857fc4e8d1bf46c7"
    assert ids.video_key("v1", "file:///videos/a.mp4", "etag") == "543e25f6db53ae5c7ba0b554195d2f56"
    assert (
        ids.clip_id(key, "0123456789abcdef", 0, 51200, "1/12800")
        == "8daf9956d90fc171506a6abdeb335c48"
    )
    assert ids.fingerprint({"threshold": 27.0, "min_scene_len": 15}) == "bcad092e6c2ff838"


def test_an_empty_etag_is_not_no_etag() -> None:
    assert ids.video_key("v", "u", "") != ids.video_key("v", "u")


def test_parts_do_not_run_into_each_other() -> None:
    assert ids.video_key("ab", "c") != ids.video_key("a", "bc")
    assert ids.video_key("a", "b", "c") != ids.video_key("a", "bc")
    assert ids.clip_id("k", "f", 1, 12, "1/5") != ids.clip_id("k", "f", 11, 2, "1/5")


def test_every_part_of_a_clip_counts() -> None:
    base = ("key", "fingerprint", 0, 100, "1/25")
    others = [
        ("other", *base[1:]),
        ("key", "other", *base[2:]),
        ("key", "fingerprint", 1, 100, "1/25"),
        ("key", "fingerprint", 0, 101, "1/25"),
        ("key", "fingerprint", 0, 100, "1/50"),
    ]
    assert len({ids.clip_id(*parts) for parts in (base, *others)}) == 6


def test_a_fingerprint_does_not_depend_on_the_order_of_parameters() -> None:
    assert ids.fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == ids.fingerprint(
        {"b": {"d": 3, "c": 2}, "a": 1}
    )
