"""The sealing room: updates as age files, the keys that open them, and the vault of what was opened."""
