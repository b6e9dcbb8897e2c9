"""What detections are worth, where they fail and on what: all numbers of the report.

From the files that an evaluation leaves, with no model and no images:

    >>> import json
    >>> from pathlib import Path
    >>> from retina_plugin.evaluation.analysis import analyse, as_text, compare
    >>> truth = json.loads(Path("val.json").read_text())
    >>> detections = json.loads(Path("coco_instances_results.json").read_text())
    >>> result = analyse(truth, detections, group_by=["site"])
    >>> round(result.coco["AP50"], 3), result.overall.micro.threshold
    (0.505, 0.8)
    >>> [(x.kind, x.count) for x in result.errors if x.count]
    [('background', 1), ('missed', 1)]
    >>> Path("analysis.json").write_text(json.dumps(result.to_dict())) > 0
    True
    >>> compare(result, result).coco[0].change
    0.0

``print(as_text(result))`` shows it in a terminal.
"""

from retina_plugin.evaluation.analysis.analyse import analyse
from retina_plugin.evaluation.analysis.comparison import Comparison, compare
from retina_plugin.evaluation.analysis.marks import MarkedBox, mark_boxes
from retina_plugin.evaluation.analysis.results import Analysis
from retina_plugin.evaluation.analysis.text import as_text, comparison_text

__all__ = [
    "Analysis",
    "Comparison",
    "MarkedBox",
    "analyse",
    "as_text",
    "compare",
    "comparison_text",
    "mark_boxes",
]
