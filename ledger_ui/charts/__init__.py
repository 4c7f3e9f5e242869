"""Charts as SVG, drawn here: they need no script, print, and have a table beneath."""
