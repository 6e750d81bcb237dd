"""Bundle: the directory that carries a model to a device.

It holds spec.json, the graph and whatever belongs to it; the spec lists each file with its sha256. A bundle appears
under its name only when it is complete, and is opened only when every byte is the one that was written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mdpose_edge.common.files import check_replaceable, file_sha256, visible_files, write_folder
from mdpose_edge.common.json_text import parse_json
from mdpose_edge.errors import BundleError
from mdpose_edge.spec import ModelSpec

SPEC_FILE = "spec.json"
REPORT_FILE = "report.json"
"""What was measured while the bundle was made, in a bundle that comes from an export."""

_EXPORT_AGAIN = "copy the bundle again, or export it again"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk: where it lies, and its spec."""

    path: Path
    spec: ModelSpec

    @property
    def graph(self) -> Path:
        """The file that an engine opens.

        Raises:
            BundleError: the spec names none.
        """
        if self.spec.graph is None:
            raise BundleError(str(self.path), expected="a graph named in the spec", got="none", do=_EXPORT_AGAIN)
        return self.path / self.spec.graph


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle after checking that it is whole and unaltered.

    Hidden files, as file managers leave them, are ignored; any other file that the spec does not list is an error.

    Args:
        path: the bundle's directory.

    Raises:
        BundleError: no such directory, no spec, or a file is missing, altered, or not listed in the spec.
        SpecError: the spec is malformed or of another version.
    """
    path = Path(path)
    spec = _read_spec(path)
    _check_names(path, spec)
    present = visible_files(path) - {SPEC_FILE}
    for name in sorted(spec.files.keys() - present):
        raise BundleError(str(path), expected=f"the file {name}", got="none", do=_EXPORT_AGAIN)
    for name in sorted(present - spec.files.keys()):
        expected = f"only the files listed in {SPEC_FILE}"
        raise BundleError(str(path), expected=expected, got=name, do="move it elsewhere, or export again")
    for name, sha256 in spec.files.items():
        found = file_sha256(path / name)
        if found != sha256:
            expected, got = f"sha256 {sha256[:12]}... as in {SPEC_FILE}", f"{found[:12]}...: the file was altered"
            raise BundleError(str(path / name), expected=expected, got=got, do=_EXPORT_AGAIN)
    return Bundle(path, spec)


@dataclass
class BundleDraft:
    """A bundle that is being written."""

    path: Path
    """The directory to write into."""
    spec: ModelSpec
    """Written at the end: assign the one that says what has been found by then."""


def check_bundle_place(out: str | Path) -> None:
    """Refuse a place that `write_bundle` would refuse, before a long export.

    Raises:
        BundleError: `out` holds something else than a bundle.
    """
    check_replaceable(Path(out), kind="bundle", is_own=_is_bundle, error=BundleError)


@contextmanager
def write_bundle(out: str | Path, spec: ModelSpec) -> Iterator[Path]:
    """Write a bundle whose spec is known beforehand: see `draft_bundle`.

    Yields:
        The directory to write into.
    """
    with draft_bundle(out, spec) as draft:
        yield draft.path


@contextmanager
def draft_bundle(out: str | Path, spec: ModelSpec) -> Iterator[BundleDraft]:
    """Write a bundle that appears whole or not at all.

    The body of the `with` writes its files into the temporary sibling it is given. When it ends, the files are hashed
    into the draft's spec and the directory takes its name; when it raises, the directory is removed: see
    files.write_folder.

    Args:
        out: the bundle's directory; an earlier bundle there is replaced, anything else is refused.
        spec: of the bundle; its `files` are filled in, its `graph` must be among the files written.

    Yields:
        The draft, with `spec` as it stands.

    Raises:
        BundleError: `out` holds something else than a bundle, or cannot be written.
    """
    with write_folder(Path(out), kind="bundle", is_own=_is_bundle, error=BundleError) as directory:
        draft = BundleDraft(directory, spec)
        yield draft
        _seal(directory, draft.spec)


def _read_spec(path: Path) -> ModelSpec:
    if not path.is_dir():
        got = "a file" if path.exists() else "no such directory"
        raise BundleError(str(path), expected="a bundle directory", got=got, do="give what mdpose-edge export wrote")
    spec_file = path / SPEC_FILE
    if not spec_file.is_file():
        raise BundleError(str(path), expected=f"a {SPEC_FILE}", got="none", do="give what mdpose-edge export wrote")
    try:
        text = spec_file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(str(spec_file), expected="UTF-8 text", got=str(error), do=_EXPORT_AGAIN) from error
    return ModelSpec.from_json(text, str(spec_file))


def _check_names(path: Path, spec: ModelSpec) -> None:
    """Refuse names that would lead out of the bundle, and a graph that no hash vouches for."""
    for name in spec.files:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or name == SPEC_FILE:
            expected = "names of files inside the bundle"
            raise BundleError(str(path / SPEC_FILE), expected=expected, got=name, do=_EXPORT_AGAIN)
    if spec.graph not in spec.files:
        expected = "a graph among the files listed"
        raise BundleError(str(path / SPEC_FILE), expected=expected, got=str(spec.graph), do=_EXPORT_AGAIN)


def _is_bundle(path: Path) -> bool:
    """Say whether all files are a bundle's own, whatever its version and state; an empty directory counts."""
    names = visible_files(path)
    if not names:
        return True
    try:
        listed = parse_json((path / SPEC_FILE).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(listed, dict) and names <= {SPEC_FILE, *listed}


def _seal(directory: Path, spec: ModelSpec) -> None:
    hashes = {name: file_sha256(directory / name) for name in sorted(visible_files(directory))}
    assert spec.graph in hashes, f"the exporter wrote {list(hashes)}, not its graph {spec.graph}"
    (directory / SPEC_FILE).write_text(dataclasses.replace(spec, files=hashes).to_json(), encoding="utf-8")
