"""``write_report``: one HTML page about a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from retina_plugin.data.coco_places import as_tuple
from retina_plugin.version import __version__
from retina_plugin.workbench.report.charts import training_curves
from retina_plugin.workbench.report.evaluated_sets import EvaluatedSet, find_sets
from retina_plugin.workbench.report.gallery import draw_gallery
from retina_plugin.workbench.report.other_results import result_tables
from retina_plugin.workbench.report.pictures import reader_of
from retina_plugin.workbench.report.render import render, write_page
from retina_plugin.workbench.report.run_folder import RunFolder, read_run
from retina_plugin.workbench.report.set_page import Judged, SetPage, judge, view_set
from retina_plugin.workbench.report.settings import (
    as_yaml,
    changed_settings,
    different_settings,
    leaves,
    one_line,
)

PAGE = "report.html"
MOST_BYTES = 3_600_000  # of all pictures: with the charts a page stays below 5 MB
Say = Callable[[str], None]


def write_report(
    run: str | Path | RunFolder,
    output: str | Path | None = None,
    *,
    sets: Sequence[EvaluatedSet] | None = None,
    against: str | Path | RunFolder | None = None,
    group_by: Sequence[str] | None = None,
    score_thresh: float | None = None,
    say: Say = lambda text: None,
) -> Path:
    """Write the page about a run; what is missing in its folder is missing on the page, and said.

        from retina_plugin.workbench.report import write_report

        write_report("output/crowns")  # output/crowns/report.html

    Args:
        run: the OUTPUT_DIR of a training.
        output: the page; None for ``report.html`` in the folder.
        sets: what to report on, see ``find_sets``; None for all that the run was evaluated on.
        against: another run, shown beside it.
        group_by: fields of the json's images or annotations; None for the run's TEST.GROUP_FIELDS.
        score_thresh: of the pictures, the confusion matrix and all else that needs one; None for
            the one that is best for F1.
        say: is told what is being done.

    Returns:
        The page's path.

    Raises:
        ValueError: there is nothing to report on, or a file that is there is not what it should be.
    """
    run = run if isinstance(run, RunFolder) else read_run(Path(run))
    other = (
        against if against is None or isinstance(against, RunFolder) else read_run(Path(against))
    )
    sets = find_sets(run) if sets is None else list(sets)
    problems = [problem for one in sets if (problem := one.problem()) is not None]
    usable = [one for one in sets if one.problem() is None]
    fields = group_fields(run) if group_by is None else tuple(group_by)
    options = {"group_by": fields, "score_thresh": score_thresh}
    pages = [
        _set_page(one, f"set{index}", run, other, MOST_BYTES // len(usable), options, say)
        for index, one in enumerate(usable)
    ]
    say("writing the page")
    page = render(
        "report.html",
        version=__version__,
        written=_date(datetime.now().astimezone()),
        run=run,
        other=other,
        facts=_facts(run, pages),
        run_notes=[*run.notes, *problems],
        tests=pages,
        results=result_tables(run.results, other.results if other else None),
        curves=training_curves(
            run.metrics, other.metrics if other else None, other.name if other else ""
        ),
        changed=changed_settings(run.config),
        different=different_settings(run.config, other.config) if other else [],
        config_text=as_yaml(run.config),
        environment=[(key, one_line(value)) for key, value in leaves(run.environment)],
    )
    return write_page(Path(output) if output else run.path / PAGE, page)


def group_fields(run: RunFolder) -> tuple[str, ...]:
    """The run's ``TEST.GROUP_FIELDS``."""
    return as_tuple((run.config.get("TEST") or {}).get("GROUP_FIELDS"))


def _set_page(
    one: EvaluatedSet,
    anchor: str,
    run: RunFolder,
    other: RunFolder | None,
    most_bytes: int,
    options: dict[str, Any],
    say: Say,
) -> SetPage:
    say(f"{one.name}: analysing the detections")
    judged = judge(one, **options)
    twin, note = None, ""
    if other is not None:
        say(f"{one.name}: analysing what {other.name} detected")
        twin, note = twin_of(one, other, **options)
    names = (run.name, other.name if other else "")
    page = view_set(judged, anchor=anchor, other=twin, other_name=names[1])
    say(f"{one.name}: drawing images")
    gallery = draw_gallery(
        judged,
        read=reader_of(run.config),
        most_bytes=most_bytes,
        other=twin,
        comparison=page.comparison,
        names=names,
    )
    page.pictures, page.pictures_lead = gallery.groups, gallery.lead
    page.no_pictures = gallery.reason
    page.notes += [*gallery.notes, *filter(None, [note])]
    return page


def twin_of(one: EvaluatedSet, other: RunFolder, **options: Any) -> tuple[Judged | None, str]:
    """The same set as another run saw it, or why there is none; ``options`` are ``analyse``'s."""
    detections = other.detections.get(one.name)
    if detections is None:
        return None, f"{other.name} was not evaluated on '{one.name}': nothing to compare with"
    twin = EvaluatedSet(name=one.name, detections=detections, json=one.json, images=one.images)
    return judge(twin, **options), ""


def _facts(run: RunFolder, pages: Sequence[SetPage]) -> list[tuple[str, str]]:
    solver = run.config.get("SOLVER") or {}
    steps, planned = run.steps, solver.get("MAX_ITER")
    found = []
    if run.finished is not None:
        found.append(("finished", _date(run.finished)))
    if steps is not None:
        of = f" of {planned:,}" if isinstance(planned, int) and planned != steps else ""
        found.append(("steps", f"{steps:,}{of}"))
        if isinstance(batch := solver.get("IMS_PER_BATCH"), int):
            found.append(("images seen", f"{steps * batch:,}"))
    if run.duration:
        found.append(("training time", run.duration))
    if seed := run.config.get("SEED", -1) if run.config else -1:
        found += [("seed", str(seed))] if seed >= 0 else []
    if isinstance(commit := run.environment.get("commit"), str):
        found.append(("commit", commit))
    if len(pages) == 1:
        found.append(("data set", pages[0].name))
    found.append(("folder", str(run.path)))
    return found


def _date(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
