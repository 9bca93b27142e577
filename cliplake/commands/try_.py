"""`cliplake try`: a recipe over local files, in this process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cliplake.console import Bars, Exit, out, plural, print_json, saying
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
        letter that it would become. Exit code 1 if there are dead letters alone.
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
        clips = [{**clip, "name": Path(v.path).name} for v in tried for clip in v.clips]
        letters = [
            {**video.dead_letter, "name": video.path}
            for video in tried
            if video.dead_letter is not None
        ]
        failed = [clip for clip in clips if clip["status"] == "failed"]
        letters += [
            {
                "name": f"{clip['name']} {clip['start_s']:.2f} - {clip['end_s']:.2f}",
                "stage": clip["failed_stage"],
                "reason": clip["reject_reason"],
                "error": clip["error"],
            }
            for clip in failed
        ]
        if as_json:
            document = {"videos": [video.as_json() for video in tried]}
            print_json(document, allow_nan=False)
        else:
            _print(clips, letters, len(files), chosen.name)
        if len(failed) == len(clips):
            raise typer.Exit(Exit.FAILED)


def _print(
    clips: list[dict[str, Any]], letters: list[dict[str, Any]], files: int, recipe: str
) -> None:
    from cliplake.clip_table import clips_table, dead_letters_table

    if clips:
        out.print(clips_table(clips, out.width))
    if letters:
        out.print(dead_letters_table(letters, title="\nDead letters" if clips else None))
    kept = sum(clip["kept"] for clip in clips)
    out.print(
        f"\n{plural(files, 'file')}: {plural(len(clips), 'clip')}, {kept} kept; "
        f"{plural(len(letters), 'dead letter')}; recipe {recipe}; nothing was written"
    )
