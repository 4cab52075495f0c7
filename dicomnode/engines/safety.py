"""What of a bundle's configuration may be handed to MONAI's ConfigParser, decided on the raw JSON or YAML.

ConfigParser evaluates `$…`, instantiates any `_target_` (os.system too) and reads other files for `%file::id`, so nothing that
was not looked at here ever reaches it. Only what the wanted keys refer to is kept; the rest of the file (evaluators,
postprocessing, imports) is left out unread. The second check, with the classes at hand, is in `bundle`.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dicomnode.domain.errors import PipelineError

WANTED_KEYS = ("preprocessing", "network_def", "inferer")
PROVIDED_KEYS = frozenset({"device", "bundle_root"})  # set by the node, whatever the file says
ALLOWED_MODULES = ("monai.transforms", "monai.inferers", "monai.networks.nets", "torch.nn")

# The volume comes from memory and results go to DICOM: these are left out instead of refused.
_FILE_TRANSFORMS = re.compile(r"(LoadImage|SaveImage|SaveClassification|WriteFileMapping)(d|D|Dict)?$")
# They run callables, look classes up by name or download weights.
_DENIED_CLASSES = re.compile(r"(Rand)?(Lambda|CuCIM|TorchVision|TorchIO|SimulateDelay|Transchex|DataStats)\w*$")
_REFERENCE = re.compile(r"@(\w*)((?:(?:#|::)\w*)*)")  # monai.bundle.ReferenceResolver.id_matcher
_SPECIAL_KEYS = frozenset({"_target_", "_disabled_", "_requires_", "_desc_"})
_PLAIN_KEYS = frozenset({"_target_", "_mode_"})
_DOTTED_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*")

_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Dict, ast.Subscript, ast.Slice),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.UnaryOp, ast.USub, ast.UAdd, ast.Not),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.BoolOp, ast.And, ast.Or, ast.IfExp),
    *(ast.Attribute, ast.Call),
)
_FUNCTIONS = frozenset({"abs", "bool", "float", "int", "len", "list", "max", "min", "round", "sum", "tuple", "torch.device"})
_CONSTANTS = re.compile(
    r"(torch|np|numpy)\.(float16|bfloat16|float32|float64|float|int8|int16|int32|int64|int|long|uint8|bool|inf|pi)"
)
_STAND_IN = "referred_value"  # for a reference, while its expression is judged
_LARGEST_NUMBER = 1e9  # keeps [0] * 10**12 out


@dataclass(frozen=True, slots=True)
class Violation:
    """One place in the configuration that an untrusted bundle may not have."""

    where: str  # "preprocessing::transforms::2::_target_"
    what: str


@dataclass(frozen=True, slots=True)
class Examined:
    """The part of a configuration that was looked at, without file transforms, and what is wrong in it."""

    config: dict[str, Any]
    targets: tuple[tuple[str, str], ...]  # (where, the `_target_` as written)
    violations: tuple[Violation, ...]


def read_config(path: Path) -> dict[str, Any]:
    """The raw mapping in a .json, .yaml or .yml file. Raises PipelineError where it is none or names a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
        is_json = path.suffix == ".json"
        raw = json.loads(text, object_pairs_hook=_without_duplicates) if is_json else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PipelineError(
            f"{path} cannot be read: {error}", "correct the file; it must be JSON or YAML with unique keys"
        ) from error
    if not isinstance(raw, dict):
        raise PipelineError(f"{path} holds no table of keys", f"it must hold {', '.join(WANTED_KEYS)}")
    return raw


def examine(config: Mapping[str, Any], wanted: Iterable[str] = WANTED_KEYS) -> Examined:
    """Follows every `@` and `%` reference from the `wanted` keys and judges each value on the way."""
    kept: dict[str, Any] = {}
    targets: list[tuple[str, str]] = []
    violations: list[Violation] = []
    ahead = [key for key in wanted if key in config]
    while ahead:
        key = ahead.pop()
        if key in kept or key in PROVIDED_KEYS:
            continue
        kept[key] = without_file_transforms(config[key])
        for where, name, value in _leaves(kept[key], key):
            if name == "_target_":
                targets.append((where, str(value)))
            violations += [Violation(where, what) for what in _objections(name, value)]
            for reference in _referred(value):
                if reference in config:
                    ahead.append(reference)
                elif reference not in PROVIDED_KEYS:
                    violations.append(Violation(where, f"refers to {reference!r}, which the file does not have"))
    return Examined(kept, tuple(targets), tuple(violations))


def without_file_transforms(value: Any) -> Any:
    """The same configuration without transforms that read or write files; elements of lists only."""
    if isinstance(value, Mapping):
        return {key: without_file_transforms(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_file_transforms(inner) for inner in value if not _is_file_transform(inner)]
    return value


def _is_file_transform(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(_FILE_TRANSFORMS.match(str(value.get("_target_", "")).rpartition(".")[2]))


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
        yield from _expression_objections(value[1:])
    elif isinstance(value, str) and value.startswith("%") and not re.fullmatch(r"%\w+((#|::)\w+)*", value):
        yield f"{value!r} reads another file"
    elif isinstance(value, str) and re.match(r"[@%](#|::)", value):
        yield f"{value!r} is a relative reference"


def _target_objections(value: Any) -> Iterator[str]:
    if not isinstance(value, str) or not _DOTTED_NAME.fullmatch(value):
        yield f"_target_ {value!r} is not the name of a class"
    elif _DENIED_CLASSES.match(value.rpartition(".")[2]):
        yield f"_target_ {value!r} runs free code or fetches files"
    elif "." in value and not any(value.startswith(f"{module}.") for module in ALLOWED_MODULES):
        yield f"_target_ {value!r} is none of {', '.join(ALLOWED_MODULES)}"


def _expression_objections(expression: str) -> Iterator[str]:
    if re.match(r"\s*(import|from)\b", expression):
        yield f"${expression!r} imports a module"
        return
    if re.search(r"@(#|::)", expression):
        yield f"{expression!r} has a relative reference"
        return
    try:
        tree = ast.parse(_REFERENCE.sub(_STAND_IN, expression.strip()), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield f"{expression!r} is no Python expression"
        return
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            yield f"{expression!r} holds {type(node).__name__}"
    yield from _name_objections(tree, expression)


def _name_objections(tree: ast.AST, expression: str) -> Iterator[str]:
    """Names, attributes and calls: dotted names as a whole must be on the list."""
    within: set[ast.AST] = set()
    for node in ast.walk(tree):  # parents come before children
        if node in within:
            continue
        if isinstance(node, ast.Call):
            function = ast.unparse(node.func)
            if function not in _FUNCTIONS or any(isinstance(argument, ast.Starred) for argument in node.args):
                yield f"{expression!r} calls {function}"
            within |= set(ast.walk(node.func))
        elif isinstance(node, ast.Attribute):
            if not _CONSTANTS.fullmatch(ast.unparse(node)):
                yield f"{expression!r} uses {ast.unparse(node)}"
            within |= set(ast.walk(node))
        elif isinstance(node, ast.Name) and node.id != _STAND_IN:
            yield f"{expression!r} uses {node.id}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _STAND_IN in node.value:
            # MONAI replaces references inside string literals too, by text that closes the quotes.
            yield f"{expression!r} has a reference inside a string"
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float) and abs(node.value) > _LARGEST_NUMBER:
            yield f"{expression!r} holds a number beyond {_LARGEST_NUMBER:.0e}"


def _referred(value: Any) -> Iterator[str]:
    """Top-level keys that a value names."""
    if not isinstance(value, str):
        return
    if value.startswith("%"):
        yield re.split(r"#|::", value[1:])[0]
    elif value.startswith(("@", "$")):
        yield from (match.group(1) for match in _REFERENCE.finditer(value) if match.group(1))


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError(f"a key is there twice among {names}")
    return dict(pairs)
