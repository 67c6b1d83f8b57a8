#!/usr/bin/env python3
"""Draws the plots of a file of results: plot.py RESULTS FOLDER writes FOLDER/SUITE.svg and prints each suite's name.

Needs matplotlib, so it is run by the Python of .build/bench-venv.
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

import figures
import report

OURS, PEER, GRID = "#0b7285", "#adb5bd", "#dee2e6"
# The same results give the same file: no date, no random identifiers.
plt.rcParams.update({"svg.hashsalt": "gatecrew", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def bars(axes, told, case, rows):
    """One case as bars of its first metric."""
    metric = figures.metrics(told, rows.values())[0]
    shown = [(row["short"], figures.median(row["rounds"], metric)) for row in rows.values()]
    shown.reverse()  # the first at the top
    drawn = axes.barh([name for name, _ in shown], [value for _, value in shown], color=[OURS if "gatecrew" in name else PEER for name, _ in shown])
    axes.bar_label(drawn, [figures.shown(metric, value) for _, value in shown], padding=3, fontsize=8)
    axes.set_title(f"{case[:1].upper()}{case[1:]}: {figures.METRICS[metric][0]}" if case else figures.METRICS[metric][0], loc="left")
    axes.margins(x=.15)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(left=False)


def lines(axes, case, rows):
    """A series: CPU time per request by x, for each server, with its cliffs."""
    for (short, row_series), colour in zip(report.series(rows).items(), (OURS, "#e8590c", PEER)):
        drawn = report.points(row_series, "cpu_us")
        axes.plot([max(x, .5) for x, _ in drawn], [y for _, y in drawn], marker="o", color=colour, label=short)
        for x, _, _ in figures.cliffs(drawn, row_series[0][1]["growth"]):
            axes.axvline(max(x, .5), color=colour, linestyle=":")
        axes.set_xlabel(row_series[0][1]["series"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(color=GRID)
    axes.set_title(f"{case[:1].upper()}{case[1:]}: CPU µs per request", loc="left")
    axes.legend(frameon=False)


def suite(told, path):
    found = {case: {name: row for name, row in rows.items() if figures.valid(row["rounds"])} for case, rows in report.cases(told["rows"]).items()}
    found = {case: rows for case, rows in found.items() if rows}
    is_series = any("series" in row for rows in found.values() for row in rows.values())
    heights = [3 if is_series else .5 + .28 * len(rows) for rows in found.values()]
    figure, every = plt.subplots(len(found), 1, figsize=(7, sum(heights) + .4), squeeze=False, gridspec_kw={"height_ratios": heights}, layout="constrained")
    for axes, (case, rows) in zip(every[:, 0], found.items()):
        if is_series:
            lines(axes, case, rows)
        else:
            bars(axes, told, case, rows)
    figure.suptitle(told["title"], x=.02, ha="left", weight="bold")
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)


def main():
    results, folder = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, told in results["suites"].items():
        if any(figures.valid(row["rounds"]) for row in told["rows"].values()):
            suite(told, folder / f"{name}.svg")
            print(name)


if __name__ == "__main__":
    main()
