"""What the demo's fork server loads once, so that its children need not.

The fork server swallows an ImportError here; each child imports this module again, which costs nothing if it is there
and says what is missing if it is not.
"""

# ruff: noqa: E402

from __future__ import annotations

import gc

# Importing makes hundreds of thousands of objects that stay; looking for garbage among them takes a sixth of the time.
gc.disable()

import coincurve  # noqa: F401
import torch

from fl_node.recursion import limit_kept

with limit_kept():
    import eth_account  # noqa: F401
    import web3  # noqa: F401

import fl_node.deployment
import fl_node.learning.data
import fl_node.learning.training
import fl_node.node  # noqa: F401

# What is loaded is never garbage: children that do not look at it do not copy its pages either.
gc.freeze()
gc.enable()
# A child forked after a threaded torch operation hangs; with one thread there is none.
torch.set_num_threads(1)
