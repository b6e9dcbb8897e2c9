import time

import pytest
import torch
from detectron2.engine import SimpleTrainer
from support.tiny_models import tiny_cfg

from retina_plugin.engine.step import TrainingStep
from retina_plugin.workbench.benchmark.cases import Case
from retina_plugin.workbench.benchmark.contenders import build_contenders
from retina_plugin.workbench.benchmark.step import (
    LOG_WAITS,
    TO_GRADIENTS,
    UPLOADS,
    WAITS,
    count_synchronisations,
    floor_times,
    measure_step,
    run_step,
    step_memory,
    step_times,
)

NAP = 0.3
BATCH = Case(images=2, boxes=5, height=64, width=64, classes=7).batch()


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    return build_contenders(tiny_cfg(), BATCH, against_stock=True)[0]


@pytest.fixture(params=[0, 1], ids=["stock", "plugin"])
def contender(request, pair):
    return pair[request.param]


def test_every_measure_of_both(pair):
    part = measure_step(pair, 2)
    rows = {row.name: row for row in part.rows}
    assert {
        "step", "data", "network", "assignment", "loss", "backward", "optimizer", "floor",
        "overhead", "peak memory", "peak memory above the model", "synchronisations",
    } <= rows.keys()  # fmt: skip
    for row in rows.values():
        assert row.samples.keys() == {"stock", "plugin"}
        if row.unit in ("s", "GiB"):
            assert all(min(x) > 0 for x in row.samples.values()), row
    for name in ("stock", "plugin"):
        assert any(f"synchronisations of {name}: " in note for note in part.notes)


def test_the_parts_make_the_whole(contender):
    run_step(contender.trainer)
    times = step_times(contender)
    forward = sum(times[part] for part in ("data", "network", "assignment", "loss"))
    assert forward + times["backward"] == pytest.approx(times[TO_GRADIENTS])
    assert times[TO_GRADIENTS] + times["optimizer"] <= times["step"]


def test_a_slow_part_shows_where_it_is(contender, monkeypatch):
    """The floor knows nothing of a slow assignment."""
    name = "assigner" if hasattr(contender.model, "assigner") else "label_anchors"
    fast = getattr(contender.model, name)

    def slow(*args):
        time.sleep(NAP)
        return fast(*args)

    monkeypatch.setattr(contender.model, name, slow)
    times, floor = step_times(contender), floor_times(contender)[TO_GRADIENTS]
    assert times["assignment"] >= NAP
    assert times["loss"] < NAP
    assert times["step"] >= times[TO_GRADIENTS] >= NAP + 0.5 * floor


def test_every_step_is_the_same_and_nothing_is_left(contender):
    before = {n: p.detach().clone() for n, p in contender.model.named_parameters()}
    attributes = set(vars(contender.model)), set(vars(contender.trainer))
    step_times(contender)
    floor_times(contender)
    for name, parameter in contender.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    assert (set(vars(contender.model)), set(vars(contender.trainer))) == attributes
    assert not any(
        m._forward_hooks or m._forward_pre_hooks for m in (contender.model, contender.model.head)
    )


def test_stock_trains_as_detectron2_does(pair):
    assert [type(c.trainer) for c in pair] == [SimpleTrainer, TrainingStep]
    assert [type(c.optimizer) for c in pair] == [torch.optim.SGD] * 2


def test_mixed_precision_reaches_the_step():
    cfg = tiny_cfg()
    cfg.SOLVER.AMP.ENABLED = True
    (contender,), _ = build_contenders(cfg, BATCH, against_stock=False)
    seen = []
    contender.model.head.register_forward_hook(lambda *x: seen.append(x[2][0][0].dtype))
    run_step(contender.trainer)
    floor_times(contender)
    assert seen == [torch.bfloat16] * 2


def test_memory_is_exact(contender):
    first, second = step_memory(contender), step_memory(contender)
    assert first == second
    peak, model = first
    weights = sum(4 * p.numel() for p in contender.model.parameters())
    assert peak > weights  # the gradients are in it
    assert model >= 2 * weights  # so is the momentum


def test_synchronisations_of_stock(pair):
    """Of n images each: the check of the IoUs, the low-quality matches, the check of the boxes.

    Once: the number of positives, four masks, and on the way back two of these.
    """
    counts = count_synchronisations(pair[0])
    assert counts[WAITS].total() == 3 * len(BATCH) + 7
    assert counts[LOG_WAITS].total() == 2  # both losses
    assert counts[UPLOADS].total() == 3 * len(BATCH)  # image, boxes, classes


def test_synchronisations_of_the_plugin(pair):
    counts = count_synchronisations(pair[1])
    assert {kind: counts[kind].total() for kind in counts} == {WAITS: 1, LOG_WAITS: 1, UPLOADS: 0}
