"""Candidate selection that ``torch.jit.trace`` can record for any image size.

:func:`~retina_plugin.modeling.post_processors.candidates.select_candidates` reads counts on the
host, which a trace would keep as constants. Here every count stays a tensor, at the cost of one
pass over the scores per level and image, as in Detectron2. Tracing adapters, FLOP counters and the
TorchScript-based ONNX exporter come through here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes
from torch import Tensor
from torchvision.ops import batched_nms

from retina_plugin.modeling.contracts import BoxCoder, box_dim
from retina_plugin.modeling.post_processors.candidates import logit_thresh


def traced_candidates(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Boxes],
    *,
    coder: BoxCoder,
    num_classes: int,
    score_thresh: float,
    topk: Sequence[int],
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the candidates of each image: boxes ``(n, 4)``, scores ``(n,)``, classes ``(n,)``.

    They are those of ``select_candidates``, in the same order.

    Args:
        logits: ``(N, A*K, H, W)`` per level.
        deltas: ``(N, A*D, H, W)`` per level.
        anchors: ``H*W*A`` boxes per level.
        coder: the box coder.
        num_classes: K.
        score_thresh: in [0, 1].
        topk: one number per level.
    """
    images = []
    for image in range(len(logits[0])):
        parts = [
            _of_level(
                _by_anchor(level_logits[image], num_classes).flatten(),
                _by_anchor(level_deltas[image], box_dim(coder)),
                level_anchors.tensor,
                num_classes,
                score_thresh,
                count,
            )
            for level_logits, level_deltas, level_anchors, count in zip(
                logits, deltas, anchors, topk, strict=True
            )
        ]
        found_anchors, found_deltas, scores, classes = map(torch.cat, zip(*parts, strict=True))
        images.append((coder.decode(found_anchors, found_deltas), scores, classes))
    return images


def _of_level(
    logits: Tensor,
    deltas: Tensor,
    anchors: Tensor,
    num_classes: int,
    score_thresh: float,
    topk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors, deltas, scores and classes of the best ``topk`` above the threshold."""
    index = (logits > logit_thresh(score_thresh, logits.dtype)).nonzero().squeeze(1)
    scores = logits[index].sigmoid()
    passed = (scores > score_thresh).nonzero().squeeze(1)
    index, scores = index[passed], scores[passed]
    scores, best = scores.topk(_at_most(scores.shape[0], topk))
    index = index[best]
    anchor = torch.div(index, num_classes, rounding_mode="floor")
    return anchors[anchor], deltas[anchor], scores, index - anchor * num_classes


def _by_anchor(map_: Tensor, dim: int) -> Tensor:
    """``(A*dim, H, W) -> (H*W*A, dim)``."""
    return map_.permute(1, 2, 0).reshape(-1, dim)


def _at_most(count: int | Tensor, limit: int) -> int | Tensor:
    """``min(count, limit)``; a size is a tensor while it is traced."""
    return count.clamp(max=limit) if isinstance(count, Tensor) else min(count, limit)


def traced_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_thresh: float) -> Tensor:
    """``torchvision.ops.batched_nms``, which chooses its algorithm when the trace runs.

    Traced directly, it would always add offsets to the boxes, which rounds their IoU differently
    from what an eager model with many candidates computes. ONNX takes no other way.
    """
    if torch.onnx.is_in_onnx_export():
        return batched_nms(boxes, scores, groups, iou_thresh)
    return _scripted_nms(boxes, scores, groups, iou_thresh)


@torch.jit.script_if_tracing
def _scripted_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou_thresh: float) -> Tensor:
    return batched_nms(boxes, scores, groups, iou_thresh)
