"""The best scores of each level and image, found in the head's raw maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from retina_plugin.modeling.contracts import Selection

WORD = 8  # bytes of an int64


@dataclass(frozen=True, eq=False)
class Candidates:
    """P scores of the batch: level by level, there image by image, there best first.

    Attributes:
        anchors: the anchor of each; sorted by level only, and an anchor may come once a class.
        classes: ``(P,)`` int64.
        scores: ``(P,)``.
        counts: how many there are of each level and image, in that order.
        num_images: N.
    """

    anchors: Selection
    classes: Tensor
    scores: Tensor
    counts: list[int]
    num_images: int

    def by_image(self, values: Tensor) -> list[Tensor]:
        """Split ``(P, ...)`` values, one of each candidate, by image."""
        parts = values.split(self.counts)
        return [torch.cat(parts[image :: self.num_images]) for image in range(self.num_images)]


def select_candidates(
    logits: Sequence[Tensor], num_classes: int, score_thresh: float, topk: Sequence[int]
) -> Candidates:
    """The best scores above a threshold of each level and image, at most ``topk[level]``.

    Equal to ``DenseDetector._decode_per_level_predictions`` of Detectron2, order included. Unlike
    there the logits are compared with ``logit(score_thresh)``, and only what passes is gathered
    from the maps and goes through the sigmoid. The host waits for the device four times a batch,
    and twice more where a logit passes whose rounded score does not.

    Args:
        logits: a level's ``(N, A*K, H, W)`` each.
        num_classes: K.
        score_thresh: in [0, 1].
        topk: one number a level.
    """
    maps = [map_ for level in logits for map_ in level]
    index = _above(logits, logit_thresh(score_thresh, logits[0].dtype))
    # map by map: the last few of a vector are rounded differently, and an image's scores must not
    # depend on its neighbours
    scores = [_gather(map_, own).sigmoid() for map_, own in zip(maps, index, strict=True)]
    index, scores = _drop_below(score_thresh, index, scores)
    num_images = len(maps) // len(logits)
    # topk, which is not stable, gets the values that Detectron2's gets, in the same order
    best = [x.topk(min(topk[i // num_images], len(x))) for i, x in enumerate(scores)]
    index = [own[b.indices] for own, b in zip(index, best, strict=True)]
    return Candidates(
        anchors=_locate(logits, [own // num_classes for own in index], num_classes),
        classes=torch.cat(index) % num_classes,
        scores=torch.cat([b.values for b in best]),
        counts=[len(own) for own in index],
        num_images=num_images,
    )


def _above(logits: Sequence[Tensor], thresh: float) -> list[Tensor]:
    """Which logits are above: of each level and image the indices into its flat ``(H*W, A*K)``.

    That is the order in which Detectron2 lists them. One mask for the whole batch, so that the
    host waits once for what is in it.
    """
    sizes = [x.numel() for x in logits]
    filling = -sum(sizes) % WORD
    mask = torch.empty(sum(sizes) + filling, dtype=torch.bool, device=logits[0].device)
    *parts, rest = mask.split([*sizes, filling])
    rest.zero_()
    for map_, part in zip(logits, parts, strict=True):
        cells_first = map_.flatten(2).transpose(1, 2)
        torch.gt(cells_first, thresh, out=part.view(cells_first.shape))
    index = _nonzero(mask)
    starts = [0, *accumulate(map_.numel() for level in logits for map_ in level)]
    before = torch.searchsorted(index, index.new_tensor(starts)).tolist()
    split = index.split([end - begin for begin, end in pairwise(before)])
    return [own.sub_(start) for own, start in zip(split, starts, strict=False)]


def _nonzero(mask: Tensor) -> Tensor:
    """``mask.nonzero()``, a word at a time: few scores of a trained detector pass."""
    words = mask.view(torch.int64).nonzero().squeeze(1)
    if len(words) > len(mask) // WORD // 4:
        return mask.nonzero().squeeze(1)
    entry = mask.view(-1, WORD)[words].flatten().nonzero().squeeze(1)
    return words[entry // WORD] * WORD + entry % WORD


def _gather(map_: Tensor, index: Tensor) -> Tensor:
    """Entries of an ``(A*K, H, W)`` map, by their indices into its flat ``(H*W, A*K)``."""
    channels, cells = len(map_), map_[0].numel()
    cells_first = map_.flatten(1).t()
    if cells_first.is_contiguous():  # memory format channels_last
        return cells_first.flatten().index_select(0, index)
    return map_.flatten().index_select(0, (index % channels).mul_(cells).add_(index // channels))


def _drop_below(
    score_thresh: float, index: list[Tensor], scores: list[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Without the logits that passed only because :func:`logit_thresh` allows for rounding."""
    passed = torch.cat(scores) > score_thresh
    if passed.all():
        return index, scores
    counts = torch.stack([x.sum() for x in passed.split([len(x) for x in scores])]).tolist()
    passed = passed.nonzero().squeeze(1)
    return torch.cat(index)[passed].split(counts), torch.cat(scores)[passed].split(counts)


def _locate(logits: Sequence[Tensor], anchors: Sequence[Tensor], num_classes: int) -> Selection:
    """The anchors of each level and image, which count from the level's first, as one selection."""
    num_images = len(logits[0])
    starts = [0, *accumulate(x[0].numel() // num_classes for x in logits)]
    counts = [len(x) for x in anchors]
    return Selection(
        anchor=torch.cat([x + starts[i // num_images] for i, x in enumerate(anchors)]),
        image=torch.cat([torch.full_like(x, i % num_images) for i, x in enumerate(anchors)]),
        level_counts=tuple(
            sum(counts[i : i + num_images]) for i in range(0, len(counts), num_images)
        ),
        level_starts=tuple(starts[:-1]),
    )


def logit_thresh(score: float, dtype: torch.dtype) -> float:
    """The inverse sigmoid of a score, lowered by what rounding in ``dtype`` can move.

    Scores s are rounded by ``eps s``, or ``eps tiny`` where they are subnormal, which in logits
    is that over ``s (1 - s)``; the logits x themselves by ``eps |x|``.
    """
    if not 0 < score < 1:  # code that sets it directly may put it outside [0, 1]
        return math.inf if score >= 1 else -math.inf
    logit, info = math.log(score / (1 - score)), torch.finfo(dtype)
    rounding = abs(logit) + max(score, info.tiny) / (score * (1 - score))
    return logit - 2 * info.eps * rounding
