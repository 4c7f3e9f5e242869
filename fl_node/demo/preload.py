"""What the demo's fork server loads once, so that its children need not.

The fork server swallows an ImportError here, so each child checks that the preload took place.
"""

from __future__ import annotations

import sys

import coincurve  # noqa: F401
import eth_account  # noqa: F401
import torch
import web3  # noqa: F401

import fl_node.deployment
import fl_node.learning.data
import fl_node.learning.training
import fl_node.node  # noqa: F401

# A child forked after a threaded torch operation hangs; with one thread there is none.
torch.set_num_threads(1)


def loaded() -> bool:
    """Whether this process has the preload, from itself or from the fork server."""
    return __name__ in sys.modules
