"""What an error of Python's own says, in words that a message can end with."""

from __future__ import annotations


def in_words(cause: BaseException) -> str:
    """The reason without numbers of errors, codecs, or the file, which the message has named.

    >>> in_words(FileNotFoundError(2, "No such file or directory", "x")), in_words(ValueError("no TOML"))
    ('No such file or directory', 'no TOML')
    """
    if isinstance(cause, UnicodeDecodeError):
        return f"byte {cause.start + 1} is no text in UTF-8"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(cause, KeyError):
        return f"it has no {cause.args[0]!r}" if cause.args else "something is missing in it"
    return str(cause) or type(cause).__name__
