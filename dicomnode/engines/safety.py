"""What of a bundle's configuration may be handed to MONAI's ConfigParser, decided on the raw JSON or YAML.

ConfigParser evaluates `$…`, instantiates any `_target_` (os.system too) and reads other files for `%file::id`, so nothing that
was not looked at here ever reaches it. Only what the wanted keys refer to is kept; the rest of the file (evaluators, data sets,
imports) is left out unread. The second check, with the classes at hand, is in `building`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dicomnode.domain.errors import PipelineError
from dicomnode.engines import expressions

WANTED_KEYS = ("preprocessing", "network_def", "inferer")
OWN_WAY_KEYS = (*WANTED_KEYS, "postprocessing")  # of a bundle that is run by its own postprocessing
PROVIDED_KEYS = frozenset({"device", "bundle_root"})  # set by the node, whatever the file says
_DETECTION = "monai.apps.detection"
ALLOWED_MODULES = (
    *("monai.transforms", "monai.inferers", "monai.networks.nets", "torch.nn"),
    *(f"{_DETECTION}.transforms.dictionary", f"{_DETECTION}.networks.retinanet_network"),
    *(f"{_DETECTION}.networks.retinanet_detector", f"{_DETECTION}.utils.anchor_utils"),
)
FROM_MEMORY = "dicomnode.engines.memory.FromMemoryd"  # what stands for a bundle's loading
TO_MEMORY = "dicomnode.engines.memory.ToMemoryd"  # … and for its saving, where it is no element of a list

# The volume comes from memory and results go to DICOM: these are replaced or left out instead of refused.
_LOADERS = re.compile(r"LoadImage(d|D|Dict)?$")
_SAVERS = re.compile(r"(SaveImage|SaveClassification|WriteFileMapping)(d|D|Dict)?$")
# They look classes up by name, open files or download weights.
_DENIED_CLASSES = re.compile(
    r"(Rand)?(CuCIM|TorchVision|TorchIO|SimulateDelay|Transchex|DataStats|PatchInferer|CellSam|Hyena|ImageFilter|MILModel"
    r"|ResNetFeatures)\w*$"
)
_DEEPEST = 64
_LARGEST_BYTES = 4 * 2**20  # of a configuration; the largest of the Model Zoo has 50 KB
_SPECIAL_KEYS = frozenset({"_target_", "_disabled_", "_requires_", "_desc_"})
_PLAIN_KEYS = frozenset({"_target_", "_mode_"})
_DOTTED_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")


@dataclass(frozen=True, slots=True)
class Violation:
    """One place in the configuration that an untrusted bundle may not have."""

    where: str  # "preprocessing::transforms::2::_target_"
    what: str


@dataclass(frozen=True, slots=True)
class Examined:
    """The part of a configuration that was looked at, without file transforms, and what is wrong in it."""

    config: dict[str, Any]
    violations: tuple[Violation, ...]


def read_config(path: Path) -> dict[str, Any]:
    """The raw mapping in a .json, .yaml or .yml file. Raises PipelineError where it is none or names a key twice."""
    try:
        text = _bounded_text(path)
        is_json = path.suffix == ".json"
        # A SafeLoader, and stricter: ruff cannot know.
        raw = json.loads(text, object_pairs_hook=_without_duplicates) if is_json else yaml.load(text, _PlainLoader)  # noqa: S506
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise PipelineError(
            f"{path} cannot be read: {error}", "correct the file; it must be JSON or YAML with unique keys"
        ) from error
    if _is_deeper(raw, _DEEPEST):
        raise PipelineError(f"{path} is nested deeper than {_DEEPEST} levels", "no bundle needs that; correct the file")
    if not isinstance(raw, dict):
        raise PipelineError(f"{path} holds no table of keys", f"it must hold {', '.join(WANTED_KEYS)}")
    return raw


def _bounded_text(path: Path) -> str:
    size = path.stat().st_size
    if size > _LARGEST_BYTES:
        raise ValueError(f"it has {size} bytes, at most {_LARGEST_BYTES} allowed")
    return path.read_text(encoding="utf-8")


def examine(config: Mapping[str, Any], wanted: Iterable[str] = WANTED_KEYS) -> Examined:
    """Follows every `@` and `%` reference from the `wanted` keys and judges each value on the way."""
    kept: dict[str, Any] = {}
    violations: list[Violation] = []
    ahead = [key for key in wanted if key in config]
    while ahead:
        key = ahead.pop()
        if key in kept or key in PROVIDED_KEYS:
            continue
        kept[key] = without_file_transforms(config[key])
        for where, name, value in _leaves(kept[key], key):
            violations += [Violation(where, what) for what in _objections(name, value)]
            for reference in _referred(value):
                if reference in config:
                    ahead.append(reference)
                elif reference not in PROVIDED_KEYS:
                    violations.append(Violation(where, f"refers to {reference!r}, which the file does not have"))
    return Examined(kept, tuple(violations))


def without_file_transforms(value: Any) -> Any:
    """The same configuration without transforms that read or write files; elements of lists only."""
    if isinstance(value, Mapping):
        return {key: without_file_transforms(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_file_transforms(inner) for inner in value if not (_is_a(_LOADERS, inner) or _is_a(_SAVERS, inner))]
    return value


def from_memory(value: Any) -> Any:
    """The same configuration with loading taken from memory and saving left out, wherever they stand.

    Of a loader's arguments only its keys and whether it makes the channel axis are kept: the others name files and readers.
    """
    if _is_a(_LOADERS, value):
        kept = {
            key: inner for key, inner in value.items() if key in {"keys", "ensure_channel_first", "_disabled_", "_requires_"}
        }
        return {"_target_": FROM_MEMORY, **kept}
    if _is_a(_SAVERS, value):
        return {"_target_": TO_MEMORY}
    if isinstance(value, Mapping):
        return {key: from_memory(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [from_memory(inner) for inner in value if not _is_a(_SAVERS, inner)]
    return value


def _is_a(names: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, Mapping) and bool(names.match(str(value.get("_target_", "")).rpartition(".")[2]))


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and tables lie in each other deeper than that: what follows walks them by recursion."""
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in inside)


def _leaves(value: Any, where: str, name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every scalar below `value` as (where, key, value), and what is no scalar although its key demands one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _PLAIN_KEYS and isinstance(inner, Mapping | list):
                yield f"{where}::{key}", str(key), inner  # MONAI calls whatever a nested `_target_` gives
            yield from _leaves(inner, f"{where}::{key}", str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{where}::{index}", name)
    else:
        yield where, name, value


def _objections(name: str, value: Any) -> Iterator[str]:
    if name.startswith("_") and name.endswith("_") and name not in _SPECIAL_KEYS:
        yield f"{name} is not allowed"
    if name.startswith("pretrained") and value not in (None, False, ""):
        yield f"{name} = {value!r} would fetch weights from elsewhere"
    if name == "_target_":
        yield from _target_objections(value)
    elif isinstance(value, str) and value.startswith("$"):
        yield from expressions.objections(value[1:])
    elif isinstance(value, str) and value.startswith("%") and not re.fullmatch(r"%\w+((#|::)\w+)*", value):
        yield f"{value!r} reads another file"
    elif isinstance(value, str) and re.match(r"[@%](#|::)", value):
        yield f"{value!r} is a relative reference"


def _target_objections(value: Any) -> Iterator[str]:
    if not isinstance(value, str) or not _DOTTED_NAME.fullmatch(value) or not value.rpartition(".")[2][0].isupper():
        yield f"_target_ {value!r} is not the name of a class"
    elif value in (FROM_MEMORY, TO_MEMORY):
        return
    elif _LOADERS.match(value.rpartition(".")[2]) or _SAVERS.match(value.rpartition(".")[2]):
        yield f"_target_ {value!r} reads or writes files"
    elif _DENIED_CLASSES.match(value.rpartition(".")[2]):
        yield f"_target_ {value!r} looks classes up by name or fetches files"
    elif "." in value and not any(value.startswith(f"{module}.") for module in ALLOWED_MODULES):
        yield f"_target_ {value!r} is none of {', '.join(ALLOWED_MODULES)}"


def _referred(value: Any) -> Iterator[str]:
    """Top-level keys that a value names."""
    if not isinstance(value, str):
        return
    if value.startswith("%"):
        yield re.split(r"#|::", value[1:])[0]
    elif value.startswith(("@", "$")):
        yield from (match.group(1) for match in expressions.REFERENCE.finditer(value) if match.group(1))


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader without aliases, whose nesting can grow beyond all memory, and without keys named twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it uses an alias (*name); write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if len(set(map(str, names))) != len(names):
            raise yaml.YAMLError(f"a key is there twice among {names}")
        return dict(super().construct_mapping(node, deep))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a key is there twice among {names}")
    return dict(pairs)
