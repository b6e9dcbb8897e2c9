"""Numbers of annotations become fields of all images alike."""

import pytest
import torch

from retina_plugin.data.object_fields import object_fields


def test_fields_with_their_neutral_values():
    annotations = [{"weight": 2, "age": 3.5, "gamma_shift": 0.25}, {"age": 4}]
    fields = object_fields(annotations, ["weight", "gamma_shift", "age"])
    assert list(fields) == ["gt_weight", "gt_gamma_shift", "gt_age"]
    assert all(value.dtype == torch.float32 for value in fields.values())
    assert [value.tolist() for value in fields.values()] == [[2, 1], [0.25, 0], [3.5, 4]]


def test_lists():
    fields = object_fields([{"meta": [1, 2]}, {"meta": [3, 4.5]}], ["meta"])
    assert fields["gt_meta"].tolist() == [[1, 2], [3, 4.5]]


def test_images_without_objects_have_the_fields_too():
    fields = object_fields([], ["weight", "meta"])
    assert [value.shape for value in fields.values()] == [(0,), (0,)]
    assert torch.cat([fields["gt_meta"], torch.ones(2, 3)]).shape == (2, 3)
    assert object_fields([{"weight": 2}], []) == {}


@pytest.mark.parametrize("value", ["heavy", None, float("nan"), float("inf"), [], [1, "a"], {}])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"EXTRA_ANNOTATION_KEYS: an annotation's 'meta'") as error:
        object_fields([{"meta": 1}, {"meta": value}], ["meta"])
    assert repr(value) in str(error.value)


def test_missing_or_of_different_lengths():
    with pytest.raises(ValueError, match="got None"):
        object_fields([{"meta": 1}, {}], ["meta"])
    for other in (1, [1, 2, 3]):
        with pytest.raises(ValueError, match="lists of different lengths"):
            object_fields([{"meta": [1, 2]}, {"meta": other}], ["meta"])
