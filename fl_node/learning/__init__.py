"""A peer's own work: its data, the model, training and scores.

Nothing is imported here: data, splits, partitions and metrics need numpy alone, and only ``models`` and ``training``
need torch, whose import takes a second.
"""
