"""Provenance: which updates a model came from and what came of it, with effective shares; and pictures of it.

Pure functions of the log. :mod:`fl_node.lineage.graph` says what an effective share means, and what it does not.
"""

from fl_node.lineage.graph import ancestors, descendants, trace, trace_site
from fl_node.lineage.kin import Edge, Lineage, OfSite, Relative, Relatives, Share
from fl_node.lineage.prov import prov_json

__all__ = [
    "Edge",
    "Lineage",
    "OfSite",
    "Relative",
    "Relatives",
    "Share",
    "ancestors",
    "descendants",
    "prov_json",
    "trace",
    "trace_site",
]
