"""A whole federation on one machine: a real chain, a real contract, one process per peer."""
