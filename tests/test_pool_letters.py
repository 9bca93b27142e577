"""Dead letters are read in order with their messages, and where that ends is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from processors.pool.consumer import heal_consumers
from processors.pool.errors import SourceLost
from processors.pool.lake import Lake
from processors.pool.letter_positions import (
    CONSUMER_ID,
    LetterPositions,
    positions_file,
    stop_publishing,
    way_out,
)
from processors.pool.letters import LetterSource
from schemas.letter import LETTER_TABLES, Letter
from schemas.settings import Settings
from tests import letter_lake as letters
from tests import pool_lake


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return pool_lake.settings(tmp_path)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return pool_lake.new_lake(settings)


def read_on(settings: Settings, lake: Lake, most: int = 100) -> list[Letter]:
    """What a publisher that starts now would send, until nothing is new; it is noted as sent."""
    positions = LetterPositions(settings)
    source = LetterSource(lake, positions.begin(lake), way_out(settings))
    found: list[Letter] = []
    while chunks := [*source.read(most)]:
        for chunk in chunks:
            assert len(chunk.letters) <= most
            found += chunk.letters
            positions.move(lake, chunk.table, chunk.after)
    return found


def held(lake: Lake) -> dict[str, int]:
    """Snapshot from which each table is held."""
    found = {}
    for table in LETTER_TABLES:
        consumers = lake.table(table.name).consumer_manager().consumers()
        if CONSUMER_ID in consumers:
            found[table.name] = consumers[CONSUMER_ID]
    return found


def test_letters_of_three_tables_come_with_their_messages(settings: Settings, lake: Lake) -> None:
    letters.write(lake, "rejected_messages", letters.rejected(3, b"junk"))
    letters.write(lake, "videos", letters.video(1), letters.video(2), letters.video(7))
    letters.write(lake, "failed_videos", letters.failed_video(1), letters.failed_video(9))
    letters.write(lake, "failed_clips", letters.failed_clip(2, 0), letters.failed_clip(2, 1))
    found = {letter.id: letter for letter in read_on(settings, lake)}
    assert {id: letter.message for id, letter in found.items()} == {
        "video-uploads[0]@3": b"junk",
        letters.key(1): b"message 1",
        letters.key(9): None,
        letters.key(2000): b"message 2",
        letters.key(2001): b"message 2",
    }
    assert {letter.stage for letter in found.values()} == {"arrivals", "fetch", "decode"}


def test_a_start_goes_on_where_the_last_one_was(settings: Settings, lake: Lake) -> None:
    for offset in range(3):
        letters.write(lake, "failed_videos", letters.failed_video(offset))
    assert len(read_on(settings, lake)) == 3
    assert read_on(settings, Lake(settings)) == []
    letters.write(lake, "failed_videos", *map(letters.failed_video, range(10, 17)))
    assert len(read_on(settings, Lake(settings), most=2)) == 7
    assert read_on(settings, Lake(settings)) == []


def test_what_was_resolved_is_no_letter_and_what_fails_again_is_one(
    settings: Settings, lake: Lake
) -> None:
    letters.write(lake, "failed_videos", letters.failed_video(1), letters.failed_video(2))
    letters.write(lake, "failed_videos", letters.failed_video(1, resolved_at=letters.NOW))
    (first,) = read_on(settings, lake)
    assert first.id == letters.key(2)
    again = letters.failed_video(2, kafka_offset=5)
    letters.write(lake, "failed_videos", letters.failed_video(2, resolved_at=letters.NOW), again)
    (second,) = read_on(settings, lake)
    assert second.id == first.id
    assert dict(second.headers())["cliplake-letter-id"] != dict(first.headers())[
        "cliplake-letter-id"
    ]  # fmt: skip


def test_snapshots_that_are_still_to_be_read_are_held(settings: Settings, lake: Lake) -> None:
    positions = LetterPositions(settings)
    positions.begin(lake)
    assert held(lake) == {table.name: 1 for table in LETTER_TABLES}
    letters.write(lake, "failed_videos", letters.failed_video(1))
    read_on(settings, lake)
    assert held(lake)["failed_videos"] == 2
    stop_publishing(settings, lake)
    assert held(lake) == {}
    assert not positions_file(settings).exists()
    # Switched on again it begins with all there is.
    assert len(read_on(settings, lake)) == 1


def test_a_claim_that_was_lost_is_made_anew(settings: Settings, lake: Lake) -> None:
    read_on(settings, lake)
    file = Path(lake.table("failed_videos").table_path.removeprefix("file:"))
    (claim,) = (file / "consumer").glob(f"*{CONSUMER_ID}")
    claim.write_text("")
    assert heal_consumers(lake, ["failed_videos"])
    claim.unlink()
    read_on(settings, lake)
    assert held(lake)["failed_videos"] == 1


def test_an_expired_snapshot_says_what_to_do(settings: Settings, lake: Lake) -> None:
    read_on(settings, lake)
    for offset in range(4):
        letters.write(lake, "failed_videos", letters.failed_video(offset))
    pool_lake.expire(lake, "failed_videos", [1, 2])
    with pytest.raises(
        SourceLost, match=r"snapshot 1 of failed_videos has expired.*remove /.*/"
    ) as e:
        read_on(settings, lake)
    assert str(positions_file(settings)) in str(e.value)
    positions_file(settings).unlink()
    assert len(read_on(settings, lake)) == 4


def test_a_table_made_again_is_noticed(settings: Settings, lake: Lake) -> None:
    letters.write(lake, "failed_clips", letters.failed_clip(1, 0))
    read_on(settings, lake)
    pool_lake.recreate(lake, "failed_clips")
    letters.write(lake, "failed_clips", letters.failed_clip(1, 1))
    with pytest.raises(SourceLost, match="failed_clips is not the one that was read before"):
        read_on(settings, Lake(settings))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"failed_videos": {}}', '{"failed_videos": 1}', "\x00"]
)
def test_a_position_that_cannot_be_read_says_what_to_do(
    text: str, settings: Settings, lake: Lake
) -> None:
    positions_file(settings).parent.mkdir()
    positions_file(settings).write_text(text)
    with pytest.raises(SourceLost, match=r"cannot be read.*remove "):
        read_on(settings, lake)
