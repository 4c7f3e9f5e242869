"""A peer's, or a site's, scores over rounds, and its claims against what others attest."""

from __future__ import annotations

from markupsafe import Markup

from fl_node.records import PPM
from ledger_ui.charts.scatter import Dot, scatter
from ledger_ui.charts.scores import by_peer, site_css
from ledger_ui.questions.own import Own
from ledger_ui.text import percent


def own_scores(own: Own, name: str = "own-scores") -> Markup:
    """Claimed and attested scores by round."""
    about = (
        "Dots on lines are what is claimed of these updates; diamonds are medians of what other sites attest. The "
        "table beneath has all values."
    )
    return by_peer(own.lines, name, about)


def calibration(own: Own, name: str = "calibration") -> Markup:
    """Each attested update as a dot: what is attested, and what was claimed."""
    dots = [
        Dot(
            point.attested_ppm * 100 / PPM,
            point.claimed_ppm * 100 / PPM,
            f"{point.update}: claims {percent(point.claimed_ppm)}; attested {percent(point.attested_ppm)}",
            site_css(line.site),
        )
        for line in own.lines
        for point in line.points
        if point.attested_ppm is not None
    ]
    found = own.calibration
    mean = found.mean_difference_ppm
    offset = None if mean is None else mean * 100 / PPM
    about = f"A dot for each attested update. {found.words}"
    return scatter(
        name,
        "Claimed against attested",
        about,
        dots,
        x_label="attested by others, %",
        y_label="claimed, %",
        equal="claimed as attested",
        offset=offset,
        offset_name="" if offset is None else f"mean difference: {offset:+.2f} percentage points",
        empty="Others have attested none of these updates.",
    )
