"""Updates in fewer bytes: how published weights are written and read.

A payload is a safetensors file, maybe inside a zstd frame. What it leaves out is taken from the update that it refers
to. What is decoded is defined to the bit, for the ledger commits to it: docs/encodings.md.
"""

from fl_node.merging.encodings.decoder import decode
from fl_node.merging.encodings.encoder import Encoded, encode
from fl_node.merging.encodings.kinds import is_delta, kind_for, kind_of, most_bytes, name_of

__all__ = ["Encoded", "decode", "encode", "is_delta", "kind_for", "kind_of", "most_bytes", "name_of"]
