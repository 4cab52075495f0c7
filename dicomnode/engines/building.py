"""A bundle's configuration becomes objects: through MONAI's ConfigParser, after it was examined, or as it is where trusted."""

import importlib
import inspect
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import monai.inferers
import monai.networks.nets
import monai.transforms
import torch
from monai.bundle import ConfigParser

from dicomnode.domain.errors import PipelineError
from dicomnode.engines.catalogue import read_metadata
from dicomnode.engines.reasons import first_line
from dicomnode.engines.safety import ALLOWED_MODULES, examine

_log = logging.getLogger(__name__)

_BASES = (monai.transforms.Transform, monai.transforms.Compose, monai.inferers.Inferer, torch.nn.Module)
_HOME_MODULES = (
    *("monai.transforms.", "monai.inferers.", "monai.networks.", "monai.apps.detection.", "torch.nn."),
    "dicomnode.engines.memory.",
)
_SCRIPTS = "scripts"  # the package in which Model Zoo bundles keep their own code


class OwnCode:
    """The code of a trusted bundle: its folder can be imported from only within `importable`.

    Every bundle of the Model Zoo calls its package `scripts`; two of them must not get each other's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._modules: dict[str, ModuleType] = {}

    @contextmanager
    def importable(self) -> Iterator[None]:
        """For building the bundle, and for running it, since code may import when it is called."""
        others = _without_scripts()
        sys.modules.update(self._modules)
        sys.path.insert(0, self._folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(self._folder)
            self._modules = _without_scripts()
            sys.modules.update(others)


def _without_scripts() -> dict[str, ModuleType]:
    """Takes the modules of `scripts` out of the process, and gives them."""
    names = [name for name in sys.modules if name.partition(".")[0] == _SCRIPTS]
    return {name: sys.modules.pop(name) for name in names}


def build(
    config: Mapping[str, Any], folder: Path, device: torch.device, wanted: Sequence[str], *, own_code: OwnCode | None
) -> dict[str, Any]:
    """The objects of the `wanted` keys that `config` has; own_code: of a trusted bundle, else None.

    Raises PipelineError for what is not allowed or cannot be built.
    """
    config = {**config, "network_def": _fitted(config["network_def"])} if "network_def" in config else dict(config)
    if own_code is not None:
        _log.warning("pipeline %s runs code of its bundle: its digest is trusted", folder.name)
        parser = ConfigParser({**config, "_meta_": read_metadata(folder)})
    else:
        parser = ConfigParser(_examined(config, folder, wanted))
    parser["bundle_root"] = str(folder)
    parser["device"] = f"$torch.device('{device}')"
    try:
        with own_code.importable() if own_code is not None else nullcontext():
            for key in ("imports", "import") if own_code is not None else ():
                if key in config:
                    parser.get_parsed_content(key)
            return {key: parser.get_parsed_content(key) for key in wanted if key in parser}
    except Exception as error:  # whatever a bundle's own arguments make MONAI raise
        raise PipelineError(
            f"{folder.name}: its configuration cannot be built: {first_line(error)}", "correct configs/inference.json"
        ) from error


def _examined(config: Mapping[str, Any], folder: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The part that `wanted` refers to, with each `_target_` as the full name of the class that was checked."""
    examined = examine(config, wanted)
    if examined.violations:
        first = examined.violations[0]
        raise PipelineError(
            f"{folder.name} is not trusted and its configuration is not plain: {first.where}: {first.what}"
            + (f" (and {len(examined.violations) - 1} more)" if len(examined.violations) > 1 else ""),
            "see `dicomnode pipelines check`; an administrator may trust the bundle by its digest",
        )
    return {key: _with_classes(value) for key, value in examined.config.items()}


def _with_classes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _name_of(_class_of(inner)) if key == "_target_" else _with_classes(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_classes(inner) for inner in value]
    return value


def _name_of(found: type) -> str:
    return f"{found.__module__}.{found.__qualname__}"


def _class_of(target: str) -> type:
    """The allowed class that `target` names. Raises PipelineError for functions and anything from elsewhere."""
    module_name, _, name = target.rpartition(".")
    for candidate in (module_name,) if module_name else ALLOWED_MODULES:
        try:
            found = getattr(importlib.import_module(candidate), name, None)
        except ImportError:
            found = None
        if inspect.isclass(found) and issubclass(found, _BASES) and f"{found.__module__}.".startswith(_HOME_MODULES):
            return found
    raise PipelineError(
        f"{target!r} is no transform, inferer or network of MONAI or torch.nn", "correct the _target_ in the bundle"
    )


def _fitted(value: Any) -> Any:
    """A network's definition without arguments that this MONAI no longer has, and without weights from elsewhere.

    Arguments come and go between versions (SwinUNETR lost `img_size`). Leaving one out is safe here and nowhere else: whether
    the network is still the one that was trained is proven by its weights, which must fit.
    """
    if isinstance(value, list):
        return [_fitted(inner) for inner in value]
    if not isinstance(value, Mapping):
        return value
    fitted = {key: _fitted(inner) for key, inner in value.items()}
    try:
        network = _class_of(value["_target_"])
    except (KeyError, TypeError, AttributeError, ValueError, PipelineError):
        return fitted  # judged elsewhere
    parameters = inspect.signature(network).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for name in [name for name in fitted if name not in parameters and not str(name).startswith("_")]:
            _log.warning("argument %s of %s is left out: this version of MONAI does not have it", name, network.__name__)
            del fitted[name]
    if "pretrained" in parameters:
        fitted.setdefault("pretrained", False)  # the weights are the bundle's, and nothing is fetched
    return fitted
