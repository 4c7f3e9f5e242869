"""The explorer's index: the log, and what follows from it, in one SQLite file."""
