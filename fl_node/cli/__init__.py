"""The ``fl-node`` command: data to stdout, narration to stderr, ``--json`` everywhere, documented exit codes."""
