"""What is taken out of a network for inference changes no answer."""

import copy
from itertools import accumulate

import pytest
import torch
from monai.networks.nets import UNet

from dicomnode.engines.lean import leaned


@pytest.mark.parametrize("norm", ["BATCH", "INSTANCE"])
@pytest.mark.parametrize("act", ["PRELU", "RELU"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize(("units", "bias"), [(2, True), (0, True), (1, False)])
def test_a_leaned_network_says_the_same(norm: str, act: str, flat: bool, units: int, bias: bool) -> None:
    torch.manual_seed(1)
    plain = UNet(
        2 if flat else 3, 1, 3, channels=(8, 12, 16), strides=(2, 2), num_res_units=units, norm=norm, act=act, bias=bias
    )
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


def _unet() -> UNet:
    torch.manual_seed(2)
    return UNet(3, 1, 3, channels=(8, 12, 16), strides=(2, 2), num_res_units=2, norm="BATCH").eval()


def test_somebody_who_looks_at_a_layer_sees_it() -> None:
    network, image = leaned(_unet()), torch.randn(1, 1, 16, 16, 16)
    seen: list[str] = []
    with torch.inference_mode():
        freely = network(image)
        for name, module in network.named_modules():
            if name:
                module.register_forward_hook(lambda *_, name=name: seen.append(name))
        assert torch.allclose(network(image), freely, atol=1e-5)
    assert set(seen) == {name for name, _ in network.named_modules() if name}


def test_gradients_flow_through_a_leaned_network_as_an_activation_map_wants_them() -> None:
    plain, image = _unet(), torch.randn(1, 1, 16, 16, 16)
    given = []
    for network in (copy.deepcopy(plain), leaned(copy.deepcopy(plain))):
        wanted = image.clone().requires_grad_()
        network(wanted)[:, 1].sum().backward()
        given.append(wanted.grad)
    assert given[0] is not None
    assert given[1] is not None
    assert torch.allclose(given[0], given[1], atol=1e-4)


def test_a_network_put_together_otherwise_is_left_as_it_is() -> None:
    network = _unet()
    network.model[1].mode = "add"
    network.model[2][0].conv = torch.nn.ConvTranspose3d(8, 3, 3, 2, 1, 1).eval()
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        plainly = network(image)
        assert torch.allclose(leaned(network)(image), plainly, atol=1e-5)
    assert type(network) is UNet


def test_a_forward_pass_holds_four_tensors_of_the_widest_level_at_most() -> None:
    """The tensors that live at once, counted by the profiler of torch's allocator."""
    network = UNet(3, 1, 3, channels=(24, 32, 48), strides=(2, 2), num_res_units=2, norm="BATCH").eval()
    network, image = network.to(memory_format=torch.channels_last_3d), torch.randn(1, 1, 160, 160, 32)
    widest = 24 * 80 * 80 * 16 * 4

    def most_bytes(one: torch.nn.Module) -> int:
        cpu = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(profile_memory=True, activities=cpu) as profile, torch.inference_mode():
            one(image)
        changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        most: int = max(accumulate(event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())))
        return most

    plain, lean = most_bytes(network), most_bytes(leaned(network))
    assert lean < 4.2 * widest
    assert lean < 0.8 * plain  # which joins two of them to one, holds on to them meanwhile, and adds into a new one
