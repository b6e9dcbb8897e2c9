"""Stop or skip: no trace is left of a step that was not finite, and none of the search."""

import copy
import logging

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.failing import (
    FlatRoot,
    finding_of,
    float_batch,
    run,
    step_of,
    tiny_detector,
    with_bad_pixel,
)
from support.tiny_models import tiny_cfg

from retina_plugin.engine.non_finite.guard import NonFiniteError
from retina_plugin.engine.non_finite.replay_file import read_step
from retina_plugin.engine.user_errors import user_errors
from retina_plugin.modeling.weight_average import WeightAverage
from retina_plugin.registry import UnknownNameError
from retina_plugin.workbench.benchmark.synchronisations import SynchronisationCounter


def tensors_of(step):
    """Weights, buffers and momenta."""
    momenta = [state["momentum_buffer"] for state in step.optimizer.state.values()]
    return [*step.model.state_dict().values(), *momenta]


@pytest.mark.parametrize(("norm", "parts"), [("BN", 1), ("GN", 2)])
def test_a_skipped_step_leaves_no_trace(norm, parts):
    """Bit-equal to a training that never saw the batch: norms' statistics, normalizer, average."""
    good = [float_batch((5, 2)) for _ in range(2 * parts)]
    bad = [*(float_batch() for _ in range(parts - 1)), with_bad_pixel(float_batch())]
    steps = []
    for batches in (good, [*good[:parts], *bad, *good[parts:]]):
        model = tiny_detector(NORM=norm)
        average = WeightAverage(model, decay=0.5)
        step = step_of(model, batches, parts=parts, average=average, ACTION="skip")
        logged = run(step, len(batches) // parts)
        with average.applied():
            steps.append([*map(torch.clone, tensors_of(step))])
        steps[-1] += tensors_of(step)
    assert logged["non_finite_steps"] == 1
    for without, skipped in zip(*steps, strict=True):
        assert torch.equal(without, skipped)


def test_one_step_in_between_does_change_these_tensors():
    """Or the test above would prove nothing."""
    model = tiny_detector(NORM="BN")
    before = copy.deepcopy(model.state_dict())
    run(step_of(model, [float_batch()]), 1)
    changed = [name for name, x in model.state_dict().items() if not torch.equal(x, before[name])]
    assert "normalizer.average" in changed and any("running_var" in name for name in changed)


def test_detectron2s_own_retinanet():
    """Its normalizer is no buffer; image and layer are found of it, too."""
    cfg = tiny_cfg(NORM="GN")
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    model = build_model(cfg)
    run(step_of(model, [float_batch()]), 1)
    before = model.loss_normalizer
    found = finding_of(step_of(model, [with_bad_pixel(float_batch())]))
    assert model.loss_normalizer == before
    assert found.images[0].file == "image_1.png" and found.layer.name.endswith("res3")


def test_the_history_is_what_was_logged():
    """Gradient norms are, every so many steps, by a hook."""
    step = step_of(tiny_detector(), [with_bad_pixel(float_batch())])
    with EventStorage() as storage:
        for loss in range(8):
            storage.put_scalars(total_loss=loss, lr=0.1)
            if loss % 5 == 0:
                storage.put_scalar("gradient_norm/max", 10 * loss)
            storage.step()
        step.iter = 8
        with pytest.raises(NonFiniteError) as error:
            step.run_step()
    history = error.value.finding.history
    assert [past["loss"] for past in history if "loss" in past] == [3, 4, 5, 6, 7]
    assert [past["gradient_norm"] for past in history if "gradient_norm" in past] == [0, 50]
    assert "loss: 3, 4, 5, 6, 7; gradient norm: 0, 50; lr: 0.1" in str(error.value)


def test_too_many_skips_stop():
    batches = [with_bad_pixel(float_batch())] * 4
    step = step_of(tiny_detector(), batches, ACTION="skip", MAX_SKIPS=2)
    with pytest.raises(
        NonFiniteError, match=r"skipped step 3, and SOLVER.NON_FINITE.MAX_SKIPS is 2"
    ):
        run(step, 4)


def test_every_skip_is_logged(caplog):
    step = step_of(tiny_detector(), [with_bad_pixel(float_batch()), float_batch()], ACTION="skip")
    with caplog.at_level(logging.WARNING):
        logged = run(step, 2)
    assert (
        "Skipped step 1 (at most 10). The loss became infinite or NaN at iteration=0" in caplog.text
    )
    assert "image_1.png" in caplog.text
    assert logged["total_loss"] > 0


def test_stopping_leaves_the_state_before_the_step():
    model = tiny_detector(NORM="BN")
    before = copy.deepcopy(model.state_dict())
    step = step_of(model, [with_bad_pixel(float_batch())])
    torch.manual_seed(3)
    random = torch.get_rng_state()
    finding_of(step)
    assert torch.equal(torch.get_rng_state(), random)  # the model draws none, the search left none
    for name, x in model.state_dict().items():
        assert torch.equal(x, before[name]), name


def test_a_gradient_is_looked_at_by_key():
    for checks in (False, True):
        model = tiny_detector()
        model.box_loss = FlatRoot(model.box_loss)
        step = step_of(model, [make_batch()], ACTION="skip", CHECK_GRADIENTS=checks)
        run(step, 1)
        finite = all(bool(x.isfinite().all()) for x in model.parameters())
        assert finite == checks


def waits(**settings):
    batch = make_batch()
    step = step_of(tiny_detector(), [batch] * 2, **settings)
    run(step, 1)
    step.iter = 1
    with EventStorage(1), SynchronisationCounter(torch.device("cpu"), batch) as counter:
        step.run_step()
    return counter.waits


def test_an_ordinary_step_waits_for_the_device_no_more_than_before():
    """All that is read comes in the one transfer of the losses."""
    plain = waits()
    places = [place for _, place in plain]
    assert sum("_on_host" in place for place in places) == 1
    assert not any("non_finite" in place for place in places)
    assert waits(ACTION="skip", CHECK_GRADIENTS=True).total() == plain.total()


def test_files_are_bounded_and_whole(tmp_path):
    batches = [with_bad_pixel(float_batch())] * 3
    run(step_of(tiny_detector(), batches, tmp_path / "files", ACTION="skip", WRITE=2), 3)
    files = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert files == ["step_0.pth", "step_1.pth"]
    assert read_step(tmp_path / "files/step_1.pth").step == 1
    run(step_of(tiny_detector(), batches[:1], tmp_path / "none", ACTION="skip", WRITE=0), 1)
    assert not (tmp_path / "none").exists()


def test_a_file_that_cannot_be_written_does_not_hide_the_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    found = finding_of(step_of(tiny_detector(), [with_bad_pixel(float_batch())], tmp_path / "file"))
    assert found.replay == "" and "could not be written" in found.notes[0]


def test_a_search_that_fails_does_not_hide_the_error(monkeypatch):
    from retina_plugin.engine.non_finite import guard

    def search(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(guard, "search", search)
    step = step_of(tiny_detector(), [with_bad_pixel(float_batch())], ACTION="skip")
    with pytest.raises(NonFiniteError, match=r"ZeroDivisionError: planted.*\n(.*\n)*.*no skip"):
        run(step, 1)


def test_on_the_command_line_it_is_a_message_without_a_traceback():
    with (
        pytest.raises(SystemExit, match=r"error: The loss became infinite.*\n(.*\n)*.*image_1.png"),
        user_errors(),
    ):
        run(step_of(tiny_detector(), [with_bad_pixel(float_batch())]), 1)


def test_a_loss_scale_that_underflows_is_said_once(caplog):
    """float16's scaler skips steps by itself, and would for ever."""
    step = step_of(tiny_detector(), [make_batch()] * 2)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=0.5)
    with caplog.at_level(logging.WARNING):
        run(step, 2)
    assert caplog.text.count("loss scale is below 1") == 1
    assert "SOLVER.AMP.PRECISION bfloat16" in caplog.text


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"ACTION": "ignore"}, UnknownNameError, r"NON_FINITE.ACTION.*'ignore'.*skip"),
        ({"ACTION": "stop", "SKIPS": 3}, UnknownNameError, r"NON_FINITE.*'SKIPS'.*MAX_SKIPS"),
        ({"MAX_SKIPS": -1}, ValueError, r"MAX_SKIPS must be a whole number, 0 or more, got -1"),
        ({"WRITE": True}, ValueError, r"WRITE must be a whole number"),
    ],
)
def test_settings_that_cannot_be(settings, error, message):
    with pytest.raises(error, match=message):
        step_of(tiny_detector(), [], **settings)
