"""The judges themselves can say no."""

from __future__ import annotations

import pytest
from driving import Open, Served, chromium

pytestmark = pytest.mark.xdist_group("browser")


def test_what_is_wrong_with_a_page_is_found(open_page: Open, explorer: Served) -> None:
    with open_page(width=360) as one:
        page = one.go(explorer.url("/updates"))
        one.troubles.clear()
        page.evaluate(
            """() => {
              console.error('wrong');
              document.body.insertAdjacentHTML('beforeend', '<img src="/icon-without-words"><p id="w">w</p>');
              document.getElementById('w').style.minWidth = '900px';
            }"""
        )
        page.wait_for_timeout(300)
        assert any("console error: wrong" in told for told in one.troubles)
        assert any(told.startswith("404: ") and "icon-without-words" in told for told in one.troubles)
        assert any(told.startswith("image-alt") for told in one.violations())
        assert one.sideways()
        assert one.weight() > 10_000


def test_nothing_is_asked_of_other_places(open_page: Open, explorer: Served) -> None:
    with open_page() as one:
        page = one.go(explorer.url("/updates"))
        page.evaluate("() => fetch('http://elsewhere.example/').catch(() => null)")
        assert any("elsewhere.example" in told for told in one.troubles)


def test_a_missing_browser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHROMIUM", "/nowhere/chromium")
    with pytest.raises(AssertionError, match=r"no Chromium: .*apt-get install chromium.*CHROMIUM"):
        chromium()
