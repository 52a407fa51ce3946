"""What an exported PyTorch program (.pt2) would run when it is loaded. Reads it without PyTorch."""

from __future__ import annotations

import io
import json
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ModelFileError, UnsafeFileError

MEMBER_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""No configuration or pickle inside an archive is larger; weights are not read here."""

_STORAGES: Final = {
    *("Double", "Float", "Half", "BFloat16", "ComplexDouble", "ComplexFloat", "Untyped", "Typed"),
    *("Long", "Int", "Short", "Char", "Byte", "Bool"),
}
_DTYPES: Final = {
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
}
PICKLED: Final = frozenset(
    {
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v3"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.serialization", "_get_layout"),
        ("torch.storage", "UntypedStorage"),
        ("torch.storage", "TypedStorage"),
        ("torch", "Size"),
        ("torch", "device"),
        ("builtins", "set"),
        ("builtins", "complex"),
        ("builtins", "bytearray"),
        *(("torch", f"{name}Storage") for name in _STORAGES),
        *(("torch", name) for name in _DTYPES),
    }
)
"""What PyTorch's pickles of tensors, numbers and their containers name; all that they may name."""

_PAYLOAD: Final = re.compile(r"(?:weight|tensor)_\d+")
"""Files of weights and constants; pickled objects of other kinds are called otherwise."""
_OPERATOR: Final = re.compile(
    r"torch\.ops\.\w+\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._\w*sym_\w+"
)
_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_EXPRESSION: Final = re.compile(r"[\w\s+*/%(),<>=!&|~^-]*")
_NUMBER: Final = re.compile(r"(?<![\w.)])\d+(?:\.\d*)?(?:e[+-]?\d+)?(?![\w.])")
_SYMBOL: Final = re.compile(r"[a-z]{1,3}\d+")
_FUNCTIONS: Final = {
    *("Add", "Mul", "Pow", "Integer", "Float", "Rational", "Max", "Min", "Abs", "floor", "ceiling", "Where"),
    *("Mod", "PythonMod", "FloorDiv", "CleanDiv", "CeilDiv", "TrueDiv", "IntTrueDiv", "FloatTrueDiv"),
    *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "PowByNatural"),
    *("FloatPow", "ModularIndexing", "LShift", "RShift", "Identity", "oo", "int_oo", "Infinity"),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan"),
    *("StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "Piecewise", "ExprCondPair", "True", "False"),
    *("true", "false", "OpaqueUnaryFn_sqrt", "OpaqueUnaryFn_exp", "OpaqueUnaryFn_log2"),
}
_NAMED: Final = re.compile(
    r"Symbol\('[a-z]{1,3}\d+'(?:, \w+=(?:True|False))*\)|Float\('-?[\d.e+-]+', precision=\d+\)"
)
_MEMO_WRITES: Final = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
_ZIP: Final = b"PK\x03\x04"
_PROTOCOL: Final = b"\x80"


def finding(path: Path) -> str | None:
    """Say what in a program would run when it is loaded, or ``None``.

    Raises:
        ModelFileError: damaged.
        UnsafeFileError: a member unpacks to more than it should.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            return "two members of one name"
        pickled: set[str] = set()
        for name in names:
            if name.endswith((".py", ".so", ".pyc", ".cpp", ".dll", ".dylib")):
                return f"code ({name})"
            if name.endswith(".json"):
                found = _configuration(path, name, member(archive, name, path), pickled)
                if found is not None:
                    return found
        for name in names:
            found = _member_finding(path, archive, name, certain=name.rpartition("/")[2] in pickled)
            if found is not None:
                return found
    return None


def _configuration(path: Path, name: str, content: bytes, pickled: set[str]) -> str | None:
    """Look at the graph or at a list of payloads; add the names of those that are pickles."""
    if content.startswith((_ZIP, _PROTOCOL)):  # releases before the format had a version
        return None
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is damaged: {name} cannot be read: {error}") from error
    for node in objects(config):
        file, target, expression = node.get("path_name"), node.get("target"), node.get("expr_str")
        if isinstance(file, str):
            if not _PAYLOAD.fullmatch(file):
                return f"an object that is no tensor ({file})"
            if node.get("use_pickle"):
                pickled.add(file)
        if isinstance(target, str) and "inputs" in node and not _OPERATOR.fullmatch(target):
            return f"a call of {target}"
        # PyTorch has SymPy evaluate it, as Python
        if isinstance(expression, str) and not _is_arithmetic(expression):
            return f"an expression that is no arithmetic ({expression[:60]!r})"
    return None


def _is_arithmetic(text: str) -> bool:
    plain = _NUMBER.sub("0", _NAMED.sub("0", text))
    return _EXPRESSION.fullmatch(plain) is not None and all(
        _SYMBOL.fullmatch(word) or word in _FUNCTIONS for word in _WORD.findall(plain)
    )


def _member_finding(path: Path, archive: zipfile.ZipFile, name: str, *, certain: bool) -> str | None:
    certain = certain or name.endswith((".pkl", ".pt", ".pickle"))
    with archive.open(name) as stream:
        start = stream.read(len(_ZIP))
    if certain or start == _ZIP or start[:1] == _PROTOCOL or "/constants/" in name:
        try:
            content = member(archive, name, path)
        except UnsafeFileError:
            if certain or start == _ZIP:
                raise
            return None  # numbers that begin as a pickle does
        return _pickled(path, name, content, certain=certain)
    return None


def _pickled(path: Path, name: str, content: bytes, *, certain: bool) -> str | None:
    """Look at a pickle, or at the pickles in a zip that ``torch.save`` wrote."""
    if content.startswith(_ZIP):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                for inner_name in inner.namelist():
                    if inner_name.endswith(".py"):
                        return f"code ({name}/{inner_name})"
                    if inner_name.endswith(".pkl"):
                        found = _calls(
                            path, f"{name}/{inner_name}", member(inner, inner_name, path), certain=True
                        )
                        if found is not None:
                            return found
        except zipfile.BadZipFile as error:
            if certain:
                raise ModelFileError(f"{path} is damaged: {name}: {error}") from error
        return None
    return _calls(path, name, content, certain=certain)


def _calls(path: Path, name: str, content: bytes, *, certain: bool) -> str | None:
    """Look at every pickle in ``content``: PyTorch's older files hold several, one after the other."""
    stream = io.BytesIO(content)
    try:
        for module, attribute in _globals(stream):
            if (module, attribute) not in PICKLED:
                return f"a pickle that calls {module}.{attribute} ({name})"
        while certain and stream.tell() < len(content):
            for module, attribute in _globals(stream):
                if (module, attribute) not in PICKLED:
                    return f"a pickle that calls {module}.{attribute} ({name})"
    except (ValueError, UnicodeDecodeError, IndexError, OverflowError) as error:
        # raw numbers stand in the same folders: only what is certainly a pickle has to be a sound one
        if certain:
            raise ModelFileError(f"{path} is damaged: the pickle {name} cannot be read: {error}") from error
    return None


def _globals(stream: io.BytesIO) -> Iterator[tuple[str, str]]:
    """Give what a pickle would import, in order, up to where it ends or stops making sense.

    Nothing of it is run. What a pickle takes from its memo is not followed: it is given as ``?``.
    """
    pushed: list[str | None] = []
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in {"GLOBAL", "INST"}:
            module, _, attribute = str(argument).partition(" ")
            yield module, attribute
        elif operation.name == "STACK_GLOBAL":
            yield (pushed[-2] or "?", pushed[-1] or "?") if len(pushed) > 1 else ("?", "?")
        elif operation.name.startswith("EXT"):
            yield "?", operation.name
        if operation.name not in _MEMO_WRITES:
            pushed.append(argument if isinstance(argument, str) else None)


def objects(root: Any) -> Iterator[dict[str, Any]]:
    """Give every object in JSON, nested ones too."""
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Read a member.

    Raises:
        UnsafeFileError: it unpacks to more than it should.
    """
    with archive.open(name) as stream:
        content = stream.read(MEMBER_LIMIT_BYTES + 1)
    if len(content) > MEMBER_LIMIT_BYTES:
        raise UnsafeFileError(f"{path}: {name} unpacks to more than {MEMBER_LIMIT_BYTES} bytes; refused")
    return content
