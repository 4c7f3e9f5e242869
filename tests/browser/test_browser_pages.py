"""Every page in a real browser: light and dark, narrow and wide."""

from __future__ import annotations

from typing import Any, Final

import pytest
from driving import Open, Scheme, Served, addresses

pytestmark = pytest.mark.xdist_group("browser")

#: Uncompressed bytes of a first load.
MOST: Final = 300_000
MOST_OF: Final = {"provenance": 800_000}


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "path"), [pytest.param(*item, id=item[0]) for item in addresses().items()])
def test_page(open_page: Open, explorer: Served, name: str, path: str, scheme: Scheme, width: int) -> None:
    with open_page(width=width, scheme=scheme) as one:
        page = one.go(explorer.url(path))
        one.shoot(f"{name}-{scheme}-{width}")
        assert page.locator("h1").count() == 1
        assert one.troubles == []
        assert one.sideways() == []
        assert one.violations() == []
        assert one.weight() <= MOST_OF.get(name, MOST), one.bytes


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("path", ["/", "/about", "/api"])
def test_page_of_no_federation(open_page: Open, explorer: Served, path: str, width: int) -> None:
    with open_page(width=width) as one:
        page = one.go(explorer.origin + path)
        one.shoot(f"root{path}-{width}")
        assert page.locator("h1").count() == 1
        assert (one.troubles, one.sideways(), one.violations()) == ([], [], [])
        assert one.weight() <= MOST, one.bytes


@pytest.mark.parametrize(
    ("path", "status"), [("/updates/99-99", 404), ("/updates?colour=red", 400), ("/rounds/999999", 404)]
)
def test_page_that_is_not_there(open_page: Open, explorer: Served, path: str, status: int) -> None:
    with open_page() as one:
        page = one.go(explorer.url(path), status)
        assert page.locator("h1").count() == 1
        # The browser itself says that the document was not found; nothing else may be wrong.
        rest: list[Any] = [told for told in one.troubles if f"status of {status}" not in told]
        assert (rest, one.sideways(), one.violations()) == ([], [], [])
