"""`cliplake dead-letters`: what could not be read, cut or scored; and trying it again."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cliplake.console import (
    Bars,
    CommandError,
    Exit,
    agreed,
    err,
    out,
    plural,
    print_json,
)
from cliplake.context import context_of
from cliplake.letters import (
    TABLES,
    Filter,
    find_letters,
    full_ids,
    message_of,
    parse_since,
)
from cliplake.plain import plain, plain_rows
from cliplake.query import LakeSql
from cliplake.replaying import Plan, plan_replay, send_replay
from schemas.problems import ConfigError
from schemas.replay import new_replay_id
from schemas.settings import Settings
from schemas.text import printable

_SHOWN = 50
_BAR_FROM = 200
"""Messages from which a progress display is worth its lines."""

_Where = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="SQL over the letters' columns, like \"reason = 'not_found' and stage = 'fetch'\".",
    ),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="What could not be read, cut or scored: `list`, `show`, `replay` and `publish`.",
    )
    group.command("list")(list_letters)
    group.command("show")(show_letter)
    group.command("replay")(replay_letters)
    group.command("publish")(publish_letters)
    app.add_typer(group, name="dead-letters")


def list_letters(
    context: typer.Context,
    table: Annotated[
        str | None, typer.Option("--table", help=f"One of {', '.join(TABLES)}.")
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option("--reason", help="Only these; may be given several times.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Like 2h or 3d, or a time in ISO 8601.")
    ] = None,
    where: _Where = None,
    show_all: Annotated[bool, typer.Option("--all", help="Those that are resolved too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help=f"Most letters; without it {_SHOWN} in a table.")
    ] = None,
) -> None:
    """List the dead letters that are not resolved, newest first."""
    if table is not None and table not in TABLES:
        raise ConfigError(f"--table {table}: there are {', '.join(TABLES)}")
    wanted = Filter(
        table=table,
        reasons=reason or (),
        since=None if since is None else parse_since(since, datetime.now(UTC)),
        where=where,
        resolved=show_all,
    )
    most = limit or (None if as_json else _SHOWN)
    found = find_letters(LakeSql(context_of(context).running_settings()), wanted, most)
    rows = found if most is None else found.slice(0, most)
    if as_json:
        print_json(plain_rows(rows))
        return
    if rows.num_rows:
        _print_letters(rows.to_pylist())
    more = "; there are more (--limit N)" if found.num_rows > rows.num_rows else ""
    err.print(f"{plural(rows.num_rows, 'dead letter')}{more}", style="dim")


def show_letter(
    context: typer.Context,
    letter_id: Annotated[
        str, typer.Argument(metavar="ID", help="As `list` shows it, or its start.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="JSON, the message as base64.")] = False,
) -> None:
    """Show all that is known about one letter, with its message."""
    sql = LakeSql(context_of(context).running_settings())
    wanted = Filter(ids=full_ids(sql, [letter_id]), resolved=True)
    found = find_letters(sql, wanted).to_pylist()
    if not found:
        raise NoSuchLetter(f"there is no dead letter {printable(letter_id)}")
    for row in found:
        letter = {**row, "message": message_of(sql, row)}
        if as_json:
            print_json({name: plain(value) for name, value in letter.items()})
            continue
        for name, value in letter.items():
            if value is not None:
                shown = value.decode("utf-8", "backslashreplace") if name == "message" else value
                line = Text(f"{name:>16}  ", style="dim")
                out.print(line.append(printable(str(shown)), style="default"), soft_wrap=True)


def replay_letters(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="As `list` shows them, or their start.")
    ] = None,
    where: _Where = None,
    again: Annotated[
        bool, typer.Option("--again", help="Those that are resolved already too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Send the messages behind dead letters again, as no repeats.

    What succeeds then ends as rows, and its letter is marked resolved by the job that wrote it.
    Clips are tried again through their video's message.
    """
    from ingest.topic import topic_offsets

    if not ids and where is None:
        raise ConfigError("say which letters: IDs, or --where CONDITION (--where true for all)")
    settings = context_of(context).running_settings()
    sql = LakeSql(settings)
    whole = full_ids(sql, ids or ())
    rows = find_letters(sql, Filter(ids=whole, where=where, resolved=again)).to_pylist()
    if missing := set(whole) - {row["id"] for row in rows}:
        raise NoSuchLetter(
            f"there is no unresolved dead letter {printable(min(missing))}"
            + ("" if again else " (--again takes those that are resolved, too)")
        )
    plan = plan_replay(sql, rows, settings.kafka.topic, topic_offsets(settings))
    _print_plan(plan)
    if not plan.messages:
        return
    if not yes and not agreed("send?", "send them"):
        err.print("nothing was sent")
        return
    _send(settings, sql, plan)


def publish_letters(context: typer.Context) -> None:
    """Send every letter to `kafka.dead_letter_topic`, until told to stop (SIGTERM or Ctrl-C).

    `up` does it by itself where the settings name that topic. Begins with the letters that are
    not resolved, then goes on where it was; each is sent at least once.
    """
    from cliplake.publishing import Publisher

    settings = context_of(context).running_settings()
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("kafka", "pypaimon"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    publisher = Publisher(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: publisher.stop())
    publisher.run()


class NoSuchLetter(CommandError):
    exit_code = Exit.USAGE


def _send(settings: Settings, sql: LakeSql, plan: Plan) -> None:
    from ingest.producer import Producer

    replay_id, total = new_replay_id(), len(plan.messages)
    sent = 0
    try:
        with Producer(settings) as producer, Bars(["sent"], totals={"sent": total}) as bars:

            def progress(count: int) -> None:
                nonlocal sent
                sent = count
                if total >= _BAR_FROM:
                    bars.update({"sent": count})

            send_replay(sql, producer, plan, replay_id, progress)
    except ConfigError as error:
        raise CommandError(
            f"{error}; {sent:,} of {plural(total, 'message')} are on the topic again: what is "
            "sent twice is done twice, and makes the same rows"
        ) from error
    topic = settings.kafka.topic
    err.print(
        f"{plural(sent, 'message')} acknowledged, topic {topic}, replay {replay_id}", markup=False
    )
    if sent < total:
        err.print(f"{plural(total - sent, 'message')} not sent: not in the lake any more")


def _print_plan(plan: Plan) -> None:
    if plan.letters:
        table = Table(show_edge=False, header_style="bold")
        for name in ("table", "reason"):
            table.add_column(name)
        table.add_column("letters", justify="right")
        for (where, reason), count in sorted(plan.letters.items()):
            table.add_row(where, Text(printable(reason), style="red"), f"{count:,}")
        out.print(table)
    out.print(
        f"{plural(plan.letters.total(), 'letter')}, {plural(len(plan.messages), 'message')} "
        "to send again"
    )
    if any(where == "failed_clips" for where, _ in plan.letters):
        out.print(
            "clips are tried again through their video's message: the video is split again, and "
            "of its clips those that failed are scored again",
            soft_wrap=True,
        )
    for why, count in plan.left_out.items():
        text = f"{plural(count, 'letter')} left out: {escape(printable(why))}"
        out.print(text, style="yellow", soft_wrap=True)


def _print_letters(rows: Sequence[Mapping[str, Any]]) -> None:
    """Two lines a letter, and none of them broken: ids and URIs are there to be copied."""
    titles = ("id", "failed at (UTC)", "stage", "reason")
    lines = [[_shown(row, name) for name in ("id", "failed_at", "stage", "reason")] for row in rows]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]

    def padded(cells: Sequence[str]) -> str:
        return "  ".join(map(str.ljust, cells, widths)).rstrip()

    out.print(Text(padded(titles), style="bold"), soft_wrap=True)
    for row, cells in zip(rows, lines, strict=True):
        resolved = row["resolved_at"] is not None
        line = Text(padded(cells))
        line.stylize("dim" if resolved else "red", line.plain.rindex(cells[-1]))
        out.print(line, soft_wrap=True)
        told = ("resolved" if resolved else "", *(_shown(row, name) for name in ("uri", "error")))
        if text := "; ".join(filter(None, told)):
            out.print(Text(f"  {text}", style="dim"), soft_wrap=True)


def _shown(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return "" if value is None else printable(str(value))
