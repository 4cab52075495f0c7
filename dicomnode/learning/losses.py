"""What the network is asked to get right."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class SegmentationLoss(nn.Module):
    """Weighted cross entropy plus soft Dice of lung (over the batch) and of lesions (patch by patch).

    logits: (b, 3, x, y, z); label: (b, 2, x, y, z): class and weight of the voxel, weight 0 is ignored. Dice over the whole
    batch let one large lesion hide ten small ones; by patch each nodule that is missed costs about as much as any other, and
    in a patch without lesions every false voxel does.
    """

    def __init__(self, lesion_weight: float = 3.0, dice_share: float = 0.6) -> None:
        super().__init__()
        self.register_buffer("class_weights", torch.tensor([1.0, 1.0, lesion_weight]))
        self.dice_share = dice_share

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits = logits.float()
        weight = label[:, 1].float()
        counted = (weight > 0).float()
        target = torch.where(label[:, 1] > 0, label[:, 0], 0).long()
        classes = torch.as_tensor(self.class_weights, device=logits.device)
        entropy = functional.cross_entropy(logits, target, weight=classes, reduction="none")
        loss = (entropy * weight).sum() / counted.sum().clamp(min=1)
        probability = torch.softmax(logits, dim=1)
        lung = _dice(probability[:, 1] * counted, (target == 1) * counted, smooth=20.0, dims=(0, 1, 2, 3))
        lesion = _dice(probability[:, 2] * weight, (target == 2) * weight, smooth=60.0, dims=(1, 2, 3))
        return loss + self.dice_share * (1 - lung) + self.dice_share * (1 - lesion).mean()


def _dice(predicted: Tensor, truth: Tensor, smooth: float, dims: tuple[int, ...]) -> Tensor:
    overlap = torch.minimum(predicted, truth).sum(dims)
    return (2 * overlap + smooth) / (predicted.sum(dims) + truth.sum(dims) + smooth)
