"""The picture of a grid: accuracy against cost, one line an arm, as one page that works offline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from impon_hpo.comparing.curves import Curves
from impon_hpo.errors import StorageError

# Okabe & Ito (2008): told apart by colour-blind people. The control is black everywhere.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
DASHES = ("solid", "dash", "dot", "dashdot")


def accuracy_against_cost(curves: dict[str, Curves], *, control: str) -> list[dict[str, Any]]:
    """Return for each arm x (cost in control epochs), y (mean accuracy) and half (half the width of
    a 95 % interval of the mean over runs), lists of plain numbers."""
    unit = float(curves[control].cost[0])
    lines = []
    for arm in curves.values():
        spread = arm.accuracy.std(axis=0, ddof=1) if len(arm.accuracy) > 1 else None
        half = (
            [0.0] * arm.accuracy.shape[1]
            if spread is None
            else (1.96 * spread / math.sqrt(len(arm.accuracy))).tolist()
        )
        lines.append(
            {
                "arm": arm.arm,
                "x": (arm.cost / unit).tolist(),
                "y": arm.accuracy.mean(axis=0).tolist(),
                "half": half,
            }
        )
    return lines


def write_picture(path: Path, curves: dict[str, Curves], *, control: str, title: str) -> None:
    """Write the picture as one HTML file with everything inside.

    Raises:
        StorageError: It cannot be written.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    others = 0
    for line in accuracy_against_cost(curves, control=control):
        look = {"color": "black", "width": 3}
        if line["arm"] != control:
            colour, dash = COLOURS[others % len(COLOURS)], DASHES[others // len(COLOURS) % 4]
            look = {"color": colour, "width": 2, "dash": dash}
            others += 1
        figure.add_scatter(
            x=line["x"],
            y=line["y"],
            error_y={"array": np.array(line["half"]), "thickness": 0.7, "width": 2},
            name=line["arm"],
            mode="lines+markers",
            line=look,
        )
    figure.update_layout(
        title=title,
        xaxis_title=f"cost (epochs of {control}; scoring and validation charged)",
        yaxis_title="validation accuracy (mean over configurations and seeds)",
        template="plotly_white",
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.write_html(path, include_plotlyjs=True, full_html=True)
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error}") from error
