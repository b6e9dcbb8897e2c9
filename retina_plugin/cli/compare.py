"""Train configs on the same number of images and compare their AP and time.

Each config is trained with several seeds, each run in a process and folder of its own. A finished
run is not trained again, an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retina_plugin.cli._verb import Verb, import_option, user_mistakes
from retina_plugin.data.example_data import EXAMPLES, example_overrides

if TYPE_CHECKING:
    from retina_plugin.workbench.compare.runs import Run


@click.command(name="compare", cls=Verb)
@click.argument("configs", nargs=-1, required=True)
@click.option(
    "--seeds",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="Train with the seeds 1 to this number.",
)
@click.option(
    "--images",
    type=click.IntRange(1),
    help="Images that each run trains on.  [default: as the first]",
)
@click.option(
    "--data", type=click.Choice(list(EXAMPLES)), help="Use this example data set instead."
)
@click.option(
    "--set", "shared", multiple=True, metavar="KEY=VALUE", help="Override for every config."
)
@click.option(
    "--jobs",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Runs to train at the same time.",
)
@click.option(
    "--out", default=Path("output/compare"), type=click.Path(path_type=Path), show_default=True
)
@import_option
@click.option("--dry-run", is_flag=True, help="Show what would be trained and what is finished.")
def command(
    configs: tuple[str, ...],
    seeds: int,
    images: int | None,
    data: str | None,
    shared: tuple[str, ...],
    jobs: int,
    out: Path,
    extensions: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Train configs on the same number of images and compare their AP and time.

    CONFIGS are quoted arguments "[LABEL=]CONFIG [KEY=VALUE ...]". Differences are shown over the
    first. Numbers of steps are scaled where a config would see more or fewer images. With several
    --jobs, times are of runs side by side.

    \b
    Examples:
      retina compare a.yaml "slow=a.yaml SOLVER.BASE_LR=0.001" b.yaml --seeds 3
      retina compare crowns b.yaml --data crowns --images 3000 --dry-run
    Exit codes: 0 all runs are done, 1 some failed or a config is wrong, 2 the command is wrong.
    """
    from retina_plugin.data.coco_json import write_json
    from retina_plugin.workbench.compare.contenders import parse_contenders
    from retina_plugin.workbench.compare.page import write_comparison
    from retina_plugin.workbench.compare.plot import draw_comparison
    from retina_plugin.workbench.compare.pool import carry_out
    from retina_plugin.workbench.compare.runs import plan_runs
    from retina_plugin.workbench.compare.summary import as_text, results_of

    with user_mistakes(extensions):
        runs = plan_runs(
            parse_contenders(configs),
            seeds=range(1, seeds + 1),
            out=out.resolve(),
            images=images,
            shared=[*(example_overrides(data) if data else ()), *shared],
            extensions=extensions,
        )
    if dry_run:
        click.echo("\n".join(map(_line, runs)))
        return
    failed = carry_out(runs, jobs=jobs, extensions=extensions, say=click.echo)
    results = results_of(runs)
    if any(results.values()):
        plot = draw_comparison(results, out / "comparison.png")
        write_json(out / "comparison.json", results)
        page = write_comparison(results, out / "comparison.html", runs=runs)
        click.echo(f"\n{as_text(results)}\n\n{plot}  the same as a picture")
        click.echo(f"{page}  the same as a page, with every seed")
        click.echo(f"{out / 'comparison.json'}  all numbers")
    if failed:
        raise click.ClickException(
            f"{len(failed)} run(s) failed, see above; called again, they are tried again"
        )


def _line(run: Run) -> str:
    state = "finished" if run.result() is not None else "to be trained"
    return f"{run.label}, seed {run.seed}: {run.images} images, {state}, {run.folder}"
