"""The content room: bytes by CID. Names, stores, the gateway that serves them and the client that fetches."""

from fl_node.content.cid import Cid
from fl_node.content.factory import open_store
from fl_node.content.protocol import Collected, ContentStore, Pin
from fl_node.content.unixfs import cid_of

__all__ = ["Cid", "Collected", "ContentStore", "Pin", "cid_of", "open_store"]
