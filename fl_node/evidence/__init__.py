"""Evidence packs: everything that it takes to check updates on another machine, without a chain, in one file."""
