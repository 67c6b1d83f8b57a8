"""The results as people read them: tables in Markdown, the same on a terminal and in RESULTS.md."""
import time

import figures
import goals
import machine


def table(head, rows):
    """A Markdown table; all columns but the first are numbers."""
    return "\n".join(["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"] + ["| " + " | ".join(row) + " |" for row in rows])


def cell(text):
    return text.replace("|", "\\|").replace("\n", " ")


def reference(rows):
    """The row that the others are divided by: the first with figures, which is gatecrew's unless that did not start."""
    return next((row for row in rows.values() if figures.valid(row["rounds"])), None)


def rows_table(told, rows):
    """The rows of one case side by side. Only columns that hold something are there."""
    metrics = figures.metrics(told, rows.values())
    if not metrics:
        return ""
    main, first = metrics[0], reference(rows)
    # Less than throughput does, CPU time depends on what else the machine does.
    compared = [main] + [m for m in metrics[1:] if m == "cpu_us"]
    head = [""] + [figures.METRICS[m][0] for m in metrics] + [f"{figures.METRICS[m][0].replace('/req', '')}, to {first['short']}" for m in compared] + ["spread"]
    lines = []
    for row in rows.values():
        medians = {m: figures.median(row["rounds"], m) for m in metrics}
        if medians[main] is None:
            continue
        times = [figures.ratio(medians[m], figures.median(first["rounds"], m)) for m in compared]
        apart = figures.spread(row["rounds"], main)
        lines.append([cell(row["short"])] + [figures.shown(m, medians[m]) for m in metrics]
                     + ["–" if t is None else f"{t:.2f} ×" for t in times] + ["–" if apart is None else f"±{apart:.0%}"])
    return table(head, lines)


def faults(rows):
    """What did not start, and rounds that don't count, a line each."""
    lines = []
    for name, row in rows.items():
        if "not_started" in row:
            lines.append(f"- {name} did not start: `{cell(row['not_started']).replace('`', chr(39))}`")
        void = [r["void"] for r in row["rounds"] if r.get("void")]
        if void:
            lines.append(f"- {name}: {len(void)} of {len(row['rounds'])} rounds don't count: {cell(void[-1])}")
    return "\n".join(lines)


def cases(rows):
    """The rows by their case, in order."""
    found = {}
    for name, row in rows.items():
        found.setdefault(row.get("case", ""), {})[name] = row
    return found


def series(rows):
    """The series of a case: {server: [(x, row)]}, those with figures."""
    found = {}
    for row in rows.values():
        if figures.valid(row["rounds"]):
            found.setdefault(row["short"], []).append((row["x"], row))
    return found


def points(row_series, metric):
    return [(x, figures.median(row["rounds"], metric)) for x, row in row_series if figures.median(row["rounds"], metric) is not None]


def cliffs(row_series):
    """The cliffs of one server's series: its CPU time per request, and, where it should not fall, its throughput."""
    growth = row_series[0][1]["growth"]
    found = [(x, f"{cost:,.0f} µs of CPU time a request where {expected:,.0f} were expected") for x, cost, expected in figures.cliffs(points(row_series, "cpu_us"), growth)]
    slow = [(x, 1e6 / rate) for x, rate in points(row_series, "rps") if rate]
    found += [(x, f"{1e6 / cost:,.0f} requests a second where {1e6 / expected:,.0f} were expected") for x, cost, expected in figures.cliffs(slow, growth)]
    return found


def series_table(told, rows):
    """A case that is a series: a line for each x and server, and its cliffs below."""
    text = []
    for short, row_series in series(rows).items():
        of = row_series[0][1]["series"]
        metrics = figures.metrics(told, [row for _, row in row_series])
        lines = [[f"{x:,}"] + [figures.shown(m, figures.median(row["rounds"], m)) for m in metrics] for x, row in row_series]
        marks = [f"- **cliff** of {short} at {x:,} {of}: {what}" for x, what in cliffs(row_series)]
        text += [table([f"{short}: {of}"] + [figures.METRICS[m][0] for m in metrics], lines), "\n".join(marks) or f"No cliff of {short}."]
    return "\n\n".join(text)


def suite_text(told):
    """One suite: what was measured, its tables, what went wrong."""
    parts = [f"## {told['title']}", f"{told['about']} {told['rounds']} rounds of {told['seconds']:g} s."]
    for case, rows in cases(told["rows"]).items():
        body = series_table(told, rows) if any("series" in row for row in rows.values()) else rows_table(told, rows)
        parts += [f"### {case[:1].upper()}{case[1:]}" if case else "", body]
    return "\n\n".join(part for part in parts + [faults(told["rows"])] if part)


def goals_table(results):
    lines = []
    for goal in goals.judged(results):
        state = {True: "met", False: "**not met**", None: f"not measured: {cell(goal.get('why', ''))}"}[goal["met"]]
        if goal["met"] is not None and busy(results):
            state += ", on a busy machine"
        lines.append([cell(goal["name"]), goal["asked"], goal["figure"], state])
    return "| goal | asked | figure | |\n|---|--:|--:|---|\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def others(results):
    """The shares of the cores that others took in each round, in order."""
    return sorted(r["others"] for told in results["suites"].values() for row in told["rows"].values() for r in row["rounds"] if "others" in r)


def busy(results):
    """Whether so much else ran that the figures are doubtful."""
    shares = others(results)
    return results["state"]["busy"] > machine.BUSY or bool(shares) and shares[len(shares) // 2] > machine.BUSY


def environment(results):
    """What it ran on, and how busy that was, as a sentence each."""
    m, state = results["machine"], results["state"]
    shares = others(results)
    lines = [
        f"{m['cores']} cores of {m['cpu']}, {m['memory_mb'] / 1024:.0f} GiB of memory, Linux {m['kernel']}, {results['system']}. Machine {m['id']}.",
        f"gatecrew at revision {results['revision']}. Begun {results['began']}; it took {sum(told['took'] for told in results['suites'].values()) / 60:.0f} minutes.",
        f"Load average at the start: {state['load_average']}; {state['busy']:.0%} of the cores were taken.",
    ]
    if shares:
        lines.append(f"While a row was measured, others than the server and its load took {shares[len(shares) // 2]:.0%} of the cores (median; at most {shares[-1]:.0%}).")
    if busy(results):
        lines.append("**The machine was busy with other work: take these figures as a rough guide.**")
    return lines


def whole(results, plots=()):
    """All of it as one page. plots are paths of pictures by their suite, as seen from the page."""
    versions = ", ".join(f"{name} {version.removeprefix(name).strip()}" for name, version in sorted(results["versions"].items(), key=lambda each: each[0].lower()))
    parts = ["# Results", "Written by `make bench`; [README.md](README.md) says how it measures and how to reproduce a row. Figures are comparable within a table, not beyond it. "
             "Each is the median of the rounds; spread is how far the rounds are from it at most.", "\n".join(environment(results)), f"Versions: {versions}.",
             "## Goals", goals_table(results)]
    for name, told in results["suites"].items():
        parts.append(suite_text(told))
        if name in plots:
            parts.append(f"![{told['title']}]({plots[name]})")
    return "\n\n".join(parts) + "\n"


def now():
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
