"""The goals of goals.json, held against results.

A goal is {"name", "suite", "metric", "row", "than"?, "at_least" or "at_most"}. With "than", the figure is the row's median divided by
that of the best of those rows; without, the median itself. A goal whose rows have no figures is neither met nor not met.
"""
import json
import pathlib

import figures

GOALS = pathlib.Path(__file__).resolve().parent / "goals.json"


def goals():
    return json.loads(GOALS.read_text())


def value(results, goal, row):
    """The median of a goal's metric in a row; None where there is none."""
    return figures.median(results["suites"].get(goal["suite"], {}).get("rows", {}).get(row, {}).get("rounds", []), goal["metric"])


def missing(results, goal):
    """Why a goal has no figure."""
    rows = results["suites"].get(goal["suite"], {}).get("rows", {})
    wanted = [goal["row"]] if value(results, goal, goal["row"]) is None else goal.get("than", [])
    reasons = []
    for row in wanted:
        if row not in rows:
            reasons.append(f"{row} was not run")
        elif "not_started" in rows[row]:
            reasons.append(f"{row} did not start: {rows[row]['not_started'][:100]}")
        elif value(results, goal, row) is None:
            reasons.append(f"{row} has no round that counts")
    return "; ".join(reasons)


def judge(results, goal):
    """A goal with its figure: {"name", "asked", "figure", "met"}; met is None, and "why" says it, where there is no figure."""
    metric, least = goal["metric"], "at_least" in goal
    bound, relative = goal["at_least" if least else "at_most"], "than" in goal
    figure = value(results, goal, goal["row"])
    if relative:
        # All of them must be there: the best of those that happened to run would be too easy a goal.
        others = [value(results, goal, row) for row in goal["than"]]
        figure = None if None in others else figures.ratio(figure, figures.best(metric, others))
    write = (lambda v: f"{v:.2f} ×") if relative else (lambda v: f"{figures.shown(metric, v)} {figures.METRICS[metric][0].split()[-1]}")
    judged = {"name": goal["name"], "asked": ("≥ " if least else "≤ ") + write(bound), "figure": write(figure) if figure is not None else "–", "met": None}
    if figure is None:
        return {**judged, "why": missing(results, goal)}
    return {**judged, "met": figure >= bound if least else figure <= bound}


def judged(results):
    return [judge(results, goal) for goal in goals()]
