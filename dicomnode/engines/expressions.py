"""Which `$` expressions of an untrusted bundle may be evaluated: arithmetic, references, a few pure functions of torch.

An expression is judged as text, by `ast`; every node, name, attribute and call must be on a list. `lambda` is allowed, for
postprocessing of multi-channel networks needs it (`$lambda x: torch.where(x[2] > 0, 4, 0)`): its body is held to the same list,
and it may call neither its own arguments nor anything that has state, reads, writes or names a class.
"""

import ast
import re
from collections.abc import Iterator

REFERENCE = re.compile(r"@(\w*)((?:(?:#|::)\w*)*)")  # monai.bundle.ReferenceResolver.id_matcher

_NODES = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Dict, ast.Subscript, ast.Slice),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr),
    *(ast.UnaryOp, ast.USub, ast.UAdd, ast.Not, ast.Invert, ast.BoolOp, ast.And, ast.Or, ast.IfExp),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot),
    *(ast.Attribute, ast.Call, ast.keyword, ast.Lambda, ast.arguments, ast.arg),
)
_BUILTINS = frozenset({"abs", "bool", "float", "int", "len", "list", "max", "min", "round", "sum", "tuple"})
_TORCH = frozenset(
    f"torch.{name}"
    for name in (
        *("abs", "argmax", "cat", "clamp", "device", "exp", "log", "logical_and", "logical_not", "logical_or", "max", "mean"),
        *("min", "nn.functional.softmax", "ones_like", "round", "sigmoid", "softmax", "squeeze", "stack", "sum", "unsqueeze"),
        *("where", "zeros_like", "cuda.is_available"),
    )
)
_FUNCTIONS = _BUILTINS | _TORCH
# Methods of a tensor that give another tensor or a number, by name only: on any other object they are as harmless.
_METHODS = frozenset(
    {
        *(
            "abs",
            "all",
            "any",
            "argmax",
            "bool",
            "clamp",
            "clone",
            "cpu",
            "detach",
            "flip",
            "float",
            "int",
            "long",
            "max",
            "mean",
        ),
        *(
            "min",
            "permute",
            "round",
            "sigmoid",
            "size",
            "softmax",
            "squeeze",
            "sum",
            "to",
            "transpose",
            "unsqueeze",
            "as_tensor",
        ),
    }
)
_DATA = frozenset({"shape", "ndim", "dtype"})
_CONSTANTS = re.compile(
    r"(torch|np|numpy)\.(float16|bfloat16|float32|float64|float|int8|int16|int32|int64|int|long|uint8|bool|inf|pi)"
)
_MODULES = frozenset({"torch", "np", "numpy", "monai"})
_STAND_IN = "referred_value"  # for a reference, while its expression is judged
_LARGEST_NUMBER = 1e9  # keeps [0] * 10**12 out
_LARGEST_REPEAT = 1000  # of a list or text that is multiplied
_DEEPEST = 40  # nested deeper no honest expression is, and ast would exhaust the stack


def objections(expression: str) -> Iterator[str]:
    """What keeps `expression`, the text after `$`, from being evaluated; nothing for one that may be."""
    if re.match(r"\s*(import|from)\b", expression):
        yield f"${expression!r} imports a module"
        return
    if re.search(r"@(#|::)", expression):
        yield f"{expression!r} has a relative reference"
        return
    try:
        tree = ast.parse(REFERENCE.sub(_STAND_IN, expression.strip()), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield f"{expression!r} is no Python expression"
        return
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            yield f"{expression!r} holds {type(node).__name__}"
    for what in _judged(tree, frozenset({_STAND_IN}), 0):
        yield f"{expression!r} {what}"


def _judged(node: ast.AST, known: frozenset[str], depth: int) -> Iterator[str]:
    """Names, attributes, calls and constants below `node`; known: names that a lambda or a reference gives."""
    if depth > _DEEPEST:
        yield "is nested too deep"
        return
    if isinstance(node, ast.Lambda):
        yield from _lambda(node, known, depth)
        return
    if isinstance(node, ast.Call):
        yield from _call(node, known, depth)
        return
    if isinstance(node, ast.Attribute):
        if not _CONSTANTS.fullmatch(ast.unparse(node)):
            if node.attr not in _DATA:
                yield f"uses {ast.unparse(node)}"
            yield from _judged(node.value, known, depth + 1)
        return
    if isinstance(node, ast.Name) and node.id not in known:
        yield f"uses {node.id}"
    if isinstance(node, ast.Constant):
        yield from _constant(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield from _repeat(node)
    for child in ast.iter_child_nodes(node):
        yield from _judged(child, known, depth + 1)


def _lambda(node: ast.Lambda, known: frozenset[str], depth: int) -> Iterator[str]:
    arguments = node.args
    if arguments.vararg or arguments.kwarg or arguments.kwonlyargs or arguments.defaults or arguments.posonlyargs:
        yield "has a lambda with more than plain arguments"
    names = {argument.arg for argument in arguments.args}
    for name in sorted(names & (_BUILTINS | _MODULES)):
        yield f"calls an argument {name}"
    for name in sorted(name for name in names if name.startswith("_")):
        yield f"calls an argument {name}"
    yield from _judged(node.body, known | names, depth + 1)


def _call(node: ast.Call, known: frozenset[str], depth: int) -> Iterator[str]:
    function = ast.unparse(node.func)
    if function not in _FUNCTIONS:
        if isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            yield from _judged(node.func.value, known, depth + 1)
        else:
            yield f"calls {function}"
    if any(isinstance(argument, ast.Starred) for argument in node.args) or any(word.arg is None for word in node.keywords):
        yield f"calls {function} with unpacked arguments"
    for argument in (*node.args, *(word.value for word in node.keywords)):
        yield from _judged(argument, known, depth + 1)


def _constant(value: object) -> Iterator[str]:
    if isinstance(value, str) and _STAND_IN in value:
        # MONAI replaces references inside string literals too, by text that closes the quotes.
        yield "has a reference inside a string"
    elif isinstance(value, int | float) and abs(value) > _LARGEST_NUMBER:
        yield f"holds a number beyond {_LARGEST_NUMBER:.0e}"


def _repeat(node: ast.BinOp) -> Iterator[str]:
    """`[0] * 10 ** 9` fills memory before anybody looks at it."""
    sides = (node.left, node.right)
    sequence = any(
        isinstance(inner, ast.List | ast.Tuple | ast.Dict) or (isinstance(inner, ast.Constant) and isinstance(inner.value, str))
        for side in sides
        for inner in ast.walk(side)
    )
    numbers = [i.value for side in sides for i in ast.walk(side) if isinstance(i, ast.Constant) and isinstance(i.value, int)]
    if sequence and any(abs(number) > _LARGEST_REPEAT for number in numbers):
        yield f"repeats a list more than {_LARGEST_REPEAT} times"
