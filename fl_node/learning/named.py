"""``module:callable``: the user's own code, named in a spec."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fl_node.errors import FlNodeError


def is_named(text: str) -> bool:
    """Whether the text reads ``package.module:callable``."""
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def resolve(text: str, key: str, error: type[FlNodeError]) -> Callable[..., Any]:
    """Import what ``module:callable`` names; the current folder is searched too, as with ``python -m``.

    Args:
        text: as written in the spec.
        key: where it is written, for the message.
        error: what to raise.
    """
    if not is_named(text):
        raise error(f"{key} = {text!r}: expected module:callable, such as mypackage.models:build")
    module_name, _, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as cause:  # the user's module may raise anything while it is imported
        raise error(
            f"{key} = {text!r} cannot be imported: {type(cause).__name__}: {cause}; install the package in this "
            "environment or run from its folder"
        ) from cause
    if not callable(found):
        raise error(f"{key} = {text!r} is a {type(found).__name__}; expected something to call")
    return found  # type: ignore[no-any-return]
