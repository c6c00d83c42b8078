"""Plots of times against sizes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

COLORS = {
    "ravel": "#b2182b",
    "unravel": "#2166ac",
    "ravel_pytree": "#ef8a62",
    "unravel of ravel_pytree": "#67a9cf",
    "torch parameters_to_vector": "#999999",
    "torch vector_to_parameters": "#cccccc",
}


def draw(points: dict[str, list[list[float]]], path: Path) -> None:
    """Write the scaling plots, log-log: time against leaves, and against parameters."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    titles = {"leaves": "small leaves", "parameters": "20 leaves"}
    for axes, (axis, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for name, values in points.items():
            if name.startswith(f"{axis}: "):
                _line(axes, name.removeprefix(f"{axis}: "), values)
        axes.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds, eager", title=title)
        axes.grid(alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)


def _line(axes: object, name: str, values: list[list[float]]) -> None:
    ours = name in ("ravel", "unravel")
    axes.plot(  # type: ignore[attr-defined]
        *zip(*values, strict=True),
        label=f"jtree: {name}" if ours else name,
        color=COLORS[name],
        linewidth=2.2 if ours else 1.3,
        marker="o",
        markersize=3.5,
    )
