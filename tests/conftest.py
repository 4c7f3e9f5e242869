"""What all tests need of the process that they run in."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# The same examples in every run, and no limit to the time of one: a busy machine is no defect. To look for new ones:
# FL_NODE_EXAMPLES=random.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("FL_NODE_EXAMPLES", "same"))


def pytest_configure() -> None:
    """Programs that tests start must hear Ctrl-C. A shell that runs the tests in the background lets them, and so all
    that they start, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
