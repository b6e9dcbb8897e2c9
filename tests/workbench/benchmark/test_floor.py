import torch
from detectron2.modeling import build_model
from support.batches import make_batch
from support.tiny_models import tiny_cfg, tiny_focal_cfg

from retina_plugin.workbench.benchmark.calibration import head_outputs
from retina_plugin.workbench.benchmark.floor import GRADIENT, FloorModel


def test_the_maps_get_fixed_noise_and_the_network_its_gradients():
    batch = make_batch()
    detector = build_model(tiny_cfg())
    floor = FloorModel(detector)
    gradients = []
    for _ in range(2):
        floor.zero_grad()
        loss = sum(floor(batch).values())
        assert loss.item() == 0
        loss.backward()
        gradients.append({n: p.grad.clone() for n, p in detector.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys() == dict(detector.named_parameters()).keys()
    for name, gradient in gradients[0].items():
        assert gradient.abs().sum() > 0, name
        assert torch.equal(gradient, gradients[1][name])
    maps = [x for of_level in head_outputs(detector, batch) for x in of_level]
    expected = torch.autograd.grad(maps, list(detector.parameters()), floor._gradients)
    for found, wanted in zip(gradients[0].values(), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert torch.cat([x.flatten() for x in floor._gradients]).std() > 0.9 * GRADIENT


def test_no_loss_and_no_assignment_run():
    detector = build_model(tiny_focal_cfg())
    detector.assigner = detector.cls_loss = detector.box_loss = None
    sum(FloorModel(detector)(make_batch()).values()).backward()
