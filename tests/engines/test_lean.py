"""What is taken out of a network for inference changes no answer."""

import copy

import pytest
import torch
from monai.networks.nets import UNet

from dicomnode.engines.lean import leaned


@pytest.mark.parametrize("norm", ["BATCH", "INSTANCE"])
@pytest.mark.parametrize("act", ["PRELU", "RELU"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_leaned_network_says_the_same(norm: str, act: str, flat: bool) -> None:
    torch.manual_seed(1)
    plain = UNet(2 if flat else 3, 1, 3, channels=(8, 12, 16), strides=(2, 2), num_res_units=2, norm=norm, act=act)
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean = torch.randn(module.num_features) / 4
            module.running_var = torch.rand(module.num_features) + 0.5
    plain.eval()
    lean = leaned(copy.deepcopy(plain))
    image = torch.randn(1, 1, *((32, 32) if flat else (32, 32, 16)))
    kept = image.clone()
    with torch.inference_mode():
        assert torch.allclose(plain(image), lean(image), atol=1e-5)
    assert torch.equal(image, kept)
    left = [type(module).__name__ for module in lean.modules() if "Norm" in type(module).__name__]
    assert bool(left) is (norm == "INSTANCE")
