"""Write one self-contained HTML page about a run, or about two side by side.

The page opens offline, on a phone as well, and prints. It has COCO's numbers, classes, curves,
confusion, kinds of error, sizes, groups, calibration, images, the training and the settings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retina_plugin.cli._verb import Verb, import_option, user_mistakes

if TYPE_CHECKING:
    from retina_plugin.evaluation.analysis.comparison import Comparison
    from retina_plugin.evaluation.analysis.results import Analysis
    from retina_plugin.workbench.report.evaluated_sets import EvaluatedSet
    from retina_plugin.workbench.report.page import Say
    from retina_plugin.workbench.report.run_folder import RunFolder

PAGE = "report.html"  # as in workbench/report/page.py, whose import takes seconds; a test compares
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(name="report", cls=Verb)
@click.argument("run", type=FOLDER)
@click.option("--against", type=FOLDER, metavar="RUN", help="Compare with this run.")
@click.option("--out", type=FILE, help=f"Path of the page.  [default: {PAGE} in RUN]")
@click.option(
    "--dataset",
    "names",
    multiple=True,
    help="Test set of RUN to report; may be repeated.  [default: all]",
)
@click.option("--json-gt", type=FILE, help="New path of the data set's json; needs one --dataset.")
@click.option("--images", type=FOLDER, help="New folder of its images.")
@click.option(
    "--group-by",
    multiple=True,
    metavar="FIELD",
    help="Break numbers down by this field of the json.  [default: the run's TEST.GROUP_FIELDS]",
)
@click.option(
    "--score-thresh",
    type=float,
    help="Threshold for precision, recall and confusion.  [default: the best for F1]",
)
@import_option
@click.option("--text", "form", flag_value="text", help="Print one screen of numbers; no page.")
@click.option("--json", "form", flag_value="json", help="Print all numbers as json; no page.")
def command(
    run: Path,
    against: Path | None,
    out: Path | None,
    names: tuple[str, ...],
    json_gt: Path | None,
    images: Path | None,
    group_by: tuple[str, ...],
    score_thresh: float | None,
    extensions: tuple[str, ...],
    form: str | None,
) -> None:
    """Write one self-contained HTML page about RUN, the OUTPUT_DIR of a training.

    \b
    Examples:
        retina report output/crowns
        retina report output/tuned --against output/crowns --out tuned.html
        retina report output/crowns --group-by site --score-thresh 0.5
        retina report run --dataset val --json-gt moved/val.json --images moved/val
        retina report output/crowns --text
        retina report output/crowns --json | jq .crowns_val.coco

    --json gives for each data set the numbers of retina_plugin.evaluation.analysis.analyse, with
    --against those of its compare. Of data that are not in COCO's format, as LVIS's and Pascal
    VOC's, there are the numbers of their evaluators, under "results".

    The page says which parts are missing because their files are not in RUN or on this machine.

    Exit codes: 0 the page is written, or the numbers are printed, 1 RUN, or a file that it needs,
    cannot be used, 2 the command is wrong.
    """
    from retina_plugin.workbench.report.evaluated_sets import find_sets
    from retina_plugin.workbench.report.page import group_fields, write_report
    from retina_plugin.workbench.report.run_folder import read_run

    with user_mistakes(extensions):
        folder = read_run(run)
        sets = _moved(find_sets(folder, names=names), json_gt, images)
        if names:
            chosen = {name: x for name, x in folder.results.items() if name in names}
            folder = replace(folder, results=chosen)
        fields = group_by or group_fields(folder)
        options = {"group_by": fields, "score_thresh": score_thresh}
        if form is not None:
            other = read_run(against) if against else None
            click.echo(_printed(form, folder, sets, other, options))
            return
        with _progress(sets, against is not None) as say:
            page = write_report(
                folder,
                out,
                sets=sets,
                against=against,
                say=say,
                **options,
            )
    _say_what_is_missing(folder, sets)
    click.echo(f"{page}  {page.stat().st_size / 1e6:.1f} MB")


def _moved(
    sets: list[EvaluatedSet], json_gt: Path | None, images: Path | None
) -> list[EvaluatedSet]:
    """The sets with their files where the user says they are."""
    if json_gt is None and images is None:
        return sets
    if len(sets) != 1:
        names = ", ".join(one.name for one in sets) or "none"
        raise ValueError(
            f"--json-gt and --images are of one data set; name it by --dataset. There are: {names}"
        )
    for option, path in (("--json-gt", json_gt), ("--images", images)):
        if path is not None and not path.exists():
            raise ValueError(f"{option}: there is no {path}")
    (one,) = sets
    return [replace(one, json=json_gt or one.json, images=images or one.images)]


def _printed(
    form: str,
    run: RunFolder,
    sets: list[EvaluatedSet],
    other: RunFolder | None,
    options: dict[str, Any],
) -> str:
    """The numbers of each data set; over another run, where there is one."""
    from retina_plugin.evaluation.analysis.comparison import Comparison, compare
    from retina_plugin.evaluation.analysis.text import as_text, comparison_text
    from retina_plugin.evaluation.results_file import for_json
    from retina_plugin.workbench.report.other_results import as_text as table_text
    from retina_plugin.workbench.report.other_results import result_tables
    from retina_plugin.workbench.report.page import twin_of
    from retina_plugin.workbench.report.set_page import judge

    if not (sets or run.results):
        raise ValueError("the run has no detections: nothing to count")
    for one in sets:
        problem = one.problem()
        if problem is not None:
            raise ValueError(problem)
    found: dict[str, Analysis | Comparison] = {}
    for one in sets:
        found[one.name] = analysis = judge(one, **options).analysis
        if other is not None:
            twin, note = twin_of(one, other, **options)
            if twin is None:
                raise ValueError(note)
            found[one.name] = compare(analysis, twin.analysis)
    if form == "json":
        plain = {name: {"results": for_json(x)} for name, x in run.results.items()}
        return json.dumps({**{name: x.to_dict() for name, x in found.items()}, **plain})
    tables = result_tables(run.results, other.results if other else None)
    return "\n\n".join(
        [
            *(
                f"{name}\n{comparison_text(x) if isinstance(x, Comparison) else as_text(x)}"
                for name, x in found.items()
            ),
            *(table_text(table, other.name if other else "") for table in tables),
        ]
    )


@contextmanager
def _progress(sets: list[EvaluatedSet], compared: bool) -> Iterator[Say]:
    """A bar on stderr, where somebody sees it."""
    stages = len([one for one in sets if one.problem() is None]) * (3 if compared else 2) + 1
    with click.progressbar(
        length=stages, label="report", file=sys.stderr, item_show_func=lambda text: text
    ) as bar:
        yield lambda text: bar.update(1, text)


def _say_what_is_missing(folder: RunFolder, sets: list[EvaluatedSet]) -> None:
    problems = [one.problem() for one in sets]
    for note in [*folder.notes, *filter(None, problems)]:
        click.echo(f"note: {note}", err=True)
