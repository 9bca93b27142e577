"""`cliplake size`: how many slots, workers and GPUs a stream needs, from measured costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from cliplake.console import Bars, err, out, print_json, saying
from cliplake.context import context_of, recipe_of
from schemas.problems import ConfigError
from schemas.text import printable

if TYPE_CHECKING:
    from cliplake.costs import Costs, Origin
    from cliplake.sizing import Plan
    from schemas.recipe import Recipe
    from schemas.settings import Settings

_DEFAULT_BUSY = 0.7


def register(app: typer.Typer) -> None:
    @app.command()
    def size(
        context: typer.Context,
        videos_per_hour: Annotated[
            float | None, typer.Option("--videos-per-hour", metavar="N", min=0)
        ] = None,
        mean_seconds: Annotated[
            float | None, typer.Option("--mean-seconds", metavar="S", min=0, help="Of a video.")
        ] = None,
        resolution: Annotated[
            str, typer.Option("--resolution", metavar="HEIGHTp", help="The shorter side.")
        ] = "720p",
        clip_seconds: Annotated[
            float,
            typer.Option("--clip-seconds", metavar="S", min=0.1, help="Of a clip, for --cost."),
        ] = 10.0,
        cost: Annotated[
            list[str] | None,
            typer.Option("--cost", metavar="STAGE=S", help="Seconds a clip; may be repeated."),
        ] = None,
        busy: Annotated[
            float,
            typer.Option("--busy", min=0.05, max=1, help="Share of its time that each may work."),
        ] = _DEFAULT_BUSY,
        recipe: Annotated[
            Path | None,
            typer.Option("--recipe", metavar="FILE", help="Recipe; else the settings' own."),
        ] = None,
        measure: Annotated[
            bool, typer.Option("--measure", help="Measure the costs here first, and keep them.")
        ] = False,
        video: Annotated[
            list[Path] | None,
            typer.Option("--video", metavar="FILE", help="Measure on this; may be repeated."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    ) -> None:
        """Say how many Flink slots, CPU workers and GPUs a stream needs, and what bounds it.

        Costs are of this machine once `--measure` has run here, else of the machine that is
        named. A stage without a measured cost is named and left out; `--cost` gives it one.
        """
        settings = context_of(context).settings()
        if recipe is not None:
            settings = settings.model_copy(update={"recipe": str(recipe)})
        chosen = recipe_of(settings)
        given = dict(_cost(text) for text in cost or ())
        if video and not measure:
            raise ConfigError("--video is what --measure measures on: say --measure as well")
        if (videos_per_hour is None) != (mean_seconds is None):
            raise ConfigError("--videos-per-hour and --mean-seconds belong together: give both")
        if videos_per_hour is None and not measure:
            raise ConfigError("say --videos-per-hour and --mean-seconds, or --measure")
        if measure:
            _measure(video or [], chosen, settings)
        from cliplake.costs import load_costs
        from cliplake.sizing import Stream, document, plan

        costs = load_costs(settings)
        if videos_per_hour is None or mean_seconds is None:
            if as_json:
                print_json(costs.model_dump(mode="json"), allow_nan=False)
            else:
                _print_costs(costs)
            return
        stream = Stream(videos_per_hour, mean_seconds, resolution, clip_seconds)
        found = plan(stream, chosen, costs, given, busy=busy)
        if as_json:
            print_json(document(stream, chosen, costs, found, busy=busy), allow_nan=False)
        else:
            _print_plan(found, costs, chosen, busy)


def _cost(text: str) -> tuple[str, float]:
    stage, _, seconds = text.partition("=")
    try:
        value = float(seconds)
    except ValueError:
        value = -1.0
    if not (stage and 0 <= value < float("inf")):
        raise ConfigError(f"--cost {text}: write it like caption=0.8, in seconds for each clip")
    return stage, value


def _measure(videos: list[Path], recipe: Recipe, settings: Settings) -> None:
    with saying(f"loading the stages of recipe {recipe.name}"):
        from cliplake.costs import own_file, write_costs
        from cliplake.measuring import HEIGHTS
        from cliplake.measuring import measure as measure_costs

    total = len(videos) or len(HEIGHTS)
    with (
        tempfile.TemporaryDirectory(prefix="cliplake-size-") as scratch,
        Bars(["videos"], totals={"videos": total}) as bars,
    ):
        costs = measure_costs(
            videos, recipe, settings, Path(scratch), lambda done: bars.update({"videos": done})
        )
    file = own_file(settings)
    write_costs(file, costs)
    err.print(f"kept in {printable(str(file))}", markup=False)


def _print_costs(costs: Costs) -> None:
    names = list(costs.resolutions)
    stages = dict.fromkeys(stage for found in costs.resolutions.values() for stage in found)
    table = Table("seconds for each second of video", *names, box=None)
    for stage in stages:
        found = [costs.resolutions[name].get(stage) for name in names]
        cells = ["·" if c is None else f"{c.seconds:.5f} {c.unit}" for c in found]
        table.add_row(Text(stage), *cells)
    out.print(table)
    out.print(Text(_origin(costs.origin)))


def _print_plan(found: Plan, costs: Costs, recipe: Recipe, busy: float) -> None:
    from cliplake.sizing import BESIDE

    out.print(
        f"Flink slots {found.flink_slots} · CPU workers {found.cpu_workers} · GPUs {found.gpus}, "
        f"each busy for at most {busy:.0%} of its time"
    )
    out.print(Text(f"bottleneck {found.bottleneck}\n"))
    table = Table("stage", "place", "busy all the time", "from", box=None)
    for load in found.loads:
        value = "·" if load.seconds_per_s is None else f"{load.seconds_per_s:.3f}"
        table.add_row(Text(load.stage), load.place, value, load.source)
    out.print(table)
    if found.not_measured:
        names = ", ".join(found.not_measured)
        out.print(
            Text(
                f"\nNot measured, and not in the numbers: {names}. Give seconds for each clip with "
                "--cost STAGE=SECONDS, or measure with --measure where the models are."
            ),
            style="yellow",
        )
    out.print(Text(f"\nRecipe {recipe.name}; every clip is counted in every stage."))
    out.print(Text(f"Not counted: {', '.join(BESIDE)}."))
    out.print(Text(_origin(costs.origin)))
    if costs.arrivals is not None:
        out.print(Text(f"arrivals: {_origin(costs.arrivals.origin)}"))


def _origin(origin: Origin) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in origin.versions.items())
    return printable(
        f"Measured on {origin.date} on {origin.machine}, load {origin.load:g}, with {versions}; "
        f"on {origin.inputs}."
    )
