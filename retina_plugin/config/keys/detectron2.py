"""Meanings of Detectron2's keys that have an effect on a RetinaNet, and those that have none."""

from __future__ import annotations

from retina_plugin.config.keys.key import StockKey

NO_EFFECT = (
    *("MODEL.ROI_", "MODEL.RPN.", "MODEL.SEM_SEG_HEAD.", "MODEL.PANOPTIC_FPN."),
    *("MODEL.PROPOSAL_GENERATOR.", "MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.LOAD_PROPOSALS"),
    *("DATASETS.PROPOSAL_FILES_", "DATASETS.PRECOMPUTED_PROPOSAL_", "TEST.KEYPOINT_OKS_SIGMAS"),
    *("MODEL.ANCHOR_GENERATOR.ANGLES", "INPUT.MASK_FORMAT", "GLOBAL.HACK"),
)

_RETINANET = {
    "NUM_CLASSES": StockKey("Number of classes K; taken from the data unless it is set."),
    "IN_FEATURES": StockKey("Names of the feature maps that the head gets, finest first."),
    "NUM_CONVS": StockKey("Number of convolutions in each tower of the head."),
    "IOU_THRESHOLDS": StockKey("IoU thresholds of MaxIoUAssigner, ascending."),
    "IOU_LABELS": StockKey(
        "Labels of the anchors between MaxIoUAssigner's thresholds: 0 background, -1 ignored, 1 "
        "positive."
    ),
    "PRIOR_PROB": StockKey("Score of every class at the start of the training."),
    "SCORE_THRESH_TEST": StockKey("Score that a detection must exceed."),
    "TOPK_CANDIDATES_TEST": StockKey("Number of candidates per level and image before NMS."),
    "NMS_THRESH_TEST": StockKey("IoU above which NMS drops the lower-scoring box."),
    "BBOX_REG_WEIGHTS": StockKey("Factors of the box deltas (dx, dy, dw, dh)."),
    "FOCAL_LOSS_GAMMA": StockKey("Exponent gamma of the focal loss."),
    "FOCAL_LOSS_ALPHA": StockKey("Weight alpha of positives in the focal loss; -1 is off."),
    "SMOOTH_L1_LOSS_BETA": StockKey(
        "Absolute error at which smooth L1 becomes linear; 0 is the L1 loss."
    ),
    "BBOX_REG_LOSS_TYPE": StockKey("Box loss, by its name or alias."),
    "NORM": StockKey(
        "Norm after the convolutions of the head's towers, such as `GN`; empty is none."
    ),
}
_RESNETS = {
    "DEPTH": StockKey("Number of layers: 18, 34, 50, 101 or 152."),
    "OUT_FEATURES": StockKey("Names of the stages whose outputs the neck gets."),
    "NUM_GROUPS": StockKey("Number of groups of the 3x3 convolutions; 1 is ResNet, 32 ResNeXt."),
    "NORM": StockKey("Norm of the backbone, such as `FrozenBN`, `BN`, `SyncBN` or `GN`."),
    "WIDTH_PER_GROUP": StockKey("Channels of each group of the first stage's 3x3 convolutions."),
    "STRIDE_IN_1X1": StockKey(
        "Whether the stride is in the 1x1 convolution (weights of MSRA) or in the 3x3 one "
        "(weights of torchvision)."
    ),
    "RES5_DILATION": StockKey("Dilation of the last stage: 1, or 2 with half its stride."),
    "RES2_OUT_CHANNELS": StockKey("Output channels of the first stage."),
    "STEM_OUT_CHANNELS": StockKey("Output channels of the stem."),
    "DEFORM_ON_PER_STAGE": StockKey("Whether each of the four stages has deformable convolutions."),
    "DEFORM_MODULATED": StockKey("Whether deformable convolutions are modulated (version 2)."),
    "DEFORM_NUM_GROUPS": StockKey("Number of groups of the deformable convolutions."),
}
_MODEL = {
    "DEVICE": StockKey("Device, such as `cpu` or `cuda`; the CPU is used where there is no CUDA."),
    "META_ARCHITECTURE": StockKey(
        "Detector: `FocalRetinaNet`, Detectron2's `RetinaNet`, or one of your own."
    ),
    "WEIGHTS": StockKey("Path or URL of the weights that training starts from; empty for none."),
    "PIXEL_MEAN": StockKey("Mean of each channel, subtracted from the pixels."),
    "PIXEL_STD": StockKey("Standard deviation of each channel, by which the pixels are divided."),
    "BACKBONE.NAME": StockKey("Function that builds backbone and neck."),
    "BACKBONE.FREEZE_AT": StockKey(
        "Number of stages, the stem included, whose weights are not trained; 0 for none."
    ),
    "FPN.IN_FEATURES": StockKey("Names of the backbone's stages that the neck gets, finest first."),
    "FPN.OUT_CHANNELS": StockKey("Channels of every level of the neck."),
    "FPN.NORM": StockKey("Norm of the neck's convolutions; empty for none."),
    "FPN.FUSE_TYPE": StockKey(
        "How lateral and top-down features are merged.", choices=("sum", "avg")
    ),
    "ANCHOR_GENERATOR.NAME": StockKey("Anchor generator."),
    "ANCHOR_GENERATOR.SIZES": StockKey(
        "Square roots of the anchors' areas in pixels; one list per level, or one for all levels."
    ),
    "ANCHOR_GENERATOR.ASPECT_RATIOS": StockKey(
        "Height / width of the anchors; one list per level, or one for all levels."
    ),
    "ANCHOR_GENERATOR.OFFSET": StockKey(
        "Centre of the first anchor, in strides, from 0 to below 1."
    ),
}
_INPUT = {
    "MIN_SIZE_TRAIN": StockKey("Lengths of the shorter side in training, in pixels."),
    "MIN_SIZE_TRAIN_SAMPLING": StockKey(
        "How a length is drawn: one of the list, or from a range of two.",
        choices=("choice", "range"),
    ),
    "MAX_SIZE_TRAIN": StockKey("Largest length of the longer side in training, in pixels."),
    "MIN_SIZE_TEST": StockKey(
        "Length of the shorter side in evaluation, in pixels; 0 for no resize."
    ),
    "MAX_SIZE_TEST": StockKey("Largest length of the longer side in evaluation, in pixels."),
    "RANDOM_FLIP": StockKey("Random flip.", choices=("none", "horizontal", "vertical")),
    "CROP.ENABLED": StockKey("Whether training images are cropped at random."),
    "CROP.TYPE": StockKey(
        "What CROP.SIZE is: shares of the image's size (`relative`), the smallest of random "
        "shares (`relative_range`), pixels (`absolute`), or a range of pixels (`absolute_range`).",
        choices=("relative", "relative_range", "absolute", "absolute_range"),
    ),
    "CROP.SIZE": StockKey("Height and width of the crop."),
    "FORMAT": StockKey(
        "Order of the channels, such as `BGR` or `RGB`; `bands` for any number of channels as "
        "the files have them."
    ),
}
_SOLVER = {
    "LR_SCHEDULER_NAME": StockKey(
        "Schedule of the learning rate.",
        choices=("WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"),
    ),
    "MAX_ITER": StockKey("Number of iterations."),
    "BASE_LR": StockKey("Learning rate after the warm-up."),
    "BASE_LR_END": StockKey("Learning rate at the end of WarmupCosineLR."),
    "MOMENTUM": StockKey("Momentum of SGD."),
    "NESTEROV": StockKey("Whether SGD's momentum is Nesterov's."),
    "WEIGHT_DECAY": StockKey("Weight decay."),
    "WEIGHT_DECAY_NORM": StockKey("Weight decay of the norms' parameters; None for WEIGHT_DECAY."),
    "WEIGHT_DECAY_BIAS": StockKey("Weight decay of biases; None for WEIGHT_DECAY."),
    "BIAS_LR_FACTOR": StockKey("Factor of the learning rate of biases."),
    "GAMMA": StockKey("Factor of the learning rate at each of STEPS."),
    "STEPS": StockKey("Iterations at which WarmupMultiStepLR lowers the learning rate."),
    "NUM_DECAYS": StockKey("Number of decays of WarmupStepWithFixedGammaLR."),
    "WARMUP_FACTOR": StockKey("Factor of the learning rate in the first iteration."),
    "WARMUP_ITERS": StockKey("Number of iterations of the warm-up."),
    "WARMUP_METHOD": StockKey("Course of the warm-up.", choices=("linear", "constant")),
    "RESCALE_INTERVAL": StockKey(
        "Whether the warm-up gets longer with more workers than REFERENCE_WORLD_SIZE."
    ),
    "CHECKPOINT_PERIOD": StockKey("Number of iterations between checkpoints."),
    "IMS_PER_BATCH": StockKey("Number of images per iteration, of all workers together."),
    "REFERENCE_WORLD_SIZE": StockKey(
        "Number of workers that the schedule was made for, to which batch, learning rate and "
        "iterations are scaled; 0 is off."
    ),
    "CLIP_GRADIENTS.ENABLED": StockKey("Whether gradients are clipped."),
    "CLIP_GRADIENTS.CLIP_TYPE": StockKey(
        "What is clipped: each element (`value`), or the norm of each parameter's gradient "
        "(`norm`).",
        choices=("value", "norm"),
    ),
    "CLIP_GRADIENTS.CLIP_VALUE": StockKey("Largest absolute value, or largest norm."),
    "CLIP_GRADIENTS.NORM_TYPE": StockKey("Exponent p of the norm."),
    "AMP.ENABLED": StockKey("Whether training is in mixed precision, see SOLVER.AMP.PRECISION."),
}
_TEST = {
    "EXPECTED_RESULTS": StockKey("Results that the last evaluation is compared with, for tests."),
    "EVAL_PERIOD": StockKey("Number of iterations between evaluations; 0 for the last one only."),
    "DETECTIONS_PER_IMAGE": StockKey("Largest number of detections per image."),
    "AUG.ENABLED": StockKey("Whether the last evaluation is with test-time augmentation too."),
    "AUG.MIN_SIZES": StockKey("Lengths of the shorter side of the views, in pixels."),
    "AUG.MAX_SIZE": StockKey("Largest length of a view's longer side, in pixels."),
    "AUG.FLIP": StockKey("Whether each view is flipped horizontally as well."),
    "PRECISE_BN.ENABLED": StockKey("Whether batch norms' statistics are computed anew before."),
    "PRECISE_BN.NUM_ITER": StockKey("Number of batches of which they are computed."),
}
_DATA = {
    "DATASETS.TRAIN": StockKey("Names of registered training sets."),
    "DATASETS.TEST": StockKey("Names of registered test sets."),
    "DATALOADER.NUM_WORKERS": StockKey("Number of worker processes that load the data."),
    "DATALOADER.ASPECT_RATIO_GROUPING": StockKey(
        "Whether the images of a batch are all wide or all tall."
    ),
    "DATALOADER.SAMPLER_TRAIN": StockKey(
        "Sampler of the training images.",
        choices=("TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"),
    ),
    "DATALOADER.REPEAT_THRESHOLD": StockKey(
        "Share of images with a class below which RepeatFactorTrainingSampler repeats them."
    ),
    "DATALOADER.REPEAT_SQRT": StockKey("Whether the square root of the repeat factor is taken."),
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": StockKey(
        "Whether images without objects are left out of the training."
    ),
}
_RUN = {
    "OUTPUT_DIR": StockKey("Folder of the run: checkpoints, metrics, log, report."),
    "SEED": StockKey("Seed of the random numbers; negative for a random one."),
    "CUDNN_BENCHMARK": StockKey("Whether cuDNN searches for the fastest algorithms."),
    "VIS_PERIOD": StockKey("Number of iterations between pictures in TensorBoard; 0 for none."),
    "VERSION": StockKey("Version of the keys' names, 2."),
}


def _below(node: str, keys: dict[str, StockKey]) -> dict[str, StockKey]:
    return {f"{node}.{key}": stock for key, stock in keys.items()}


STOCK_KEYS: dict[str, StockKey] = {
    **_below("MODEL.RETINANET", _RETINANET),
    **_below("MODEL", _MODEL),
    **_below("MODEL.RESNETS", _RESNETS),
    **_below("INPUT", _INPUT),
    **_below("SOLVER", _SOLVER),
    **_below("TEST", _TEST),
    **_DATA,
    **_RUN,
}
