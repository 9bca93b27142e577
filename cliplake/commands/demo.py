"""`cliplake demo`: the whole pipeline on this machine, with samples or your own videos."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from cliplake.commands.cluster import say
from cliplake.console import Bars, out, plural
from cliplake.context import context_of

if TYPE_CHECKING:
    from cliplake.accounts import Accounts
    from schemas.settings import Settings

_SHOWN_CLIPS = 60


def register(app: typer.Typer) -> None:
    @app.command()
    def demo(
        context: typer.Context,
        videos: Annotated[
            list[str] | None,
            typer.Argument(metavar="VIDEO", help="Your own videos instead of the samples."),
        ] = None,
    ) -> None:
        """Push videos through a real broker, Flink, Ray and Paimon, and show what becomes of them.

        Everything that it starts runs on free ports of this machine and is stopped at the end.
        The lake stays; a second demo over the same videos adds nothing and counts repeats.
        """
        from cliplake import demo as parts
        from cliplake.samples import NOT_JSON, write_samples

        base = context_of(context).settings()
        state = base.state_dir / "demo"
        files = parts.expand(videos) if videos else write_samples(state / "samples")
        settings = parts.demo_settings(base, files)
        _run(settings, files, raw=[] if videos else [NOT_JSON])


def _run(settings: Settings, files: list[Path], raw: list[bytes]) -> None:
    from cliplake import demo as parts
    from cliplake.accounts import read_accounts
    from cliplake.query import LakeSql
    from deploy.local.stack import Stack
    from ingest.producer import Producer
    from ingest.topic import topic_offsets

    started = time.monotonic()
    say("starting a Kafka broker, a Flink cluster and Ray on free ports")
    with Stack(settings, log=say) as stack:
        settings_file = parts.write_settings(settings)
        settings = stack.settings
        ready = time.monotonic()
        out.print(f"Flink's web page: [link]{stack.flink_web_url}[/link]")
        uris = [file.as_uri() for file in files]
        before = read_accounts(settings)
        since = {partition: o.end for partition, o in topic_offsets(settings).items()}
        with Producer(settings) as producer:
            for uri in uris:
                producer.send(uri, source="demo")
            for payload in raw:
                producer.send_raw(payload)
            producer.flush()
        messages = plural(len(uris) + len(raw), "message")
        say(f"sent {messages} to the topic {settings.kafka.topic}")
        watch = parts.Watch(settings, files)
        try:
            with Bars(["received", "split", "enriched"]) as bars:
                accounts = parts.watch_until_done(stack, watch, lambda now: _show(bars, now))
        except KeyboardInterrupt:
            say("stopping everything; what has been done stays in the lake")
            raise
        finished = time.monotonic()
        sql = LakeSql(settings)
        _print_result(
            before,
            accounts,
            clips=parts.clips_of(sql, uris),
            letters=parts.dead_letters_of(sql, uris, since),
        )
        say("stopping everything")
    out.print(
        f"\n{messages} took {finished - ready:.0f} s, starting {ready - started:.0f} s before, "
        f"stopping {time.monotonic() - finished:.0f} s after"
    )
    out.print(f"The lake: {escape(settings.catalog_options['warehouse'])}", soft_wrap=True)
    query = "select uri, start_s, end_s, motion_score from enriched_clips where kept"
    command = shlex.join([_program(), "--settings", _short(settings_file), "sql", query])
    out.print(f"Query it: {escape(command)}", soft_wrap=True)


def _show(bars: Bars, accounts: Accounts) -> None:
    arrivals, split, enrich = (accounts.stages[name] for name in ("arrivals", "split", "enrich"))
    # Clips that the duration filter dropped have their row of enriched_clips too.
    bars.update(
        {"received": arrivals.finished, "split": split.finished, "enriched": enrich.finished},
        {"received": arrivals.total, "split": split.total, "enriched": enrich.total},
    )


def _print_result(
    before: Accounts,
    accounts: Accounts,
    clips: list[dict[str, object]],
    letters: list[dict[str, object]],
) -> None:
    from cliplake.clip_table import clips_table, dead_letters_table

    out.print()
    if clips:
        out.print(clips_table(clips[:_SHOWN_CLIPS], out.width, title="Clips"))
        if len(clips) > _SHOWN_CLIPS:
            out.print(f"… and {len(clips) - _SHOWN_CLIPS:,} more, all of them in the lake")
        out.print()
    if letters:
        out.print(dead_letters_table(letters, title="Dead letters"))
        out.print()
    kept = sum(bool(clip["kept"]) for clip in clips)
    new, old = accounts.stages["arrivals"], before.stages["arrivals"]
    out.print(
        f"{plural(new.total - old.total, 'message')} received: "
        f"{plural(new.done - old.done, 'new video')}, {plural(new.repeats - old.repeats, 'repeat')}"
        f", {new.dead - old.dead:,} rejected. {plural(len(clips), 'clip')}, {kept} kept; "
        f"{plural(len(letters), 'dead letter')}. Accounts: [green]{accounts.balance.value}[/]."
    )
    if old.total:
        out.print(
            f"The lake holds {plural(accounts.rows['enriched_clips'], 'clip')} of "
            f"{plural(new.total, 'message')}, earlier demos included; "
            f"{accounts.rows['enriched_clips'] - before.rows['enriched_clips']:,} were added."
        )


def _program() -> str:
    """How this program was called, for a command to copy."""
    return _short(Path(sys.argv[0]))


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
