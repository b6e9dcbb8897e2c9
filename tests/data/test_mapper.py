"""Our mapper is Detectron2's with other augmentations, decoders and less work a box."""

import copy
import pickle

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError, read_image
from detectron2.structures import BoxMode
from fvcore.transforms.transform import Transform
from PIL import Image

from retina_plugin.config.defaults import add_retina_config
from retina_plugin.data import decoders
from retina_plugin.data.augmentations import RandomQuarterTurn, RandomZoomCrop
from retina_plugin.data.mapper import RetinaDatasetMapper
from retina_plugin.data.tile_records import tile_records
from retina_plugin.registry import UnknownNameError

BOXES = [[10, 20, 30, 50], [40, 5, 60, 25]]


@pytest.fixture
def record(tmp_path):
    """A picture of two bright boxes."""
    image = np.zeros((64, 96, 3), np.uint8)
    for x0, y0, x1, y1 in BOXES:
        image[y0:y1, x0:x1] = (250, 200, 150)
    Image.fromarray(image).save(tmp_path / "image.png")
    boxes = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i, "iscrowd": 0}
        for i, box in enumerate(BOXES)
    ]
    return {
        "file_name": str(tmp_path / "image.png"),
        "height": 64,
        "width": 96,
        "image_id": 7,
        "annotations": boxes,
    }


def config(*augmentations):
    cfg = add_retina_config(get_cfg())
    cfg.INPUT.AUGMENTATIONS = list(augmentations)
    return cfg


def same(ours, stock):
    assert list(ours) == list(stock)
    assert torch.equal(ours["image"], stock["image"])
    rest = [{k: v for k, v in x.items() if k not in ("image", "instances")} for x in (ours, stock)]
    assert rest[0] == rest[1]
    if "instances" in stock:
        a, b = ours["instances"], stock["instances"]
        assert a.image_size == b.image_size
        assert list(a.get_fields()) == list(b.get_fields())
        assert a.gt_boxes.tensor.dtype == b.gt_boxes.tensor.dtype
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        assert a.gt_classes.dtype == b.gt_classes.dtype
        assert torch.equal(a.gt_classes, b.gt_classes)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("image_format", ["BGR", "RGB"])
def test_without_a_list_it_is_detectron2s(record, is_train, image_format):
    cfg = config()
    cfg.INPUT.FORMAT = image_format
    outputs = []
    for mapper in (RetinaDatasetMapper, DatasetMapper):
        np.random.seed(3)
        outputs.append(mapper(cfg, is_train)(record))
    same(*outputs)


def test_test_images_are_not_augmented(record):
    """A list for training leaves evaluation as it is."""
    cfg = config({"NAME": "RandomZoomCrop", "size": 32})
    same(RetinaDatasetMapper(cfg, is_train=False)(record), DatasetMapper(cfg, False)(record))


def test_training_images_are_augmented_as_listed(record):
    cfg = config({"NAME": "RandomZoomCrop", "size": 64}, {"NAME": "RandomQuarterTurn"})
    cfg.INPUT.FORMAT = "RGB"
    mapper = RetinaDatasetMapper(cfg, is_train=True)
    for seed in range(10):
        np.random.seed(seed)
        output = mapper(record)
        assert output["image"].shape == (3, 64, 64)
        for box in output["instances"].gt_boxes.tensor.round().long().tolist():
            x0, y0, x1, y1 = box
            inside = output["image"][:, y0:y1, x0:x1]
            assert torch.all(inside == torch.tensor([250, 200, 150])[:, None, None])


def test_boxes_that_a_crop_cuts_off_are_dropped(record):
    record["annotations"][0]["bbox"] = [0, 0, 4, 4]
    mapper = RetinaDatasetMapper(
        is_train=True,
        augmentations=[T.CropTransform(35, 0, 61, 64, 96, 64)],
        image_format="BGR",
    )
    instances = mapper(record)["instances"]
    assert instances.gt_classes.tolist() == [1]
    assert instances.gt_boxes.tensor.tolist() == [[5, 5, 25, 25]]


def test_crowd_boxes_are_no_ground_truth(record):
    record["annotations"][0]["iscrowd"] = 1
    instances = RetinaDatasetMapper(config({"NAME": "RandomQuarterTurn"}), True)(record)[
        "instances"
    ]
    assert instances.gt_classes.tolist() == [1]


HEIGHT, WIDTH = 64, 96
AUGMENTATIONS = {
    "none": [],
    "resize": [T.Resize((131, 77))],
    "usual": [T.ResizeShortestEdge([50, 70, 90], 120, "choice"), T.RandomFlip()],
    "flips": [T.RandomFlip(1.0), T.RandomFlip(1.0, horizontal=False, vertical=True)],
    "crop": [T.RandomCrop("relative_range", (0.4, 0.4)), T.Resize((50, 60))],
    "extent": [T.RandomExtent((0.4, 1.6), (0.3, 0.3))],
    "of ours": [RandomZoomCrop(size=45, zoom=(0.7, 2.0)), RandomQuarterTurn()],
    "colours": [T.RandomBrightness(0.5, 1.5), T.ResizeShortestEdge(100)],
}


def random_boxes(rng, count, mode, kind):
    """Boxes in and beyond the image, some of them empty."""
    corners = rng.uniform(-20, [WIDTH, HEIGHT], (count, 2))
    sizes = rng.uniform(0, 60, (count, 2)) * (rng.random((count, 1)) > 0.1)
    second = sizes if mode == BoxMode.XYWH_ABS else corners + sizes
    boxes = np.concatenate([corners, second], axis=1)
    whole = np.round(boxes).astype(int).tolist()
    if kind == "whole":
        return whole
    if kind == "fractions":
        return boxes.tolist()
    if kind == "json":  # 12.0 is written 12 by many
        return [
            [round(x, 1) if rng.random() < 0.5 else round(x) for x in box] for box in boxes.tolist()
        ]
    assert kind == "arrays"
    return list(boxes)


def annotated(record, boxes, mode, rng):
    """The record with these boxes, every fourth a crowd."""
    annotations = [
        {
            "bbox": box,
            "bbox_mode": mode,
            "category_id": int(rng.integers(5)),
            "segmentation": [[1.0, 2.0, 10.0, 2.0, 5.0, 12.0]],
            **({"iscrowd": int(i % 4 == 3)} if i % 2 else {}),
        }
        for i, box in enumerate(boxes)
    ]
    return {**record, "annotations": annotations}


def pair(augmentations, **arguments):
    """Our mapper and Detectron2's."""
    arguments = {"augmentations": augmentations, "image_format": "BGR", **arguments}
    return [cls(is_train=True, **arguments) for cls in (RetinaDatasetMapper, DatasetMapper)]


def outputs(record, mappers, seed=0):
    """What each makes of the record with the same random numbers; the record must stay."""
    before = copy.deepcopy(record)
    results = []
    for mapper in mappers:
        np.random.seed(seed)
        results.append(mapper(record))
        assert repr(record) == repr(before)
    return results


@pytest.mark.parametrize("augmentations", AUGMENTATIONS)
@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, int(BoxMode.XYWH_ABS)])
@pytest.mark.parametrize("kind", ["whole", "fractions", "json"])
def test_boxes_are_detectron2s(record, augmentations, mode, kind):
    rng = np.random.default_rng(0)
    mappers = pair(AUGMENTATIONS[augmentations])
    for seed, count in enumerate((0, 1, 2, 7, 40)):
        boxes = random_boxes(rng, count, mode, kind)
        same(*outputs(annotated(record, boxes, mode, rng), mappers, seed))


def test_many_boxes(record):
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 500, BoxMode.XYWH_ABS, "json")
    results = outputs(annotated(record, boxes, BoxMode.XYWH_ABS, rng), pair(AUGMENTATIONS["usual"]))
    assert len(results[0]["instances"]) > 200
    same(*results)


class Counting(Transform):
    """Leaves all as it is; counts the calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def apply_image(self, img):
        return img

    def apply_coords(self, coords):
        self.calls += 1
        return coords


@pytest.mark.parametrize(("kind", "calls"), [("whole", 1), ("fractions", 1), ("json", 2)])
def test_boxes_are_transformed_together(record, kind, calls):
    rng = np.random.default_rng(0)
    record = annotated(record, random_boxes(rng, 40, 0, kind), BoxMode.XYXY_ABS, rng)
    counting = Counting()
    pair([counting])[0](record)
    assert counting.calls == calls


def other_boxes(name):
    rng = np.random.default_rng(0)
    plain = [(box, BoxMode.XYXY_ABS) for box in random_boxes(rng, 4, 0, "fractions")]
    other = {
        "arrays": ([3.5, 4.0, 40.0, 50.0], BoxMode.XYXY_ABS),
        "numpy numbers": ([3.5, 4.0, 40.0, 50.0], BoxMode.XYWH_ABS),
        "two modes": ([3.5, 4.0, 40.0, 50.0], BoxMode.XYWH_ABS),
        "turned": ([30.0, 30.0, 40.0, 20.0, 30.0], BoxMode.XYWHA_ABS),
        "tuples": ((3.5, 4.0, 40.0, 50.0), BoxMode.XYXY_ABS),
    }[name]
    if name == "arrays":
        other = (np.array(other[0]), other[1])
    if name == "numpy numbers":
        other = (list(np.array(other[0]) / 3), other[1])
    return [*plain, other]


@pytest.mark.parametrize("name", ["arrays", "numpy numbers", "two modes", "turned", "tuples"])
def test_uncommon_boxes(record, name):
    record["annotations"] = [
        {"bbox": box, "bbox_mode": mode, "category_id": 1} for box, mode in other_boxes(name)
    ]
    same(*outputs(record, pair(AUGMENTATIONS["usual"])))


@pytest.mark.parametrize("key", ["bbox", "bbox_mode", "category_id"])
def test_what_lacks_is_named_alike(record, key):
    del record["annotations"][1][key]
    for mapper in pair([]):
        with pytest.raises(KeyError, match=key):
            mapper(record)


def test_images_of_another_size_are_refused(record):
    record["width"] = 95
    for mapper in pair([]):
        with pytest.raises(SizeMismatchError, match="expect"):
            mapper(record)


def test_records_without_annotations_or_sizes(record):
    for key in ("annotations", "height", "width"):
        del record[key]
    ours, stock = outputs(record, pair([]))
    same(ours, stock)
    assert (ours["height"], ours["width"]) == (64, 96)


def test_entries_of_the_record_are_copied(record):
    record["tags"] = {"place": ["north"]}
    for mapper in pair([]):
        output = mapper(record)
        output["tags"]["place"].append("south")
        assert record["tags"] == {"place": ["north"]}


@pytest.mark.parametrize("as_arrays", [False, True])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_masks_are_detectron2s(record, mask_format, as_arrays):
    rng = np.random.default_rng(0)
    boxes = random_boxes(rng, 9, BoxMode.XYWH_ABS, "fractions")
    record = annotated(record, boxes, BoxMode.XYWH_ABS, rng)
    if as_arrays:  # a resize changes them in place
        for annotation in record["annotations"]:
            annotation["segmentation"] = [np.array(x) for x in annotation["segmentation"]]
    mappers = pair(
        AUGMENTATIONS["usual"],
        use_instance_mask=True,
        recompute_boxes=True,
        instance_mask_format=mask_format,
    )
    ours, stock = outputs(record, mappers)
    same(ours, stock)
    boxes = [x["instances"].gt_masks.get_bounding_boxes().tensor for x in (ours, stock)]
    assert torch.equal(*boxes)


def test_keypoints_are_detectron2s(record):
    for annotation in record["annotations"]:
        annotation["keypoints"] = [12.0, 25.0, 2, 20.0, 30.0, 1]
    mappers = pair([T.RandomFlip(1.0)], use_keypoint=True, keypoint_hflip_indices=np.array([1, 0]))
    ours, stock = outputs(record, mappers)
    same(ours, stock)
    points = [x["instances"].gt_keypoints.tensor for x in (ours, stock)]
    assert torch.equal(*points)


def test_segmentation_maps_and_proposals_are_detectron2s(record, tmp_path):
    Image.fromarray(np.arange(64 * 96, dtype=np.uint8).reshape(64, 96)).save(tmp_path / "sem.png")
    record["sem_seg_file_name"] = str(tmp_path / "sem.png")
    record["proposal_boxes"] = np.array(BOXES, dtype=float)
    record["proposal_bbox_mode"] = BoxMode.XYXY_ABS
    record["proposal_objectness_logits"] = np.array([0.5, 1.5])
    mappers = pair(AUGMENTATIONS["usual"], precomputed_proposal_topk=5)
    ours, stock = outputs(record, mappers)
    maps, proposals = ([x.pop(key) for x in (ours, stock)] for key in ("sem_seg", "proposals"))
    same(ours, stock)
    assert torch.equal(*maps)
    assert torch.equal(*(x.proposal_boxes.tensor for x in proposals))


class Weighing(RetinaDatasetMapper):
    """A user's: changes the annotations that it gets, as Detectron2's comments invite to."""

    def _transform_annotations(self, dataset_dict, transforms, image_shape):
        weights = [x.pop("weight") for x in dataset_dict["annotations"]]
        for annotation in dataset_dict["annotations"]:
            annotation["bbox"][0] += 1
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        dataset_dict["instances"].gt_weight = torch.tensor(weights)


def test_subclasses_may_change_annotations(record):
    for annotation in record["annotations"]:
        annotation["weight"] = 0.5
    mapper = Weighing(is_train=True, augmentations=[], image_format="BGR")
    for _ in range(2):  # the second time would tell if the record had changed
        instances = mapper(record)["instances"]
        assert instances.gt_weight.tolist() == [0.5, 0.5]
        assert instances.gt_boxes.tensor[:, 0].tolist() == [11, 41]


def test_the_decoder_reads_the_image(record):
    read = []

    def decoder(path, image_format):
        read.append((path, image_format))
        return np.full((64, 96, 3), 7, np.uint8)

    mapper = pair([])[0]
    assert mapper.decoder is read_image
    mapper.decoder = decoder
    assert (mapper(record)["image"] == 7).all()
    assert read == [(record["file_name"], "BGR")]


def test_the_decoder_is_the_configs():
    pytest.importorskip("simplejpeg")
    cfg = config()
    assert RetinaDatasetMapper(cfg, True).decoder is read_image
    cfg.INPUT.DECODER = "simplejpeg"
    for is_train in (True, False):
        mapper = RetinaDatasetMapper(cfg, is_train)
        assert mapper.decoder is decoders.read_with_simplejpeg
    assert pickle.loads(pickle.dumps(mapper)).decoder is mapper.decoder  # for spawned workers


def test_an_unknown_decoder_is_refused():
    cfg = config()
    cfg.INPUT.DECODER = "pil"
    with pytest.raises(UnknownNameError, match=r"INPUT.DECODER: 'pil' is unknown"):
        RetinaDatasetMapper(cfg, True)


def test_a_config_without_the_key_means_pil(record):
    cfg = get_cfg()
    mapper = RetinaDatasetMapper(cfg, True)
    assert mapper.decoder is read_image
    same(*outputs(record, [mapper, DatasetMapper(cfg, True)]))


# ---- tiles


def test_a_tile_is_cut_out_of_its_file(record):
    """Boxes lie on their pixels, and height and width are the tile's."""
    cfg = config({"NAME": "RandomQuarterTurn"})
    mapper = RetinaDatasetMapper(cfg, is_train=True)
    tiles = tile_records([record], size=50, overlap=10)
    assert len(tiles) == 2 and [len(x["annotations"]) for x in tiles] == [2, 1]
    for tile in tiles * 4:
        before = copy.deepcopy(tile)
        output = mapper(tile)
        assert tile == before
        window = tile["tile"]
        assert (output["height"], output["width"]) == (window.height, window.width)
        assert sorted(output["image"].shape[1:]) == sorted([window.height, window.width])
        boxes = output["instances"].gt_boxes.tensor.round().long().tolist()
        area = 0
        for x0, y0, x1, y1 in boxes:
            assert (output["image"][:, y0:y1, x0:x1] > 0).all()
            area += (x1 - x0) * (y1 - y0)
        assert (output["image"][0] > 0).sum() == area


def test_tiles_of_a_file_share_its_decoding(record):
    decoded = []
    mapper = RetinaDatasetMapper(
        is_train=True,
        augmentations=[InPlace()],
        image_format="BGR",
        decoder=lambda *x: decoded.append(x) or read_image(*x),
        cached_images=1,
    )
    first, *_ = outputs = [mapper(tile) for tile in tile_records([record], size=50) * 2]
    assert len(decoded) == 1
    # what an augmentation did to one tile is not in the next
    assert torch.equal(first["image"], outputs[len(outputs) // 2]["image"])


class InPlace(T.Augmentation):
    def get_transform(self, image):
        image += 1
        return T.NoOpTransform()


def test_a_tile_of_another_size_than_the_file_is_refused(record):
    (tile, *_) = tile_records([{**record, "width": 200}], size=50)
    with pytest.raises(SizeMismatchError):
        RetinaDatasetMapper(config(), True)(tile)


# ---- INPUT.FORMAT bands


def bands_config(channels, *augmentations):
    cfg = config(*augmentations)
    cfg.INPUT.FORMAT = "bands"
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [1.0] * channels
    return cfg


@pytest.fixture
def bands(record, tmp_path):
    """The record with its values times 100 in five bands, each the last one's double."""
    grey = np.asarray(Image.open(record["file_name"]))[..., 0].astype(np.uint16)
    np.save(tmp_path / "image.npy", np.stack([grey * 2**i for i in range(5)], axis=2))
    return {**record, "file_name": str(tmp_path / "image.npy")}


@pytest.mark.parametrize("is_train", [True, False])
def test_bands_as_the_file_has_them(bands, is_train):
    keep = {"NAME": "RandomFlip", "prob": 0.0}
    cfg = bands_config(5, keep)
    cfg.INPUT.AUGMENTATIONS_TEST = [keep]
    given = RetinaDatasetMapper(cfg, is_train)(bands)
    assert given["image"].dtype == torch.float32 and given["image"].shape == (5, 64, 96)
    assert torch.equal(given["image"][:, 30, 15], 250.0 * 2.0 ** torch.arange(5))


def test_boxes_follow_bands_that_are_resized_and_flipped(bands):
    cfg = bands_config(5)
    cfg.INPUT.MIN_SIZE_TRAIN = (128,)
    for _ in range(8):
        given = RetinaDatasetMapper(cfg, True)(bands)
        for box in given["instances"].gt_boxes.tensor.int().tolist():
            x0, y0, x1, y1 = box
            inside = given["image"][:, y0 + 2 : y1 - 2, x0 + 2 : x1 - 2]
            assert (inside == 250.0 * 2.0 ** torch.arange(5).view(5, 1, 1)).all()


def test_colours_as_bands_may_be_saturated(record):
    """Which makes doubles of floats, that no network takes."""
    jitter = {"NAME": "RandomSaturation", "intensity_min": 0.5, "intensity_max": 1.5}
    given = RetinaDatasetMapper(bands_config(3, jitter), True)(record)
    assert given["image"].dtype == torch.float32


def test_another_number_of_bands_names_the_file(bands):
    with pytest.raises(ValueError, match=r"image\.npy: 5 bands, but MODEL.PIXEL_MEAN has 3"):
        RetinaDatasetMapper(bands_config(3), True)(bands)


def test_another_size_of_bands_is_detectron2s_error(bands):
    bands["height"] = 63
    with pytest.raises(SizeMismatchError):
        RetinaDatasetMapper(bands_config(5), True)(bands)


def test_readers_of_bands_reach_spawned_workers(bands):
    mapper = pickle.loads(pickle.dumps(RetinaDatasetMapper(bands_config(5), True)))
    assert mapper(bands)["image"].shape[0] == 5


def test_decoders_of_ones_own_read_bands_too(monkeypatch, bands):
    def decode(path, image_format):
        assert image_format == "bands"
        return np.full((64, 96, 2), 7.0, np.float32)

    monkeypatch.setitem(decoders.DECODERS, "mine", decode)
    cfg = bands_config(2)
    cfg.INPUT.DECODER = "mine"
    assert (RetinaDatasetMapper(cfg, True)(bands)["image"] == 7).all()
