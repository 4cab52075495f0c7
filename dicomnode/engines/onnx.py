"""A network as an ONNX graph, run by onnxruntime (the optional extra `onnx`): data, no code of the bundle."""

import re
from pathlib import Path

import torch

from dicomnode.domain.errors import PipelineError

# StringStringEntryProto(key="location"): a tensor in another file, which the graph could name anywhere on this machine.
_EXTERNAL_DATA = re.compile(rb"\x0a\x08location\x12")


class OnnxNetwork(torch.nn.Module):
    """Takes and gives tensors as the network that was exported did; the first input and the first output count."""

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError as error:
            raise PipelineError(
                f"{path.name} is an ONNX graph, and onnxruntime is not installed", 'install "dicomnode-ai[onnx]"'
            ) from error
        graph = path.read_bytes()
        if _EXTERNAL_DATA.search(graph):
            raise PipelineError(f"{path.name} keeps tensors in other files", "export it again as one file")
        wanted = ["CUDAExecutionProvider"] if device.type == "cuda" else []
        providers = [name for name in (*wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
        self._session = onnxruntime.InferenceSession(graph, providers=providers)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(batch, channel, x, y, z) float32 → what the graph makes of it, on the device of `image`."""
        (output,) = self._session.run([self._output], {self._input: image.float().cpu().numpy()})
        return torch.as_tensor(output).to(image.device)
