"""`cliplake forget`: remove all rows of a video, and say what still has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cliplake.console import CommandError, Exit, agreed, err, out, plural, saying
from cliplake.context import context_of
from schemas.settings import Settings
from schemas.text import printable

if TYPE_CHECKING:
    from processors.pool.forget import Forgotten

_SHOWN_MESSAGES = 10


class StillWriting(CommandError):
    """Something may write to the lake."""

    exit_code = Exit.ALREADY_RUNNING


def register(app: typer.Typer) -> None:
    @app.command()
    def forget(
        context: typer.Context,
        video_id: Annotated[str, typer.Argument(metavar="VIDEO_ID", help="The producer's id.")],
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    ) -> None:
        """Remove a video's rows and frames from every table, and say what cannot be reached.

        Nothing may write meanwhile: stop the stack (`cliplake down`), or the Flink jobs and the
        pool's driver. Each table that has rows of the video is written anew.
        """
        from processors.pool.forget import find_video, forget_video
        from processors.pool.lake import Lake

        settings = context_of(context).running_settings()
        _require_stopped(settings)
        found = find_video(Lake(settings), video_id)
        if not found.video_keys:
            raise CommandError(f"no video has the id {printable(video_id)}")
        _print_found(found)
        if not yes and not agreed("remove?", "remove them"):
            err.print("nothing was removed")
            return
        with saying("writing the tables anew"):
            found = forget_video(settings, video_id)
        _print_out_of_reach(found, settings.kafka.dead_letter_topic)


def _require_stopped(settings: Settings) -> None:
    """`StillWriting` unless the Flink jobs are known to be stopped; the driver has its lock."""
    from deploy.local.state import StateFolder
    from ingest.client import jobs

    if StateFolder(settings.state_dir).is_owned():
        raise StillWriting(
            f"a stack runs in {settings.state_dir}, and each table has one writer: "
            "`cliplake down` first"
        )
    if settings.local.start_flink:
        return
    if alive := [job.name for job in jobs(settings) if job.alive]:
        raise StillWriting(
            f"{' and '.join(alive)} on the Flink cluster at {settings.flink.rest_address}:"
            f"{settings.flink.rest_port} may write: cancel them first, and `cliplake ingest` "
            "afterwards goes on where they were"
        )


def _print_found(found: Forgotten) -> None:
    uploads = plural(len(found.video_keys), "upload")
    rows = ", ".join(f"{table} {count:,}" for table, count in found.rows.items() if count)
    out.print(f"{uploads}; rows: {rows}", soft_wrap=True)
    if found.payloads:
        out.print(
            f"{plural(found.payloads, 'rejected message')} that name it: bytes and error go",
            soft_wrap=True,
        )


def _print_out_of_reach(found: Forgotten, letters: str) -> None:
    """``letters``: the topic for dead letters, if there is one."""
    out.print("removed. What still has it:")
    if found.snapshots:
        shown = ", ".join(
            f"{table} {first}" + (f" to {last}" if last != first else "")
            for table, (first, last, _) in found.snapshots.items()
        )
        moment = datetime.fromtimestamp(found.newest_snapshot_ms / 1000, UTC)
        out.print(
            f"  snapshots up to {moment:%Y-%m-%d %H:%M} UTC ({escape(shown)}): each expires by its "
            "table's snapshot.time-retained (1 h unless set) once there are "
            "snapshot.num-retained.min (10) newer ones; the Flink jobs do that for their tables "
            "when they commit, `cliplake maintain` and the driver for the pool's, and for files "
            "that no snapshot has",
            soft_wrap=True,
        )
    for table, tags in found.tags.items():
        out.print(
            f"  tags of {table}, until they are deleted or their time is over: "
            + escape(printable(", ".join(tags))),
            soft_wrap=True,
        )
    names = sorted(str(name) for name in found.messages)
    shown = escape(", ".join(names[:_SHOWN_MESSAGES]))
    more = f" and {len(names) - _SHOWN_MESSAGES:,} more" if names[_SHOWN_MESSAGES:] else ""
    out.print(f"  the topic, until its retention ends: {shown}{more}", soft_wrap=True)
    if letters:
        out.print(
            f"  the topic {escape(letters)}, if it was a dead letter, until its retention ends",
            soft_wrap=True,
        )
    if found.named_elsewhere:
        out.print(
            f"  videos.message of {plural(found.named_elsewhere, 'other row')}: they came in the "
            "same message",
            soft_wrap=True,
        )
    out.print(
        "  the file itself, logs that name it, and scratch folders of other machines whose actors "
        "were killed, until others run there. Sent again under the same id, URI and etag it is a "
        "repeat as long as repeats are remembered (flink.repeat_memory_days)",
        soft_wrap=True,
    )
