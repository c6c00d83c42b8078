"""A figure that notebooks display without pyplot."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure


class DisplayedFigure(Figure):
    """A matplotlib figure that notebooks display as an image, without a magic command."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png", bbox_inches="tight")
        return file.getvalue()
