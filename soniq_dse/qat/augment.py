"""Augmentation of images, drawn from torch's generator: the same for a seed, and resumed with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from soniq_dse.errors import UserError

REACH = 8
"""An image moves by at most this part of its side: 4 pixels of 32, as CIFAR-10 is usually trained."""


def augment(how: str, example: Tensor) -> Callable[[Tensor], Tensor] | None:
    """What ``Schedule.augment`` names, for batches like ``example`` ``[n, channels, height, width]``; None for none.

    ``shift``: every image is moved by its own random number of pixels, zeros moving in. ``shift_flip``: half of them
    are mirrored, too. Source: He et al., arXiv 1512.03385, section 4.2.

    Raises:
        UserError: the inputs are no images.
    """
    if how == "none":
        return None
    if example.ndim != 4:
        raise UserError(f"augment {how}: expected images [n, channels, height, width], got {list(example.shape)}")
    return shift if how == "shift" else lambda images: shift(flip(images))


def shift(images: Tensor) -> Tensor:
    """Every image moved along both axes by its own whole numbers of pixels."""
    n, _, height, width = images.shape
    rows, columns = (_moved(n, size).to(images.device) for size in (height, width))
    around = (width // REACH, width // REACH, height // REACH, height // REACH)
    padded = nn.functional.pad(images, around).permute(0, 2, 3, 1)
    at = torch.arange(n, device=images.device)
    return padded[at[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def flip(images: Tensor) -> Tensor:
    """Half of the images mirrored left to right."""
    chosen = (torch.rand(len(images)) < 0.5).to(images.device)
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def _moved(n: int, size: int) -> Tensor:
    """Places of a padded axis that each of ``n`` images takes: ``[n, size]``."""
    return torch.randint(0, 2 * (size // REACH) + 1, (n, 1)) + torch.arange(size)
