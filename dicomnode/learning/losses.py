"""What the network is asked to get right."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dicomnode.learning.patches import IGNORE_INDEX


class SegmentationLoss(nn.Module):
    """Weighted cross entropy plus soft Dice of lung and lesion over the batch; ignored voxels (-1) count in neither.

    logits: (b, 3, x, y, z); label: (b, 1, x, y, z). Dice is taken over the whole batch, so a patch without a lesion is no
    division by nothing, and a false lesion in it still costs.
    """

    def __init__(self, lesion_weight: float = 15.0, dice_share: float = 0.6) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor([1.0, 1.0, lesion_weight]))
        self.dice_share = dice_share

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss, a scalar."""
        logits = logits.float()
        target = label[:, 0]
        weights = torch.as_tensor(self.weights, device=logits.device)
        entropy = functional.cross_entropy(logits, target, weight=weights, ignore_index=IGNORE_INDEX)
        counted = (target != IGNORE_INDEX).float()
        probability = torch.softmax(logits, dim=1) * counted[:, None]
        loss = torch.zeros((), device=logits.device)
        for channel in (1, 2):
            truth = (target == channel).float()
            overlap = (probability[:, channel] * truth).sum()
            total = probability[:, channel].sum() + truth.sum()
            loss = loss + 1 - (2 * overlap + 20) / (total + 20)
        return entropy + self.dice_share * loss
