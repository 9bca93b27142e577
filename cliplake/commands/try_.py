"""`cliplake try`: a recipe over local files, in this process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cliplake.console import Bars, out, plural, print_json, saying
from cliplake.context import context_of, recipe_of
from cliplake.downloads import say_downloads


def register(app: typer.Typer) -> None:
    @app.command("try")
    def try_(
        context: typer.Context,
        files: Annotated[list[str], typer.Argument(metavar="FILE", help="Video files.")],
        recipe: Annotated[
            Path | None,
            typer.Option("--recipe", metavar="FILE", help="Recipe; else the settings' own."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    ) -> None:
        """Run a recipe on local files, here and now, and print what would be written.

        No broker, Flink, Ray or lake is needed. Every scene of a file is listed, or the dead
        letter that it would become.
        """
        settings = context_of(context).settings()
        if recipe is not None:
            settings = settings.model_copy(update={"recipe": str(recipe)})
        chosen = recipe_of(settings)
        say_downloads(chosen)
        with saying(f"loading the stages of recipe {chosen.name}"):
            from cliplake.trial import try_files

        with (
            tempfile.TemporaryDirectory(prefix="cliplake-try-") as scratch,
            Bars(["files"], totals={"files": len(files)}) as bars,
        ):
            tried = try_files(
                files, chosen, settings, Path(scratch), lambda done: bars.update({"files": done})
            )
        if as_json:
            document = {"videos": [video.as_json() for video in tried]}
            print_json(document, allow_nan=False)
            return
        from cliplake.clip_table import clips_table, dead_letters_table

        clips = [{**clip, "name": Path(v.path).name} for v in tried for clip in v.clips]
        letters = [
            {**video.dead_letter, "name": video.path}
            for video in tried
            if video.dead_letter is not None
        ]
        if clips:
            out.print(clips_table(clips, out.width))
        if letters:
            out.print(dead_letters_table(letters, title="\nDead letters" if clips else None))
        kept = sum(clip["kept"] for clip in clips)
        out.print(
            f"\n{plural(len(files), 'file')}: {plural(len(clips), 'clip')}, {kept} kept; "
            f"{plural(len(letters), 'dead letter')}; recipe {chosen.name}; nothing was written"
        )
