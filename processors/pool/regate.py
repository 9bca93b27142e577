"""Decides clips anew after a change of gates, from their rows: no model, no Ray, no video.

It writes ``enriched_clips`` in the driver's place, under the driver's lock, in an epoch of its
own and with the driver's position carried on in each commit. What is interrupted is finished by
the next run: rows that are done have the new fingerprint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from processors.planning import custom_stages
from processors.pool.commits import Committer
from processors.pool.driver import start_position
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.position import EPOCH_BITS, TARGET
from processors.regating import Undecided, Verdict, regated, verdict_of
from processors.results import ClipResult
from schemas.reasons import ClipStatus
from schemas.recipe import Recipe
from schemas.settings import Settings
from schemas.tables import ENRICHED_CLIPS, ColumnType

ROWS_A_COMMIT = 5000
"""Rows in memory at a time, and in a commit: each commit makes the next one dearer."""
KEPT = ClipStatus.KEPT.value

_MAPS = tuple(
    c.name
    for c in ENRICHED_CLIPS.columns
    if c.type in (ColumnType.STRING_MAP, ColumnType.DOUBLE_MAP)
)


@dataclass
class Regated:
    """What became of the rows whose gates were others."""

    changed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by verdict before and after: ``kept`` or a reason."""
    unchanged: int = 0
    undecided: Counter[Undecided] = field(default_factory=Counter)
    """Rows that were left as they are."""
    other_scores: int = 0
    """Rows that were scored in another way than the recipe's."""

    @property
    def decided(self) -> int:
        return self.changed.total() + self.unchanged


def regate(
    settings: Settings,
    recipe: Recipe,
    *,
    dry_run: bool = False,
    progress: Callable[[Regated], None] = lambda so_far: None,
) -> Regated:
    """Judge all rows that have the recipe's scores and other gates; ``dry_run`` writes nothing.

    `AlreadyRunning` while a driver runs, `SourceLost` where a driver could not start either,
    `ConfigError` if a stage of the user's own cannot be loaded.
    """
    with nullcontext() if dry_run else only_driver(settings):
        lake = Lake(settings)
        lake.require_atomic_commits()
        position = start_position(lake)
        committer = Committer(lake, position.epoch)
        sequence = position.epoch << EPOCH_BITS
        custom = custom_stages(recipe)
        found = Regated()
        for row in _rows(lake, recipe, found):
            verdict = verdict_of(row, recipe, custom)
            if isinstance(verdict, Undecided):
                found.undecided[verdict] += 1
                continue
            _count(found, row, verdict)
            if dry_run:
                continue
            sequence += 1
            new = {**regated(row, verdict, recipe), "enriched_at": datetime.now(UTC)}
            committer.add(ClipResult(row["clip_id"], ClipStatus(new["status"]), new), sequence)
            if committer.pending >= ROWS_A_COMMIT:
                committer.commit(position)
                progress(found)
        if committer.pending:
            committer.commit(position)
        progress(found)
        return found


def _count(found: Regated, row: Mapping[str, Any], verdict: Verdict) -> None:
    before, after = row["reject_reason"] or KEPT, verdict.reason or KEPT
    if before == after:
        found.unchanged += 1
    else:
        found.changed[before, after] += 1


def _rows(lake: Lake, recipe: Recipe, found: Regated) -> Iterator[dict[str, Any]]:
    """The rows to judge, of the table as it is now; ``found`` counts those of other scores.

    Filtered after versions of a key are merged: a predicate in the scan might leave out the
    newest version of a clip and let an older one come to light.
    """
    builder = lake.table(TARGET).new_read_builder()
    builder = builder.with_projection(list(ENRICHED_CLIPS.column_names))
    splits = builder.new_scan().plan().splits()
    reader = builder.new_read().to_arrow_batch_reader(splits, parallelism=1)
    for batch in reader:
        scored = pc.equal(batch.column("scores_fingerprint"), recipe.scores_fingerprint)
        found.other_scores += batch.num_rows - (pc.sum(scored).as_py() or 0)
        wanted = pc.and_(
            scored,
            pc.not_equal(batch.column("gates_fingerprint"), recipe.gates_fingerprint),
        )
        for start in range(0, batch.num_rows, ROWS_A_COMMIT):
            part: pa.RecordBatch = batch.slice(start, ROWS_A_COMMIT)
            for row in part.filter(wanted.slice(start, ROWS_A_COMMIT)).to_pylist():
                yield {**row, **{name: dict(row[name] or ()) for name in _MAPS}}
