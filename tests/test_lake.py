"""The lake through pypaimon: tables are made once, and what differs is named."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pypaimon.schema.schema_change import SchemaChange

from cliplake.query import LakeSql
from deploy.local.ports import choose
from processors.pool.lake import Lake, LakeMismatch, LakeNotReady
from processors.pool.lake_store import require_answer
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings, load_settings
from schemas.tables import TABLES
from tests import pool_lake
from tests.servers import serve

STORE = {"warehouse": "s3://id:hidden@lake/warehouse", "s3.secret-key": "hidden"}


def unreachable(options: dict[str, str]) -> str:
    """What opening this lake for a query says."""
    with pytest.raises(Unreachable) as caught:
        LakeSql(load_settings(None, catalog={"options": options}))
    assert "hidden" not in str(caught.value)
    return str(caught.value)


def test_a_store_that_takes_no_connection_is_said_soon_and_without_its_keys() -> None:
    (port,) = choose(1)
    said = unreachable({**STORE, "s3.endpoint": f"http://127.0.0.1:{port}"})
    assert f"127.0.0.1:{port} does not answer" in said
    assert "s3.endpoint in catalog.options" in said


def test_a_store_that_takes_connections_and_says_nothing_is_said_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "does not answer" in unreachable(
            {**STORE, "s3.endpoint": f"http://127.0.0.1:{port}"}
        )


def test_only_addresses_that_the_lake_needs_are_asked(tmp_path: Path) -> None:
    (port,) = choose(1)
    nobody = f"127.0.0.1:{port}"
    require_answer({"warehouse": tmp_path.as_uri(), "s3.endpoint": f"http://{nobody}"})
    require_answer({**STORE, "s3.region": nobody})
    with serve({}) as server:
        # It says 404, which is an answer.
        require_answer({**STORE, "s3.endpoint": server.url})
    with pytest.raises(Unreachable, match="uri in catalog"):
        require_answer({"warehouse": "lake", "uri": f"http://{nobody}/api"})


def test_tables_are_created_once_and_then_agree(tmp_path: Path) -> None:
    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    before = {table.name: lake.identity(table.name) for table in TABLES}
    again = Lake(pool_lake.settings(tmp_path))
    again.ensure_tables()
    assert {table.name: again.identity(table.name) for table in TABLES} == before
    assert again.read("clips").num_rows == 0
    assert again.latest_snapshot_id("clips") is None


def test_every_difference_of_an_existing_table_is_named(tmp_path: Path) -> None:
    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    lake.catalog.alter_table("cliplake.clips", [SchemaChange.drop_column("fps")])
    lake.catalog.alter_table(
        "cliplake.enriched_clips", [SchemaChange.set_option("metadata.stats-mode", "none")]
    )
    lake.catalog.drop_table("cliplake.videos")
    with pytest.raises(LakeMismatch) as caught:
        Lake(pool_lake.settings(tmp_path)).ensure_tables()
    text = str(caught.value)
    assert "table clips: column fps (DOUBLE) is missing" in text
    assert "table enriched_clips: option metadata.stats-mode is none, and should be full" in text
    assert "videos" not in lake.catalog.list_tables("cliplake")


def test_a_table_may_have_somebodys_own_column(tmp_path: Path) -> None:
    from pypaimon.schema.data_types import AtomicType

    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    lake.catalog.alter_table(
        "cliplake.clips", [SchemaChange.add_column("reviewer", AtomicType("STRING"))]
    )
    Lake(pool_lake.settings(tmp_path)).ensure_tables()


def test_a_missing_table_is_a_clear_error(tmp_path: Path) -> None:
    where = r"cliplake\.clips is not in the lake at .*`cliplake up`"
    with pytest.raises(LakeNotReady, match=where):
        Lake(pool_lake.settings(tmp_path)).read("clips")


def test_a_read_takes_columns_and_a_filter(tmp_path: Path) -> None:
    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(6)])
    wanted = lake.predicates("clips").equal("video_key", "video-1")
    rows = lake.read("clips", ["clip_id"], wanted)
    assert rows.column_names == ["clip_id"]
    assert set(rows.column("clip_id").to_pylist()) == {pool_lake.clip_id(n) for n in (3, 4, 5)}


def test_a_recreated_table_has_another_identity(tmp_path: Path) -> None:
    lake = pool_lake.new_lake(pool_lake.settings(tmp_path))
    before = lake.identity("clips")
    pool_lake.recreate(lake, "clips")
    assert lake.identity("clips") != before


def test_catalog_options_that_make_no_catalog_are_a_clear_error(tmp_path: Path) -> None:
    wrong = Settings(catalog={"options": {"warehouse": str(tmp_path), "metastore": "nonesuch"}})
    with pytest.raises(ConfigError, match=r"the catalog cannot be opened.*catalog\.options"):
        Lake(wrong).ensure_tables()
