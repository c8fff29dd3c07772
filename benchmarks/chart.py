"""Draws the medians of results: `python -m benchmarks.chart results.json [more.json ...] chart.svg`, by the peers'
Python, which has matplotlib. One row a job and setting, of the last file that has it; wall to the left, CPU to the
right; ours in colour.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore] # in the peers' environment alone

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "benchmarks"  # the same numbers make the same file
mpl.rcParams["svg.fonttype"] = "none"  # text as text
from matplotlib import pyplot as plt  # type: ignore[import-not-found,unused-ignore]  # noqa: E402 - the back end is chosen first

_OURS, _OTHERS = "#0b7285", "#adb5bd"
_MEASURES = (("wall", "seconds"), ("cpu", "CPU-s"))


def _medians(runs: list[dict[str, Any]], measure: str) -> dict[str, float]:
    found = {}
    for client in dict.fromkeys(run["client"] for run in runs):
        usages = [run["usage"] for run in runs if run["client"] == client]
        found[client] = median(u[f"{measure}_seconds"] - u[f"startup_{measure}_seconds"] for u in usages)
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))


def main(results: list[Path], chart: Path) -> None:
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for path in results:
        report = json.loads(path.read_text())
        latest: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for run in report["runs"]:
            sink = run.get("sink", "s3")  # of results from before there were two
            latest.setdefault((run["title"], run["setting"], sink), []).append(run)
        groups |= latest
    figure, axes = plt.subplots(
        len(groups), 2, figsize=(10, 0.9 + 1.9 * len(groups)), squeeze=False, constrained_layout=True
    )
    for ((title, setting, sink), runs), row in zip(groups.items(), axes, strict=True):
        for (measure, unit), axis in zip(_MEASURES, row, strict=True):
            medians = _medians(runs, measure)
            bars = axis.barh(
                list(medians),
                list(medians.values()),
                color=[_OURS if c == "ours" else _OTHERS for c in medians],
            )
            axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
            axis.margins(x=0.15)
            axis.tick_params(labelsize=8)
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_title(f"{title}, {setting}, to {sink}: {unit}", fontsize=9, loc="left")
    machine = report["machine"]
    software = f"Python {machine['python']}, {machine['openssl']}"
    figure.suptitle(f"{machine['when'][:10]}, {machine['cpus']} processors, {software}; medians", fontsize=8)
    figure.savefig(chart, metadata={"Date": None})


if __name__ == "__main__":
    *files, target = map(Path, sys.argv[1:])
    main(files, target)
