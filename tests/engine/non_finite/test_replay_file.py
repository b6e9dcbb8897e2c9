"""Replay files hold a step as it was, and nothing that could run."""

import pickle

import pytest
import torch
from detectron2.structures import Boxes, PolygonMasks
from support.failing import finding_of, float_batch, step_of, tiny_detector, with_bad_pixel

from retina_plugin.engine.environment import environment
from retina_plugin.engine.non_finite.replay_file import KIND, read_step
from retina_plugin.modeling.contracts import ignored_boxes, with_ignored


def write(folder, batch):
    found = finding_of(step_of(tiny_detector(), [batch], folder, config="MODEL: {}"))
    return found, read_step(found.replay)


def test_the_step_comes_back(tmp_path):
    batch = with_bad_pixel(float_batch())
    batch[0]["ignored_boxes"] = Boxes(torch.tensor([[1.0, 2, 3, 4]]))
    for given in batch:
        given["instances"].gt_weight = torch.rand(len(given["instances"]))
    found, saved = write(tmp_path, batch)
    assert saved.config == "MODEL: {}" and saved.finding == {**found.as_plain(), "replay": ""}
    assert saved.environment == environment()
    ((first, second),) = saved.batches
    assert torch.equal(first["image"], batch[0]["image"]) and first["file_name"] == "image_0.png"
    assert torch.equal(first["ignored_boxes"].tensor, batch[0]["ignored_boxes"].tensor)
    for name, x in batch[0]["instances"].get_fields().items():
        y = first["instances"].get(name)
        assert torch.equal(getattr(x, "tensor", x), getattr(y, "tensor", y))
    assert second["image"].isnan().sum() == 1
    model = tiny_detector()
    for name, x in model.state_dict().items():
        assert torch.equal(saved.weights[name], x), name


@pytest.mark.parametrize("count", [0, 2])
def test_ignored_regions_of_the_instances_come_back(tmp_path, count):
    """A user's mapper may put them there instead of into ``ignored_boxes``."""
    batch = with_bad_pixel(float_batch((count, 1)))
    regions = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8], [0, 0, 9, 9]])
    batch[0]["instances"] = with_ignored(batch[0]["instances"], regions)
    _, saved = write(tmp_path, batch)
    instances = saved.batches[0][0]["instances"]
    assert torch.equal(ignored_boxes(instances), regions)
    assert len(instances) == len(instances.gt_ignored) == count
    assert not saved.left_out


def test_what_cannot_be_kept_is_named(tmp_path):
    batch = with_bad_pixel(float_batch((1, 1)))
    batch[0]["instances"].gt_masks = PolygonMasks([[[0.0, 0, 0, 9, 9, 9]]])
    batch[0]["transforms"] = object()
    _, saved = write(tmp_path, batch)
    assert saved.left_out == ["instances.gt_masks", "transforms"]


class Runs:
    def __reduce__(self):
        return (eval, ("__import__('os').abort()",))


@pytest.mark.parametrize(
    "save", [lambda x, p: torch.save(x, p), lambda x, p: p.write_bytes(pickle.dumps(x))]
)
def test_code_in_a_file_does_not_run(tmp_path, save):
    path = tmp_path / "hostile.pth"
    save({"kind": KIND, "format": 1, "step": Runs()}, path)
    with pytest.raises(ValueError, match=r"hostile.pth: (holds more than tensors|cannot be read)"):
        read_step(path)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    step = step_of(tiny_detector(), [with_bad_pixel(float_batch())], tmp_path_factory.mktemp("a"))
    return finding_of(step).replay


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("batches"), "is damaged.*batches"),
        (lambda x: x.update(format=99), "format 99.*version that wrote it"),
        (lambda x: x.update(kind="weights"), "is no replay file"),
        (lambda x: x["batches"][0][0].update(image="x"), "is damaged.*image"),
        (lambda x: x.update(batches=[[1]]), "is damaged"),
        (lambda x: x.update(batches=[[]]), "is damaged.*no images"),
        (lambda x: x.update(weights={"a": 1}), "is damaged.*no tensors"),
        (lambda x: x["finding"].pop("why"), "is damaged.*why"),
        (lambda x: x["finding"].update(history=[{"loss": "x"}]), "is damaged.*'x'"),
    ],
)
def test_other_files_are_refused(written, tmp_path, change, message):
    content = torch.load(written, weights_only=True)
    change(content)
    path = tmp_path / "step_0.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"step_0.pth: .*{message}"):
        read_step(path)


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        read_step(tmp_path / "step_3.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="cannot be read"):
        read_step(tmp_path / "cut.pth")
