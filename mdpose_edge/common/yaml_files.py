"""YAML as people write it: YAML 1.2's numbers, and no key twice.

PyYAML reads YAML 1.1, in which 1e-3 is text, 010 is 8 and 1:30 is 90; and it lets the last of two equal keys win.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import cache
from typing import Any

_FLOAT_TAG, _INT_TAG = "tag:yaml.org,2002:float", "tag:yaml.org,2002:int"
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)
_INT = re.compile(r"[-+]?[0-9][0-9_]*$|0o[0-7]+$|0x[0-9a-fA-F]+$")
_STARTS = list("-+0123456789.")


def load_yaml(yaml: Any, text: str) -> Any:
    """Read a YAML document.

    Args:
        yaml: PyYAML, which the device side need not have.
        text: the document.

    Raises:
        yaml.YAMLError: it is none, has a key twice, or is nested deeper than anything that is written on purpose.
    """
    try:
        return yaml.load(text, _loader(yaml))
    except RecursionError as error:
        raise yaml.YAMLError("brackets nested too deep to be read") from error


@cache
def _loader(yaml: Any) -> Any:
    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """Safe, and stricter than its base."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            """Build a table, refusing a key that stands in it twice."""
            keys = [
                self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"
            ]
            for position, key in enumerate(keys):
                if key in keys[:position]:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key} twice", node.start_mark)
            built: dict[Hashable, Any] = super().construct_mapping(node, deep)
            return built

    Loader.yaml_implicit_resolvers = {
        start: [(tag, form) for tag, form in resolvers if tag not in (_FLOAT_TAG, _INT_TAG)]
        for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(_INT_TAG, _INT, _STARTS)
    Loader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, _STARTS)
    Loader.add_constructor(_INT_TAG, lambda loader, node: _whole(loader.construct_scalar(node)))
    return Loader


def _whole(text: str) -> int:
    return int(text, 0) if text.startswith(("0o", "0x")) else int(text.replace("_", ""))
