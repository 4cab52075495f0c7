"""A loaded network without what only training needed: the same numbers to rounding, less memory and fewer passes over it."""

from typing import Any

import torch
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.layers import SkipConnection
from monai.networks.nets import UNet
from torch.nn.utils.fusion import fuse_conv_bn_eval


def leaned(network: torch.nn.Module) -> torch.nn.Module:
    """`network`, for inference alone: batch norm goes into the convolution before it, activations and sums change in place.

    Only in MONAI's own blocks, whose order is known. Most of the memory of a 3D U-Net at its widest is such copies, and tensors
    that somebody still holds who no longer wants them: its two sides meet without being joined to one.
    """
    for block in network.modules():
        if isinstance(block, Convolution):
            _fold_norm(block)
            _activate_in_place(block)
        elif type(block) is ResidualUnit:
            block.__class__ = _SumInPlace
    if type(network) is UNet and _is_level(network.model):
        network.__class__ = _Thrifty
    return network


def _fold_norm(block: Any) -> None:
    adn = getattr(block, "adn", None)
    if adn is None or next((name for name, _ in adn.named_children()), "") != "N":
        return
    known = isinstance(adn.N, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d)
    if known and adn.N.running_mean is not None:  # without it, it norms by the batch: nothing is known beforehand
        block.conv = fuse_conv_bn_eval(block.conv, adn.N, transpose=block.is_transposed)
        adn.N = torch.nn.Identity()


def _activate_in_place(block: Any) -> None:
    """What comes into an activation here was made by convolution or norm just before, and belongs to nobody else."""
    adn = getattr(block, "adn", None)
    if adn is None:
        return
    activation = getattr(adn, "A", None)
    if isinstance(activation, torch.nn.PReLU) and activation.num_parameters == 1:
        adn.A = torch.nn.LeakyReLU(activation.weight.item(), inplace=True)  # the same function, its slope a constant now
    elif isinstance(activation, torch.nn.ReLU | torch.nn.LeakyReLU):
        activation.inplace = True


class _SumInPlace(ResidualUnit):  # type: ignore[misc]  # MONAI is untyped
    """What its convolutions give is its own: the residual is added to it where it is, unless gradients want it as it was."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.residual(x)
        own: torch.Tensor = self.conv(x)
        return own + residual if torch.is_grad_enabled() or own.dtype != residual.dtype else own.add_(residual)


class _Thrifty(UNet):  # type: ignore[misc]
    """MONAI's UNet whose levels hold on to nothing that they have passed on.

    The transposed convolution of what the skip connection joins is the sum of those of its two parts: that of the skipped part
    is made before the levels below are and kept in its place; the two are never joined.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Somebody looks at a layer: all must be called. torch has no other way to ask.
        if any(module._forward_hooks or module._forward_pre_hooks for module in self.modules()):  # noqa: SLF001
            plain: torch.Tensor = super().forward(x)
            return plain
        return _upwards(self.model, [self.model[0](x)])


def _is_level(block: Any) -> bool:
    """Whether it is Sequential(down, SkipConnection(below), up) all the way down, with a transposed convolution to go up."""
    if not (isinstance(block, torch.nn.Sequential) and len(block) == 3 and isinstance(block[1], SkipConnection)):
        return False
    below, joins = block[1].submodule, block[1].mode == "cat" and block[1].dim == 1
    up = _first_up(block)
    plain = isinstance(up, Convolution) and up.is_transposed and up.conv.groups == 1 and up.conv.padding_mode == "zeros"
    return joins and plain and (_is_bottom(below) or _is_level(below))


def _is_bottom(below: Any) -> bool:
    return isinstance(below, ResidualUnit | Convolution)


def _first_up(level: Any) -> Any:
    return level[2][0] if isinstance(level[2], torch.nn.Sequential) and not isinstance(level[2], Convolution) else level[2]


def _upwards(level: Any, held: list[torch.Tensor]) -> torch.Tensor:
    """What a level gives, from what its way down gave: the only tensor of `held`, which is taken out of it."""
    skipped, below, up = held.pop(), level[1].submodule, _first_up(level)
    deep = not _is_bottom(below)
    lower = [below[0](skipped) if deep else below(skipped)]
    channels = skipped.shape[1]
    result = _transposed(up.conv, skipped, up.conv.weight[:channels], up.conv.bias)
    del skipped
    raised = _upwards(below, lower) if deep else lower.pop()
    result += _transposed(up.conv, raised, up.conv.weight[channels:], None)
    del raised
    for step in list(up.children())[1:]:  # its norm and activation
        result = step(result)
    for step in list(level[2])[1:] if up is not level[2] else ():
        result = step(result)
    return result


def _transposed(conv: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    transposed = torch.nn.functional.conv_transpose3d if x.ndim == 5 else torch.nn.functional.conv_transpose2d
    return transposed(x, weight, bias, conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation)
