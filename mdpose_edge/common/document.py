"""Versioned JSON documents: each a dataclass, written whole and read strictly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from mdpose_edge.common.json_text import parse_json
from mdpose_edge.common.strict import read_dataclass
from mdpose_edge.errors import MdposeError

T = TypeVar("T")


@dataclass(frozen=True)
class DocumentFormat(Generic[T]):
    """A kind of document; a reader takes its own version, and older ones that it can upgrade."""

    document: type[T]
    """A dataclass with every key of the file."""
    version_key: str
    version: int
    error: type[MdposeError]
    """What is raised."""
    if_damaged: str
    """What to do about a file that is no such document, as an imperative."""
    if_other_version: str
    """What to do about one of another version, beside updating this package."""
    upgrades: Mapping[int, Callable[[Mapping[str, Any]], Mapping[str, Any]]] = field(default_factory=dict)
    """Older versions that are still read, each with what writes such a document in the words of `version`; one that it
    cannot use is a KeyError, TypeError or AttributeError."""

    def read(self, path: Path) -> T:
        """Read a document from a file; see `parse`.

        Raises:
            MdposeError: of the format's own kind, also where the file cannot be read.
        """
        try:
            data = path.read_bytes()
        except OSError as failure:
            got = f"none that can be read: {failure.strerror or failure}"
            raise self.error(str(path), expected="a file", got=got, do=self.if_damaged) from failure
        return self.parse(data, str(path))

    def parse(self, text: str | bytes, where: str) -> T:
        """Read a document.

        Args:
            text: what `document_json` wrote; bytes are UTF-8.
            where: the file that it came from, for messages.

        Raises:
            MdposeError: of the format's own kind: no JSON, another version, an unknown or missing key, or a value of
                the wrong kind.
        """
        try:
            data = parse_json(text)
        except ValueError as failure:  # no JSON, or no UTF-8
            got = f"none that can be read: {failure}"
            raise self.error(where, expected="JSON", got=got, do=self.if_damaged) from failure
        version = data.get(self.version_key) if isinstance(data, dict) else None
        if type(version) is int and version in self.upgrades:  # true and 1.0 are no versions
            data = self._upgraded(data, where)
        elif type(version) is not int or version != self.version:
            expected, do = f"{self.version_key} {self.version}", f"update mdpose-edge, or {self.if_other_version}"
            raise self.error(where, expected=expected, got=str(version), do=do)
        return read_dataclass(self.document, data, where=where, error=self.error, defaults=False)

    def _upgraded(self, data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        version = data[self.version_key]
        try:
            return {**self.upgrades[version](data), self.version_key: self.version}
        except (KeyError, TypeError, AttributeError) as failure:
            expected = f"the keys of {self.version_key} {version}"
            got = f"no {failure}" if isinstance(failure, KeyError) else "a value of another kind"
            raise self.error(where, expected=expected, got=got, do=self.if_damaged) from failure


def document_json(document: Any) -> str:
    """Return a dataclass as JSON, keys in the order of the fields."""
    return json.dumps(dataclasses.asdict(document), indent=2, ensure_ascii=False) + "\n"
