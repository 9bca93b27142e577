"""`cliplake submit`: send references of videos to the topic."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer
from rich.markup import escape

from cliplake.console import Bars, CommandError, err, plural
from cliplake.context import context_of
from schemas.message import MessageRejected, render_message
from schemas.problems import ConfigError, Unreachable
from schemas.settings import Settings
from schemas.text import printable

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_FLUSH_EVERY = 1_000
_BAR_FROM = 200
"""References from which a progress display is worth its lines."""
_NOTES = 5
"""Most reasons that are told, each with its first reference."""


def register(app: typer.Typer) -> None:
    @app.command()
    def submit(
        context: typer.Context,
        uris: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="URI", help="file:, s3: or https: URIs, or paths on this machine."
            ),
        ] = None,
        file_list: Annotated[
            str | None,
            typer.Option(
                "--file-list", metavar="FILE", help="A file with a URI a line; - reads stdin."
            ),
        ] = None,
        source: Annotated[
            str | None, typer.Option("--source", help="Where these come from; goes along.")
        ] = None,
    ) -> None:
        """Send references of videos to the topic, and wait until the broker has them all.

        All references are checked before the first is sent. Sending one again is harmless: the
        pipeline drops repeats, also of what failed, which `cliplake dead-letters replay` tries
        again.
        """
        references = [reference_of(text) for text in uris or []]
        if file_list is not None:
            references += [reference_of(text) for text in _lines(file_list)]
        if not references:
            raise ConfigError("nothing to submit: give URIs, paths or --file-list")
        for uri in references:
            _check(uri, source)
        send(context, references, source)


def send(context: typer.Context, references: list[str], source: str | None) -> None:
    """Send checked references; says how many were acknowledged, also when it fails."""
    from ingest.producer import Producer

    settings = context_of(context).running_settings()
    topic = settings.kafka.topic
    _warn_of_what_is_refused(settings, references)
    acknowledged = 0
    try:
        with (
            Producer(settings) as producer,
            Bars(["sent"], totals={"sent": len(references)}) as bars,
        ):
            for start in range(0, len(references), _FLUSH_EVERY):
                for uri in references[start : start + _FLUSH_EVERY]:
                    producer.send(uri, source=source)
                try:
                    producer.flush()
                finally:
                    acknowledged = producer.sent
                if len(references) >= _BAR_FROM:
                    bars.update({"sent": acknowledged})
    except ConfigError as error:
        if acknowledged:
            raise PartlySent(
                f"{error}; {acknowledged:,} of {plural(len(references), 'reference')} are on the "
                "topic: submit all again, what is there twice is dropped as a repeat"
            ) from error
        if isinstance(error, Unreachable) and settings.local.start_kafka and not _is_up(settings):
            raise Unreachable(
                f"{error}; no stack runs in {settings.state_dir}: `cliplake up` starts it"
            ) from error
        raise
    err.print(f"{plural(acknowledged, 'reference')} acknowledged, topic {topic}", markup=False)


def _is_up(settings: Settings) -> bool:
    from deploy.local.state import StateFolder

    return StateFolder(settings.state_dir).is_owned()


class PartlySent(CommandError):
    """Some references are on the topic and some are not."""


def reference_of(text: str) -> str:
    """A URI as it is; a path of this machine as an absolute ``file:`` URI."""
    if _SCHEME.match(text) and not Path(text).exists():
        return text
    path = Path(text).expanduser()
    if not path.exists():
        raise ConfigError(f"{text}: no such file, and no URI (file:, s3:, https:) either")
    if path.is_dir():
        raise ConfigError(f"{text} is a folder; name its files, like {text.rstrip('/')}/*.mp4")
    # Links stay as they are: what may be read is decided where it is read.
    return path.absolute().as_uri()


def _warn_of_what_is_refused(settings: Settings, references: list[str]) -> None:
    """Say what these settings would refuse; the ones that count may be on another machine."""
    from processors.fetch import Fetcher
    from processors.fetch_problem import FetchProblem, redact

    roots = [Path(root).expanduser().resolve() for root in settings.fetch.file_roots]
    fetcher = Fetcher(settings.fetch, settings.scratch_dir)

    def refusal(uri: str) -> str:
        parts = urlsplit(uri)
        if parts.scheme == "file":
            path = Path(unquote(parts.path)).resolve()
            if any(path.is_relative_to(root) for root in roots):
                return ""
            return "it is under none of the folders in fetch.file_roots of these settings"
        try:
            fetcher.require_allowed(uri)
        except FetchProblem as problem:
            return str(problem)
        return ""

    refused: dict[str, list[str]] = {}
    for uri in references:
        if why := refusal(uri):
            refused.setdefault(why, []).append(uri)
    for why, uris in list(refused.items())[:_NOTES]:
        more = f" and {len(uris) - 1:,} more" if uris[1:] else ""
        text = f"{printable(redact(uris[0]))}{more} would end as dead letters (uri_not_allowed)"
        err.print(f"[yellow]note[/]: {escape(text)}: {escape(printable(why))}", soft_wrap=True)
    if len(refused) > _NOTES:
        err.print(f"[yellow]note[/]: {len(refused) - _NOTES:,} more hosts or buckets are refused")


def _check(uri: str, source: str | None) -> None:
    try:
        render_message(uri, source=source)
    except MessageRejected as error:
        raise ConfigError(f"{uri}: {error.error}; nothing was sent") from None


def _lines(name: str) -> Iterator[str]:
    """Non-empty lines of a file or of standard input; those that begin with # are comments."""
    if name == "-":
        raw = sys.stdin.buffer.read()
    else:
        try:
            raw = Path(name).expanduser().read_bytes()
        except OSError as error:
            raise ConfigError(f"--file-list {name}: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--file-list {name}: byte {error.start} is not UTF-8") from None
    for line in text.splitlines():
        if (line := line.strip()) and not line.startswith("#"):
            yield line
