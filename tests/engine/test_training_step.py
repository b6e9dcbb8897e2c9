"""The training step: every precision, one transfer of the losses, checkpoints of Detectron2's."""

import copy

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage
from support.batches import make_batch
from support.tiny_models import tiny_focal_cfg
from torch.utils._python_dispatch import TorchDispatchMode

from retina_plugin.engine.step import TrainingStep, _on_host, build_step
from retina_plugin.registry import UnknownNameError


def make_model():
    return build_model(tiny_focal_cfg(NORM="GN"))


def sgd(model, rate=1e-4):
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)


def run(step, count):
    """The losses of so many steps."""
    with EventStorage() as storage:
        losses = []
        for step.iter in range(count):
            step.run_step()
            losses.append({k: v[0] for k, v in storage.latest().items() if "loss" in k})
            storage.step()
    return losses


def test_fp32_equals_detectron2():
    batch = make_batch()
    theirs = make_model()
    ours = copy.deepcopy(theirs)
    expected = run(SimpleTrainer(theirs, [batch] * 4, sgd(theirs)), 4)
    found = run(build_step(ours, [batch] * 4, sgd(ours), amp=False), 4)
    assert found == expected
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
def test_mixed_precision_on_the_cpu(precision):
    """Within 1 % of fp32, step by step on the same weights; the weights stay fp32."""
    batches = [make_batch() for _ in range(5)]
    model = make_model()
    optimizer = sgd(model)
    for batch in batches:
        plain = copy.deepcopy(model)
        (expected,) = run(build_step(plain, [batch], sgd(plain), amp=False), 1)
        (found,) = run(build_step(model, [batch], optimizer, amp=True, precision=precision), 1)
        assert found.keys() == expected.keys() and len(found) == 3
        for name, loss in expected.items():
            assert found[name] == pytest.approx(loss, rel=0.01)
        assert found != expected
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_the_forward_pass_runs_in_the_precision():
    seen = []
    model = make_model()
    model.head.cls_score.register_forward_hook(lambda m, i, output: seen.append(output.dtype))
    run(build_step(model, [make_batch()], sgd(model), amp=True), 1)
    assert set(seen) == {torch.bfloat16}


def test_half_precision_needs_cuda():
    model = make_model()
    with pytest.raises(ValueError, match=r"AMP.PRECISION is float16.*CUDA.*bfloat16"):
        build_step(model, [], sgd(model), amp=True, precision="float16")
    build_step(model, [], sgd(model), amp=False, precision="float16")  # it is not asked for


def test_unknown_precision():
    model = make_model()
    with pytest.raises(UnknownNameError, match=r"AMP.PRECISION.*'bf16'.*bfloat16"):
        build_step(model, [], sgd(model), amp=True, precision="bf16")


def scaled_step(model, batches, optimizer):
    """With a loss scale, as float16 has; here the CPU can run it, in fp32."""
    step = TrainingStep(model=model, loader=batches, optimizer=optimizer)
    step.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    return step


def test_the_scale_leaves_the_gradients():
    """Clipped by their true norm, as the optimizer sees them."""
    cfg = tiny_focal_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "norm"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    batches = [make_batch() for _ in range(3)]
    plain = make_model()
    scaled = copy.deepcopy(plain)
    optimizers = [maybe_add_gradient_clipping(cfg, sgd(m, 0.01)) for m in (plain, scaled)]
    run(TrainingStep(model=plain, loader=batches, optimizer=optimizers[0]), 3)
    run(scaled_step(scaled, batches, optimizers[1]), 3)
    for a, b in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_checkpoints_of_both_precisions_fit_each_other():
    model = make_model()
    scaled, plain = (
        scaled_step(model, [make_batch()], sgd(model)),
        build_step(model, [make_batch()], sgd(model), amp=False),
    )
    run(scaled, 1)
    scaled.grad_scaler.update(512.0)
    state = scaled.state_dict()
    assert state["grad_scaler"]["scale"] == 512.0
    plain.load_state_dict(copy.deepcopy(state))
    assert "grad_scaler" not in plain.state_dict()
    other = scaled_step(model, [], sgd(model))
    other.load_state_dict(state)
    assert other.grad_scaler.get_scale() == 512.0
    other.load_state_dict(plain.state_dict())


def test_a_loss_that_is_not_finite_stops_before_the_weights_learn():
    model = make_model()
    with torch.no_grad():
        model.head.bbox_pred.bias.fill_(torch.nan)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FloatingPointError, match="iteration=0"):
        run(build_step(model, [make_batch()], sgd(model), amp=False), 1)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) or name == "head.bbox_pred.bias"


class Copies(TorchDispatchMode):
    """Counts the copies of losses to the host."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.stack.default:
            self.shapes.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def test_losses_come_in_one_transfer():
    losses = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor(2.5).bfloat16()}
    with Copies() as copies:
        found = _on_host(losses)
    assert copies.shapes == [2]
    assert {k: v.item() for k, v in found.items()} == {"a": 1.5, "b": 2.5}
    assert not any(v.requires_grad for v in found.values())
