"""Keys of the data: ``DATASETS``, ``INPUT``, ``DATALOADER``."""

from __future__ import annotations

from retina_plugin.config.keys.key import Key

_NAME = "Name of the {split} set or list of names; None for the stem of the json file."
_JSON = "Path of the {split} set's annotations in COCO's json format, or list of paths."
_IMAGES = "Path of the folder of the {split} images, or list of paths, one for each json file."


def _coco(split: str, called: str) -> dict[str, Key]:
    meanings = {"NAME": _NAME, "JSON": _JSON, "IMAGES": _IMAGES}
    return {
        f"DATASETS.COCO.{split}.{key}": Key(None, meaning.format(split=called))
        for key, meaning in meanings.items()
    }


KEYS = {
    **_coco("TRAIN", "training"),
    **_coco("TEST", "test"),
    "DATASETS.COCO.CLASS_NAMES": Key(
        None, "Names of the classes in the order of their ids; None for the json's categories."
    ),
    "DATASETS.COCO.EXTRA_ANNOTATION_KEYS": Key(
        [],
        "Keys of the json's annotations that become fields of the training objects, `weight` "
        "as `gt_weight` and so on.",
    ),
    "DATASETS.COCO.EXTRA_IMAGE_KEYS": Key(
        [], "Keys of the json's images that become keys of the records."
    ),
    "DATASETS.CHECK_FILES": Key(True, "Whether to check every image file before training."),
    "INPUT.AUGMENTATIONS": Key(
        [],
        "Augmentations in training, a list of `{NAME: ..., argument: value}`; empty for "
        "Detectron2's resize, crop and flip, which other keys of INPUT describe.",
    ),
    "INPUT.AUGMENTATIONS_TEST": Key(
        [],
        "Augmentations in evaluation, as INPUT.AUGMENTATIONS; empty for Detectron2's resize.",
    ),
    "INPUT.DECODER": Key(
        "PIL",
        "Decoder of the image files: `PIL`, or `simplejpeg`, which decodes JPEG files to the same "
        "pixels in less time.",
    ),
    "INPUT.IGNORE_CROWD": Key(
        False,
        "Whether anchors in regions that the json marks `iscrowd: 1` are left out of the "
        "classification loss; COCO's evaluator ignores these regions too.",
    ),
    "INPUT.MIX.MOSAIC_PROB": Key(0.0, "Probability that an image becomes a mosaic of four images."),
    "INPUT.MIX.MIXUP_PROB": Key(0.0, "Probability that an image is blended with another one."),
    "INPUT.MIX.COPY_PASTE_PROB": Key(
        0.0, "Probability that objects of another image are pasted into an image."
    ),
    "INPUT.MIX.SIZE": Key(0, "Side of a mosaic in pixels; 0 for the size of its first image."),
    "INPUT.MIX.MOSAIC_SCALE": Key(
        [0.5, 1.0], "Smallest and largest factor by which the images of a mosaic are resized."
    ),
    "INPUT.MIX.MIXUP_ALPHA": Key(
        32.0, "Both parameters of mixup's beta distribution; the larger, the nearer to equal parts."
    ),
    "INPUT.MIX.COPY_PASTE_SHARE": Key(
        0.5, "Probability of each object of the other image to be pasted."
    ),
    "INPUT.MIX.MIN_VISIBLE": Key(
        0.25,
        "Smallest visible share of an object's area after mixing; objects with less are dropped.",
    ),
    "INPUT.MIX.CLOSE_STEPS": Key(
        0, "Number of last iterations of the training in which images are not mixed."
    ),
    "INPUT.TILES.TRAIN_SIZE": Key(
        0, "Side of the tiles in training, in pixels of the image file; 0 for whole images."
    ),
    "INPUT.TILES.TRAIN_OVERLAP": Key(0, "Overlap of neighbouring tiles in training, in pixels."),
    "INPUT.TILES.MIN_VISIBLE": Key(
        0.5, "Share of its area above which an object that a tile's edge cuts is still an object."
    ),
    "INPUT.TILES.CACHE": Key(4, "Number of decoded images that each worker process keeps."),
    "INPUT.TILES.TEST_SIZE": Key(
        0,
        "Side of the tiles in evaluation, in pixels after the resize; 0 for whole images.",
    ),
    "INPUT.TILES.TEST_OVERLAP": Key(
        128, "Smallest overlap of neighbouring tiles in evaluation, in pixels."
    ),
    "INPUT.TILES.TEST_BATCH": Key(1, "Number of tiles that go through the network together."),
    "DATALOADER.GROUP_FIELD": Key(
        "", "Key of the records by which training images are grouped to be balanced; empty is off."
    ),
    "DATALOADER.GROUP_POWER": Key(
        1.0, "How strongly groups are balanced: 1 for equally often, 0 for as often as their size."
    ),
}
