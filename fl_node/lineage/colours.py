"""Colours of sites, for light and for dark ground."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable
from typing import Final

_LIGHT: Final = ("#1f6fb4", "#c75b12", "#2a8a3e", "#b8302f", "#7a4fb5", "#8a5a2b", "#bd3a8a", "#3f7d85")
_DARK: Final = ("#6db3f2", "#ffa057", "#6fd07f", "#ff8582", "#bb97f0", "#d1a274", "#f08cc8", "#8cc3c9")
_GOLDEN: Final = 0.6180339887498949


def numbered(sites: Iterable[str]) -> dict[str, int]:
    """Each site's place among the colours: by name, so that the same sites look alike in every picture of them."""
    return {site: place for place, site in enumerate(sorted(set(sites)))}


def light(place: int) -> str:
    """A colour to be seen on white; of the first eight, no two are alike."""
    return _LIGHT[place] if place < len(_LIGHT) else _hue(place, 0.38)


def dark(place: int) -> str:
    """The same for a dark ground."""
    return _DARK[place] if place < len(_DARK) else _hue(place, 0.70)


def _hue(place: int, lightness: float) -> str:
    parts = colorsys.hls_to_rgb(place * _GOLDEN % 1.0, lightness, 0.55)
    return "#" + "".join(f"{round(part * 255):02x}" for part in parts)
