"""Provenance around an update, from the index: what it came from and what came of it, as far as one page can tell.

:mod:`fl_node.lineage.graph` says what an effective share means, and what it does not; it also follows everything,
exactly. Here the walk is bounded by work, so that a page is quick over any log, and shares are doubles.
"""
