"""Names of the form ``module:attribute``, by which a spec or a configuration points at the user's own code."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from fl_node.errors import SpecError


def is_plugin(name: str) -> bool:
    """Whether ``name`` has the form ``package.module:attribute``."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])


def resolve(name: str, key: str) -> Callable[..., Any]:
    """Import ``module:attribute``; ``key`` is where the name was written, for messages.

    Raises:
        SpecError: the form is wrong, the module does not import, or it has no such callable.
    """
    if not is_plugin(name):
        raise SpecError(f"{key} = {name!r}: expected module:callable, such as my_package.my_module:my_function")
    path, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(path)
    except Exception as cause:  # the user's module may raise anything
        raise SpecError(
            f"{key} = {name!r}: importing {path} failed with {type(cause).__name__}: {cause}; "
            "install it on this machine, or put its folder on PYTHONPATH"
        ) from cause
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SpecError(f"{key} = {name!r}: {path} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise SpecError(f"{key} = {name!r}: expected a callable, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]
