"""Draw docs/explanation/architecture.svg.

python tools/docs_picture.py > docs/explanation/architecture.svg
"""

from html import escape

WIDTH, HEIGHT = 960, 620
STYLE = """
  text { font: 14px -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1b1f24 }
  .small { font-size: 12px; fill: #57606a } .title { font-weight: 600; font-size: 16px }
  .name { font-weight: 600 } .mid { text-anchor: middle }
  rect { stroke: #57606a; stroke-width: 1.2; rx: 6px }
  .part { fill: #dde7fb } .data { fill: #fff } .train { fill: #fdeccf } .test { fill: #d9f0dd }
  .room { fill: #eef1f4 }
  path { stroke: #57606a; stroke-width: 1.6; fill: none; marker-end: url(#tip) }
"""

# x, y, width, kind, name, second line
BOXES = [
    (20, 60, 110, "data", "images", "N, C, H, W"),
    (165, 60, 120, "part", "front-end", "optional"),
    (320, 60, 120, "part", "backbone", "C3 to C5"),
    (475, 60, 110, "part", "neck", "P3 to P7"),
    (620, 60, 130, "part", "head", "every anchor"),
    (785, 60, 155, "data", "Predictions", "logits, deltas, anchors"),
    (20, 190, 110, "data", "ground truth", "boxes, classes"),
    (165, 190, 120, "train", "assigner", "anchor to box"),
    (320, 190, 120, "data", "DenseTargets", "a label per anchor"),
    (475, 150, 275, "train", "classification loss", "all anchors and classes"),
    (475, 215, 275, "train", "box loss, box coder", "positive anchors"),
    (785, 190, 155, "train", "normalizer", "losses / positives"),
    (475, 300, 275, "test", "post-processor", "select, decode, suppress"),
    (785, 300, 155, "data", "Instances", "boxes, scores, classes"),
]
ARROWS = [
    "M130 82 H159", "M285 82 H314", "M440 82 H469", "M585 82 H614", "M750 82 H779",
    "M862 104 V127 H225 V184",  # Predictions: to the assigner, ...
    "M612 127 V144",  # ... to the losses ...
    "M862 127 H950 V275 H612 V294",  # ... and to the post-processor
    "M130 212 H159", "M285 212 H314", "M440 205 H457 V172 H469", "M440 219 H457 V237 H469",
    "M750 172 H767 V205 H779", "M750 237 H767 V219 H779", "M750 322 H779",
]  # fmt: skip
ROOMS = [
    ("cli", "one verb per file"),
    ("workbench", "doctor, anchors, report, compare, benchmark"),
    ("engine", "trainer, hooks, writers, guards"),
    ("inference", "optimize, tile, augment, predict"),
    ("runs", "yaml and LazyConfig"),
    ("evaluation", "evaluators, analysis"),
    ("data  |  checkpoint", "records and loaders  |  weights"),
    ("modeling", "the detector"),
    ("config", "keys, files, names"),
    ("registry  |  drawing", "roles  |  boxes on images"),
]


def box(x: float, y: float, width: float, kind: str, name: str, note: str) -> str:
    """Return a labelled box."""
    middle = x + width / 2
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="44"/>'
        f'<text class="name mid" x="{middle}" y="{y + 19}">{escape(name)}</text>'
        f'<text class="small mid" x="{middle}" y="{y + 36}">{escape(note)}</text>'
    )


def rooms() -> list[str]:
    """Return the rooms in two columns, the highest one first."""
    parts = []
    for index, (name, note) in enumerate(ROOMS):
        column, row = divmod(index, 5)
        x, y = 20 + 480 * column, 425 + 37 * row
        parts.append(
            f'<rect class="room" x="{x}" y="{y}" width="440" height="28"/>'
            f'<text class="name" x="{x + 12}" y="{y + 19}">{escape(name)}</text>'
            f'<text class="small" x="{x + 170}" y="{y + 19}">{escape(note)}</text>'
        )
        if row < 4:
            parts.append(f'<path d="M{x + 220} {y + 28} v7" />')
    parts.append('<path d="M460 587 H480 V439 H498"/>')
    return parts


def picture() -> str:
    """Return the SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<title>Data flow through the detector, and the import order of the package</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" style="fill:#57606a;'
        'stroke:none;marker-end:none"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" style="fill:#fff;stroke:none"/>',
        '<text class="title" x="20" y="36">Data flow</text>',
        '<text class="small" x="620" y="36">blue: always, orange: training, '
        "green: inference</text>",
        *(f'<path d="{line}"/>' for line in ARROWS),
        *(box(*entry) for entry in BOXES),
        '<text class="title" x="20" y="400">Folders of the package</text>',
        '<text class="small" x="230" y="400">imports follow the arrows, from a folder to those '
        "after it</text>",
        *rooms(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(picture(), end="")
