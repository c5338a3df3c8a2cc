"""Descriptors as text: YAML in the style of the shipped ones, and files replaced as a whole."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from soniq_dse.errors import UserError
from soniq_dse.hardware.document import read_text
from soniq_dse.hardware.find import SUFFIXES
from soniq_dse.hardware.load import EXTENDS, read_resolved

_ONE_LINE = (
    {"value", "kind"}, {"vendor", "models"}, {"operation"}, {"name", "role"}, {"width_bits", "registers"},
)  # fmt: skip
"""Keys by which a mapping is known that is written on one line."""
_BEFORE_FIELDS = re.compile(r"\A(\ufeff?[ \t]*(#.*|---[ \t]*)?\r?\n)+")


def check_name(path: Path) -> None:
    """Check that ``path`` can name a machine.

    Raises:
        UserError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,79}", path.stem) or path.suffix not in SUFFIXES:
        raise UserError(
            f"new descriptor: expected a file like mymachine.yaml (letters, digits, . _ + -), got {path.name!r}"
        )


def editable_tree(path: Path, *, resolve: bool = True) -> Any:
    """The fields of ``path`` with their comments, to be changed and dumped; what stands before the first is left out.

    ``resolve``: a file that extends another comes with the fields of both and without comments.
    """
    from ruamel.yaml import YAML

    text = _BEFORE_FIELDS.sub("", read_text(path))
    tree = YAML().load(text)
    return read_resolved(path).value if resolve and EXTENDS in tree else tree


def leading_comment(path: Path) -> str:
    """The comment lines before the first field of ``path``."""
    found = _BEFORE_FIELDS.match(read_text(path))
    return found[0] if found else ""


def dumped(tree: Any) -> str:
    """``tree`` as YAML text."""
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 100_000
    yaml.brace_single_entry_mapping_in_flow_sequence = True
    # A value used twice is written twice: descriptors have no anchors.
    yaml.representer.ignore_aliases = lambda data: True
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(tree, stream)
    return stream.getvalue()


def styled(value: Any) -> Any:
    """Plain values as a tree to be dumped: figures, lists of words and other small leaves on one line each."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

    tree: CommentedMap | CommentedSeq
    if isinstance(value, dict):
        tree = CommentedMap({key: styled(inner) for key, inner in value.items()})
    elif isinstance(value, list):
        tree = CommentedSeq([styled(inner) for inner in value])
    else:
        return value
    if _is_leaf(value):
        tree.fa.set_flow_style()
    return tree


def _is_leaf(value: Any) -> bool:
    """A figure, counts by name, an entry of one of the short tables, a list of scalars or of micro-operations."""
    if isinstance(value, dict):
        counts = all(isinstance(item, int | float) for item in value.values())
        return counts or value.keys() <= {"ports", "cycles"} or any(keys <= value.keys() for keys in _ONE_LINE)
    return all("ports" in item if isinstance(item, dict) else not isinstance(item, list) for item in value)


def tidied(node: Any) -> Any:
    """``node`` without absent fields, empty lists of features, cycles of 1, and whole numbers as floats."""
    if isinstance(node, dict):
        return {
            key: tidied(value)
            for key, value in node.items()
            if value is not None and not (key == "features" and not value) and not (key == "cycles" and value == 1)
        }
    if isinstance(node, list):
        return [tidied(item) for item in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def replace_file(path: Path, text: str) -> None:
    """Write ``text`` to ``path``: whole or not at all.

    Raises:
        UserError: the place cannot be written.
    """
    name = ""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        os.chmod(name, mode)
        os.replace(name, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise UserError(f"{path}: expected a writable place, got: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
