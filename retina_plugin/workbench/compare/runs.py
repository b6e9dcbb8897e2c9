"""The runs of a comparison: each a config, a seed and a folder that is its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from retina_plugin.data.coco_json import write_json
from retina_plugin.runs.load_run import load_run
from retina_plugin.runs.run import Run as Config
from retina_plugin.version import __version__
from retina_plugin.workbench.compare.contenders import Contender

RESULT = "result.json"  # written last: where it is, the run is over


@dataclass(frozen=True)
class Run:
    """A training of one contender with one seed.

    Attributes:
        label, seed: whose it is.
        config_file, overrides: what ``train_net.py`` would be given for it.
        images: how many it trains on, repetitions counted.
        folder: for its files; the name holds a digest of the config, of the data's json files and
            of the user's own ``.py`` files, so that a run in which they have changed is another.
    """

    label: str
    seed: int
    config_file: Path
    overrides: tuple[str, ...]
    images: int
    folder: Path

    def result(self) -> dict[str, Any] | None:
        """What the finished run measured; None before that."""
        file = self.folder / RESULT
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def finish(self, result: dict[str, Any]) -> None:
        """Keep the result, whole or not at all."""
        write_json(self.folder / RESULT, result)


def plan_runs(
    contenders: Sequence[Contender],
    *,
    seeds: Sequence[int],
    out: Path,
    images: int | None = None,
    shared: Sequence[str] = (),
    extensions: Sequence[str] = (),
) -> list[Run]:
    """All runs, seed by seed, so that an early look has every contender.

    Args:
        images: that each is trained on; None: as many as the first contender's config says.
            ``MAX_ITER`` and the other numbers of steps of a config that differs are scaled.
        shared: overrides of every contender, its own come last.
        extensions: modules and files that each run imports first.

    Raises:
        ConfigFileError: a config or an override is wrong.
    """
    plans = []
    for contender in contenders:
        overrides = [*shared, *contender.overrides]
        config = load_run(contender.config_file, overrides)
        images = images or _images_of(config.settings)
        overrides += _steps_for(config, images)
        plans.append((contender, load_run(contender.config_file, overrides), overrides))
    return [
        Run(
            label=contender.label,
            seed=seed,
            config_file=contender.config_file.resolve(),
            overrides=(*overrides, f"SEED={seed}"),
            images=_images_of(config.settings),
            folder=out / f"{contender.label}-seed{seed}-{_digest(config, extensions)}",
        )
        for seed in seeds
        for contender, config, overrides in plans
    ]


def _images_of(cfg: CfgNode) -> int:
    return cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH


def _steps_for(config: Config, images: int) -> list[str]:
    """Overrides with which the config's schedule ends after ``images``, as its batch allows."""
    solver = config.settings.SOLVER
    steps = max(1, round(images / solver.IMS_PER_BATCH))
    return [] if steps == solver.MAX_ITER else config.overrides_for(steps)


def _digest(config: Config, extensions: Sequence[str]) -> str:
    """Ten digits for what decides a run's result but its seed; images are not read."""
    config = load_run(config, ["OUTPUT_DIR=", "SEED=0"])
    cfg = config.settings
    digest = hashlib.sha256(f"{__version__}\n{config.text()}".encode())
    files = list(extensions)
    for split in (cfg.DATASETS.COCO.TRAIN, cfg.DATASETS.COCO.TEST):
        jsons = split.get("JSON") or []
        files += [jsons] if isinstance(jsons, str) else jsons
    for file in map(Path, files):
        if file.is_file():  # else a module; of a json that is missing, the run says so
            digest.update(file.read_bytes())
    return digest.hexdigest()[:10]
