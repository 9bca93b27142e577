"""Which clips have their row: by the newest version of each, under the present recipe."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from processors.errors import MediaError
from processors.pool.commits import Committer
from processors.pool.done import DoneClips, key_bytes, load_done
from processors.pool.lake import Lake
from processors.pool.position import Position
from processors.results import failed, passed
from schemas.reasons import MediaReason
from schemas.recipe import Recipe
from tests import pool_lake


def ids(*numbers: int) -> pa.ChunkedArray:
    return pa.chunked_array([[pool_lake.clip_id(n) for n in numbers]])


def offsets(*numbers: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(numbers, pa.int64())])


def enrich(lake: Lake, epoch: int, recipe: Recipe, *numbers: int) -> None:
    committer = Committer(lake, epoch)
    for n in numbers:
        committer.add(passed(pool_lake.clip(n), recipe, {}), (epoch << 40) + n)
    committer.commit(Position("t", 1, epoch=epoch))


def test_an_id_is_new_once() -> None:
    done = DoneClips()
    assert done.admit(ids(1, 2, 1)).tolist() == [True, True, False]
    assert done.admit(ids(2, 3)).tolist() == [False, True]
    assert len(done) == 3


def test_ids_stay_known_when_many_are_added() -> None:
    done = DoneClips()
    all_ids = pa.chunked_array([[os.urandom(16).hex() for _ in range(120_000)]])
    for start in range(0, 120_000, 7_000):
        assert done.admit(all_ids.slice(start, 7_000)).all()
    assert not done.admit(all_ids).any()
    assert len(done) == 120_000


def test_ids_that_end_in_zero_bytes_are_told_apart() -> None:
    similar = pa.chunked_array([["00" * 16, "ab" + "00" * 15, "ab" + "00" * 14 + "01"]])
    assert DoneClips().admit(similar).all()
    assert not DoneClips(key_bytes(similar)).admit(similar).any()
    assert DoneClips(key_bytes(similar)).admit(ids(1)).all()


def test_what_is_no_clip_id_is_an_error() -> None:
    with pytest.raises(ValueError, match="32 hexadecimal"):
        key_bytes(pa.chunked_array([["short"]]))
    with pytest.raises(ValueError, match="hexadecimal"):
        key_bytes(pa.chunked_array([["zz" * 16]]))


def test_a_slice_of_ids_is_read_as_that_slice() -> None:
    whole = pa.array([pool_lake.clip_id(n) for n in range(9)])
    assert np.array_equal(key_bytes(whole.slice(4, 3)), key_bytes(whole)[4:7])


def test_rows_of_the_present_recipe_are_done_and_others_are_not(tmp_path: Path) -> None:
    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    old, new = pool_lake.recipe(0.1), pool_lake.recipe(0.2)
    assert len(load_done(lake, new)) == 0
    enrich(lake, 1, old, 1, 2, 3)
    enrich(lake, 2, new, 2)
    assert load_done(lake, new).admit(ids(1, 2, 3, 4)).tolist() == [True, False, True, True]
    assert load_done(lake, old).admit(ids(1, 2, 3, 4)).tolist() == [False, True, False, True]


def test_a_clip_that_failed_is_new_for_a_later_message_alone() -> None:
    done = DoneClips()
    assert done.admit(ids(1, 2), offsets(5, 5)).all()
    assert not done.finish(pool_lake.clip_id(1), 5, failed=True)
    assert not done.finish(pool_lake.clip_id(2), 5, failed=False)
    assert done.admit(ids(1, 2), offsets(5, 9)).tolist() == [False, False]
    assert done.admit(ids(1, 1), offsets(9, 9)).tolist() == [True, False]
    # It succeeds: whoever asks learns that its letter is resolved, once.
    assert done.finish(pool_lake.clip_id(1), 9, failed=False)
    assert done.admit(ids(1), offsets(11)).tolist() == [False]
    assert not done.finish(pool_lake.clip_id(1), 11, failed=False)


def test_clips_that_failed_are_found_in_the_lake_by_their_newest_row(tmp_path: Path) -> None:
    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    recipe, error = pool_lake.recipe(), MediaError(MediaReason.NOT_FOUND, "gone", stage="fetch")
    committer = Committer(lake, 1)
    for n in (1, 2, 3):
        committer.add(failed(pool_lake.clip(n), recipe, error), (1 << 40) + n)
    committer.commit(Position("t", 1, epoch=1))
    enrich(lake, 2, recipe, 2)
    done = load_done(lake, recipe)
    assert done.admit(ids(1, 2, 3), offsets(1, 99, 4)).tolist() == [False, False, True]
    other = load_done(lake, pool_lake.recipe(0.9))
    assert other.admit(ids(1), offsets(1)).tolist() == [True]
    assert other.finish(pool_lake.clip_id(1), 1, failed=False)
