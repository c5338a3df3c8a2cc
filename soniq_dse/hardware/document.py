"""A descriptor's text as plain values with the place of each, and nothing that YAML can do beyond that.

Descriptors come from strangers, so this reads less than YAML: one document, mappings with text keys, lists and scalars.
Aliases (which can expand without bound), tags (which can name Python objects) and deep nesting are refused. Scalars
follow YAML 1.2 core: ``no`` is text, ``1e9`` is a number. The events come from libyaml where PyYAML brings it, since
reading 50 descriptors has to stay quick, and otherwise from ruamel.yaml; both give the same events.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from soniq_dse.errors import UserError

SIZE_LIMIT_BYTES = 1 << 20
DEPTH_LIMIT = 24

FieldPath = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]{1,40}$|0x[0-9a-fA-F]{1,40}$|0o[0-7]{1,40}$")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,4})?$"
    r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_CONSTANTS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_CONSTANTS |= {word: value for value in (True, False) for word in (str(value), str(value).lower(), str(value).upper())}


class Place(NamedTuple):
    """A position in a file; line and column count from 1, and are 0 where the whole file is meant."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """``file:line:column``."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Problem(NamedTuple):
    """One error of a descriptor: where, in which field, and what was expected, got and nearest."""

    place: Place
    field: str
    message: str

    def __str__(self) -> str:
        """``file:line:column field: message``."""
        return f"{self.place} {self.field}: {self.message}" if self.field else f"{self.place}: {self.message}"


class DescriptorError(UserError):
    """All errors of a descriptor at once, one a line."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


def dotted(path: FieldPath) -> str:
    """``('caches', 1, 'name')`` as ``caches[1].name``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in path)
    return text.removeprefix(".")


@dataclass
class Document:
    """A descriptor as read: plain values, the places of each field's key and value, and the errors found so far."""

    file: str
    value: Any = None
    keys: dict[FieldPath, Place] = field(default_factory=dict)
    values: dict[FieldPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def add(self, path: FieldPath, message: str, *, at_key: bool = False) -> None:
        """Note an error of the field ``path``."""
        self.problems.append(Problem(self.place(path, at_key=at_key), dotted(path), message))

    def place(self, path: FieldPath, *, at_key: bool = False) -> Place:
        """Where the value of ``path`` is (``at_key``: its name); an absent field is at the nearest one around it."""
        exact = (self.keys if at_key else self.values).get(path)
        around = (self.keys.get(path[:length]) for length in range(len(path) - 1, 0, -1))
        return exact or next(filter(None, around), Place(self.file, 1, 1))


def read_document(path: Path) -> Document:
    """Read and parse ``path``.

    Raises:
        DescriptorError: it is no readable text file of at most 1 MiB, or not the YAML that descriptors are written in.
    """
    return parse_document(str(path), read_text(path))


def parse_document(file: str, text: str) -> Document:
    """The document of ``text``, which came from ``file``.

    Raises:
        DescriptorError: it is not the YAML that descriptors are written in.
    """
    document = Document(file)
    try:
        _Builder(document, _parser(text)).run()
    except DescriptorError:
        raise
    except Exception as error:  # the parsers' own classes: MarkedYAMLError and ReaderError of either library
        raise _syntax_error(document, error) from error
    return document


def _refuse(file: str, message: str, line: int = 0, column: int = 0) -> DescriptorError:
    return DescriptorError([Problem(Place(file, line, column), "", message)])


def read_text(path: Path) -> str:
    """The text of ``path``.

    Raises:
        DescriptorError: it is no readable UTF-8 file of at most 1 MiB, or empty.
    """
    file = str(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise _refuse(file, f"expected a file, got a {'folder' if path.is_dir() else 'device or pipe'}")
        with path.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise _refuse(file, f"expected a readable file, got: {reason}") from error
    if len(raw) > SIZE_LIMIT_BYTES:
        raise _refuse(file, f"expected at most {SIZE_LIMIT_BYTES >> 10} KiB, got a bigger file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - (raw.rfind(b"\n", 0, error.start) + 1) + 1
        raise _refuse(file, f"expected UTF-8 text, got byte 0x{raw[error.start]:02x}", line, column) from error
    if not text.strip():
        raise _refuse(file, "expected a descriptor, got an empty file; `soniq-dse hw init NEW.yaml` writes a valid one")
    return text


def _parser(text: str) -> Any:
    """A YAML event parser over ``text``: ``get_event()`` until the stream ends."""
    try:
        from yaml.cyaml import CParser  # type: ignore[import-untyped]
    except ImportError:
        from ruamel.yaml import YAML

        _, parser = YAML(typ="safe", pure=True).get_constructor_parser(text)
        return parser
    return CParser(text)


class _Builder:
    """Folds parser events into a document."""

    def __init__(self, document: Document, parser: Any) -> None:
        self.document = document
        self.next: Callable[[], Any] = parser.get_event

    def run(self) -> None:
        """Read the whole stream."""
        self.next()
        event = self.next()
        if _kind(event) == "StreamEnd":
            raise _refuse(self.document.file, "expected a descriptor, got only comments")
        event = self.next()
        if _kind(event) != "MappingStart":
            got = {"SequenceStart": "a list", "Scalar": f"{_shown(getattr(event, 'value', ''))!r}"}.get(
                _kind(event), "an alias"
            )
            raise self._at(event, f"expected a mapping of fields at the top, got {got}")
        self.document.value = self._node(event, ())
        self.next()
        event = self.next()
        if _kind(event) != "StreamEnd":
            raise self._at(event, "expected one document, got a second one ('---')")

    def _node(self, event: Any, path: FieldPath) -> Any:
        kind = _kind(event)
        if kind == "Alias" or event.anchor is not None:
            raise self._at(
                event, f"expected plain values, got the anchor or alias {_shown(event.anchor)!r}; write the value out"
            )
        tag = event.tag
        if tag is not None and tag != "!" and not (kind == "Scalar" and event.implicit[0]):
            raise self._at(event, f"expected plain values, got the tag {_shown(str(tag))!r}; remove it")
        if kind == "Scalar":
            return _scalar(event.value) if event.implicit[0] else event.value
        if len(path) >= DEPTH_LIMIT:
            raise self._at(event, f"expected at most {DEPTH_LIMIT} levels of nesting, got more")
        return self._mapping(path) if kind == "MappingStart" else self._list(path)

    def _mapping(self, path: FieldPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        keys, values = self.document.keys, self.document.values
        while True:
            event = self.next()
            if _kind(event) == "MappingEnd":
                return result
            if _kind(event) != "Scalar":
                raise self._at(event, "expected a name as key, got a list, a mapping or an alias")
            key = event.value
            inner = (*path, key)
            place, first = self._place(event), keys.get(inner)
            if first:
                self.document.problems.append(
                    Problem(
                        place,
                        dotted(inner),
                        f"expected one entry of this name, got a second; the first is on line {first.line}",
                    )
                )
            keys[inner] = place
            event = self.next()
            values[inner] = self._place(event)
            result[key] = self._node(event, inner)

    def _list(self, path: FieldPath) -> list[Any]:
        result: list[Any] = []
        while True:
            event = self.next()
            if _kind(event) == "SequenceEnd":
                return result
            inner = (*path, len(result))
            self.document.values[inner] = self.document.keys[inner] = self._place(event)
            result.append(self._node(event, inner))

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.document.file, mark.line + 1, mark.column + 1)

    def _at(self, event: Any, message: str) -> DescriptorError:
        return DescriptorError([*self.document.problems, Problem(self._place(event), "", message)])


def _syntax_error(document: Document, error: Exception) -> DescriptorError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    message = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error).splitlines() or [""]
    hint = "; indent by spaces, not tabs" if re.search(r"\btab\b|\t|\\t", message[0]) else ""
    place = Place(document.file, mark.line + 1, mark.column + 1) if mark else Place(document.file)
    # libyaml reads ahead, and recent releases have a limit of their own.
    too_deep = "nesting depth" in message[0]
    text = (
        f"expected at most {DEPTH_LIMIT} levels of nesting, got more"
        if too_deep
        else f"expected YAML, got: {message[0]}{hint}"
    )
    return DescriptorError([*document.problems, Problem(place, "", text)])


def _kind(event: Any) -> str:
    """``Scalar``, ``MappingStart`` ...: the class name of an event, alike in both libraries."""
    return type(event).__name__.removesuffix("Event")


def _scalar(text: str) -> Any:
    """The value of a plain scalar under the YAML 1.2 core schema; a whole number in any notation is an int."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.match(text):
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)
    if _FLOAT.match(text):
        number = float(text.replace(".", "") if text[-1:].isalpha() else text)
        return int(number) if abs(number) < 2**53 and "." not in text and number == int(number) else number
    return text


def _shown(text: str) -> str:
    """``text`` short enough and printable enough for a message."""
    text = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 60 else text[:57] + "..."
