"""Projected gradient descent on the pixels of a mask: hide objects from a detector, or move them.

attacked = masked_pgd(model, images, targets, masks)
"""

import torch

from retina_plugin import loss_from_tensors


def masked_pgd(model, images, targets, masks, epsilon=8.0, step=2.0, steps=10, sign=1):
    """Images (N, C, H, W) that differ by at most `epsilon` (of 255), where `masks` are 1.

    `sign` 1 raises the loss of `targets`, -1 lowers it: then they are what shall be seen.
    Source: Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018.
    """
    change = torch.zeros_like(images)
    for _ in range(steps):
        change.requires_grad_()
        loss = sum(loss_from_tensors(model, images + change, targets).values())
        (gradient,) = torch.autograd.grad(loss, change)
        with torch.no_grad():
            change = change + sign * step * gradient.sign() * masks
            change = change.clamp(-epsilon, epsilon)
            change = (images + change).clamp(0, 255) - images
    return (images + change).detach()
