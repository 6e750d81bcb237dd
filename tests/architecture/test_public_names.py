"""What other people's programs may rely on. Changing a list here is a breaking change: say so in CHANGELOG.md."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap

import pytest

import mdpose_edge
from mdpose_edge import errors


def test_public_names_are_pinned() -> None:
    assert set(mdpose_edge.__all__) == {"MdposeError", "ModelSpec", "PoseEstimator", "Poses", "__version__"}


@pytest.mark.parametrize("name", sorted(mdpose_edge.__all__))
def test_public_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(mdpose_edge, name) is not None
    assert name in dir(mdpose_edge)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pose'"):
        mdpose_edge.Pose  # noqa: B018


def test_every_error_is_drawn_in_the_tree() -> None:
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert drawn == defined


def test_the_tree_draws_every_error_under_its_base() -> None:
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        if match := re.match(r"([│├└─ ]*)(\w+Error)\b", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else "Exception"
    assert parents == {name: getattr(errors, name).__base__.__name__ for name in parents}
    assert len(parents) > 1


def test_an_error_says_where_expected_got_and_do() -> None:
    error = errors.InputError("a.jpg", expected="an image", got="text", do="give a JPEG")
    assert str(error) == "a.jpg: expected an image, got text; give a JPEG."
    assert (error.where, error.expected, error.got, error.do) == ("a.jpg", "an image", "text", "give a JPEG")


DOCUMENTED = (
    "errors.MdposeError", "spec.ModelSpec", "poses.Poses", "estimator.PoseEstimator", "stream.sources.open_source",
    "stream.pipeline.run_pipeline", "track.tracker.PoseTracker", "draw.draw_poses", "evaluate.evaluate",
    "train.loop.train", "check.gate.check",
)  # fmt: skip
"""What docs/python-api.md and the reference lead with."""


@pytest.mark.parametrize("path", DOCUMENTED)
def test_a_docstring_shows_how_it_is_used(path: str) -> None:
    module, _, name = path.rpartition(".")
    thing = getattr(importlib.import_module(f"mdpose_edge.{module}"), name)
    text = inspect.getdoc(thing) or ""
    lead = text.partition("Args:")[0].partition("Raises:")[0] + "\n"
    example = re.search(r"(?m)(^    \S.*\n(?:(?:    .*)?\n)*)", lead)
    assert example, "an indented example above the arguments"
    code = textwrap.dedent(example[1])
    compile(code, path, "exec")
    assert name in code
