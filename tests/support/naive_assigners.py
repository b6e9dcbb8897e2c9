"""The assigners as their papers describe them, in loops, one anchor and box at a time."""

import math
import statistics


def centre(box):
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union else 0.0


def inside(point, box):
    return box[0] < point[0] < box[2] and box[1] < point[1] < box[3]


def winners(claims):
    """Anchor -> box, of claims ``(anchor, box, value)``: the highest, of equal ones the first."""
    best = {}
    for anchor, box, value in claims:
        if anchor not in best or value > best[anchor][1]:
            best[anchor] = (box, value)
    return {anchor: box for anchor, (box, _) in best.items()}


def atss(levels, boxes, per_cell, topk):
    """Zhang et al. 2020, algorithm 1."""
    claims = []
    for number, box in enumerate(boxes):
        candidates, start = [], 0
        for anchors in levels:
            cells = range(len(anchors) // per_cell)
            order = sorted(
                cells, key=lambda c, a=anchors: (math.dist(centre(a[c * per_cell]), centre(box)), c)
            )
            for cell in order[:topk]:
                candidates += [
                    (start + cell * per_cell + i, anchors[cell * per_cell + i])
                    for i in range(per_cell)
                ]
            start += len(anchors)
        overlaps = [iou(anchor, box) for _, anchor in candidates]
        spread = statistics.stdev(overlaps) if len(overlaps) > 1 else 0.0
        thresh = statistics.mean(overlaps) + spread
        for (index, anchor), overlap in zip(candidates, overlaps, strict=True):
            if overlap >= thresh and inside(centre(anchor), box):
                claims.append((index, number, overlap))
    return winners(claims)


def task_aligned(anchors, predicted, scores, boxes, classes, topk, alpha, beta):
    """Feng et al. 2021: anchor -> (box, soft target)."""
    claims, metrics = [], {}
    for number, (box, own) in enumerate(zip(boxes, classes, strict=True)):
        ranked = []
        for index, anchor in enumerate(anchors):
            if inside(centre(anchor), box):
                overlap = iou(predicted[index], box)
                metric = scores[index][own] ** alpha * overlap**beta
                metrics[index, number] = metric, overlap
                ranked.append((metric, index))
        for _, index in sorted(ranked, reverse=True)[:topk]:
            claims.append((index, number, metrics[index, number][1]))
    won = winners(claims)
    result = {}
    for index, number in won.items():
        mine = [metrics[i, n] for i, n in won.items() if n == number]
        top_metric, top_overlap = max(m for m, _ in mine), max(u for _, u in mine)
        result[index] = number, metrics[index, number][0] / top_metric * top_overlap
    return result


def sim_ota(anchors, strides, predicted, scores, boxes, classes, topk, radius, iou_weight):
    """Ge et al. 2021, section 2.1."""
    claims = []
    for number, (box, own) in enumerate(zip(boxes, classes, strict=True)):
        costs, overlaps = [], []
        for index, anchor in enumerate(anchors):
            x, y = centre(box)
            reach = radius * strides[index]
            region = (x - reach, y - reach, x + reach, y + reach)
            in_box, near = inside(centre(anchor), box), inside(centre(anchor), region)
            if not (in_box or near):
                continue
            overlap = iou(predicted[index], box)
            cost = -math.log(scores[index][own]) - iou_weight * math.log(overlap + 1e-8)
            costs.append((cost + (0 if in_box and near else 1e5), index))
            overlaps.append(overlap)
        k = max(1, int(sum(sorted(overlaps, reverse=True)[:topk])))
        claims += [(index, number, -cost) for cost, index in sorted(costs)[:k]]
    return winners(claims)
