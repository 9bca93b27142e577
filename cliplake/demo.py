"""The demo's parts that need no terminal: its settings, what it sends, when it is done."""

from __future__ import annotations

import glob
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

from cliplake.accounts import Accounts, read_accounts
from cliplake.console import CommandError
from cliplake.pool_status import read_pool
from cliplake.query import LakeSql
from deploy.local.private_files import write_private
from schemas.problems import ConfigError
from schemas.settings import (
    CHECKOUT,
    CatalogSettings,
    FetchSettings,
    KafkaSettings,
    LocalSettings,
    MetricsSettings,
    PoolSettings,
    Settings,
)

if TYPE_CHECKING:
    from deploy.local.stack import Stack

RECIPE = CHECKOUT / "recipes" / "laptop.yaml"
_LOOK_EVERY_S = 2.0
"""A look costs half a second of CPU, which the pipeline could use."""
_STALL_S = 300.0
_STALL_S_PER_BYTE = 1e-6
"""A long video is one step of the progress: more patience for a larger file."""


class Stalled(CommandError):
    """Nothing has moved for too long; says where it is stuck."""


def demo_settings(base: Settings, files: list[Path]) -> Settings:
    """Settings of a demo of its own: own state folder, free ports, nothing of the user's.

    Taken over from ``base`` is only where things are installed, and how much may be used.
    """
    return base.model_copy(
        update={
            "recipe": str(RECIPE),
            "kafka": KafkaSettings(),
            "catalog": CatalogSettings(),
            "flink": base.flink.model_copy(
                update={
                    "rest_address": "127.0.0.1",
                    "rest_port": 0,
                    "checkpoint_dir": "",
                    "checkpoint_interval_s": 2.0,
                    "options": {},
                }
            ),
            "fetch": FetchSettings(file_roots=tuple(sorted({str(f.parent) for f in files}))),
            "pool": PoolSettings(),
            "metrics": MetricsSettings(),
            "local": LocalSettings(
                state_dir=str(base.state_dir / "demo"),
                kafka_port=0,
                kafka_controller_port=0,
                ray_port=0,
                flink_jobmanager_rpc_port=0,
            ),
        }
    )


def write_settings(settings: Settings) -> Path:
    """A settings file for later `cliplake --settings FILE sql …`, and for `up` on this lake."""
    file = settings.state_dir / "cliplake.yaml"
    sections = settings.anchored().model_dump(
        mode="json",
        include={
            "recipe": True,
            "catalog": {"database"},
            "flink": {"rest_port"},
            "fetch": {"file_roots"},
            "local": True,
        },
    )
    # Free ports are chosen anew by whoever starts it again.
    sections["catalog"]["options"] = dict(settings.catalog_options)
    text = yaml.safe_dump(sections, sort_keys=False)
    # The catalog's options may be passwords, from variables of this process.
    write_private(file, f"# Settings of the demo; written by `cliplake demo`.\n{text}")
    return file


def expand(patterns: list[str]) -> list[Path]:
    """The files that paths and glob patterns name, once each; ConfigError if one names none."""
    files: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        found = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(str(path)))]  # noqa: PTH207  of any folder
        if path.is_dir():
            raise ConfigError(f"{pattern} is a folder; name its files, like '{pattern}/*.mp4'")
        if not found:
            raise ConfigError(f"{pattern}: there is no such file")
        files.update((file.resolve(), None) for file in found if file.is_file())
    return list(files)


@dataclass
class Watch:
    """Looks at the accounts now and then, and tells when everything is accounted for."""

    settings: Settings
    files: list[Path]
    accounts: Accounts | None = None

    def __post_init__(self) -> None:
        self._sql = LakeSql(self.settings)
        self._looked_at = 0.0
        self._moved_at = time.monotonic()
        self._before: object = None
        largest = max((file.stat().st_size for file in self.files), default=0)
        self._patience_s = _STALL_S + largest * _STALL_S_PER_BYTE

    def is_done(self) -> bool:
        """Whether nothing is on its way any more; `Stalled` if nothing moves.

        What was sent is on the topic before this is asked, so that it counts as waiting.
        """
        if time.monotonic() - self._looked_at < _LOOK_EVERY_S:
            return False
        pool = read_pool(self.settings)
        accounts = read_accounts(self.settings, self._sql, in_flight=pool.in_flight if pool else 0)
        self.accounts = accounts
        self._looked_at = time.monotonic()
        if accounts.problems:
            raise CommandError("the accounts do not add up: " + "; ".join(accounts.problems))
        now = [(stage.finished, stage.in_flight) for stage in accounts.stages.values()]
        if now != self._before:
            self._before, self._moved_at = now, self._looked_at
        elif self._looked_at - self._moved_at > self._patience_s:
            raise Stalled(self._where(accounts))
        return accounts.balanced

    def _where(self, accounts: Accounts) -> str:
        stuck = [
            f"{stage.waiting + (stage.in_flight or 0):,} {stage.unit} before stage {name}"
            for name, stage in accounts.stages.items()
            if stage.waiting or stage.in_flight
        ]
        return (
            f"nothing has moved for {self._patience_s:.0f} s: {', '.join(stuck)}; "
            f"the logs in {self.settings.state_dir / 'logs'} say why"
        )


def watch_until_done(stack: Stack, watch: Watch, show: Any) -> Accounts:
    """Keep the stack up until everything is accounted for; ``show(accounts)`` after each look."""

    def until() -> bool:
        done = watch.is_done()
        if watch.accounts is not None:
            show(watch.accounts)
        return done

    stack.watch(until)
    assert watch.accounts is not None
    return watch.accounts


def name_of(uri: str) -> str:
    """The file name in a URI."""
    return Path(unquote(urlsplit(uri).path)).name or uri


def clips_of(sql: LakeSql, uris: list[str]) -> list[dict[str, Any]]:
    """Rows of ``enriched_clips`` of these videos with ``name``, in the order of the videos."""
    found = sql.query("SELECT * FROM enriched_clips").to_pylist()
    order = {uri: number for number, uri in enumerate(uris)}
    mine = [{**row, "name": name_of(row["uri"])} for row in found if row["uri"] in order]
    return sorted(mine, key=lambda row: (order[row["uri"]], row["clip_index"]))


def dead_letters_of(sql: LakeSql, uris: list[str], since: dict[int, int]) -> list[dict[str, Any]]:
    """Dead letters of these videos, and of messages from the offsets ``since`` on."""
    letters: list[dict[str, Any]] = []
    for row in sql.query(
        "SELECT kafka_topic, kafka_partition, kafka_offset, reason, error FROM rejected_messages "
        "ORDER BY kafka_partition, kafka_offset"
    ).to_pylist():
        if row["kafka_offset"] >= since.get(row["kafka_partition"], 0):
            name = f"message {row['kafka_topic']}[{row['kafka_partition']}]@{row['kafka_offset']}"
            letters.append({**row, "name": name, "stage": "arrivals"})
    wanted = set(uris)
    for table in ("failed_videos", "failed_clips"):
        for row in sql.query(f"SELECT uri, stage, reason, error FROM {table}").to_pylist():
            if row["uri"] in wanted:
                letters.append({**row, "name": name_of(row["uri"])})
    return letters
