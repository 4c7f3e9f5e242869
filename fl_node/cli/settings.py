"""From parsed flags to a peer's settings."""

from __future__ import annotations

import argparse

from fl_node.config import NodeConfig, load_config


def settings_of(arguments: argparse.Namespace) -> NodeConfig:
    """The settings, with flags above environment above node.toml. See :func:`fl_node.config.load_config`."""
    given = vars(arguments)
    return load_config({key: given.get(key) for key in NodeConfig.model_fields})
