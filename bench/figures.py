"""What is made of measured numbers: medians, ratios, and cliffs in a series."""
import statistics

# What a round may tell, with the name of its column, the way it is written, and whether more is better.
METRICS = {
    "rps": ("req/s", "{:,.0f}", True),
    "mbps": ("MB/s", "{:,.0f}", True),
    "cpu_us": ("CPU µs/req", "{:,.1f}", False),
    "p50_us": ("p50", "time", False),
    "p99_us": ("p99", "time", False),
    "pss_mb": ("PSS MB", "{:,.0f}", False),
    "start_ms": ("start ms", "{:,.0f}", False),
    "binary_mb": ("binary MB", "{:,.1f}", False),
    "socket_kb": ("KB/socket", "{:,.1f}", False),
    "beside_rps": ("slow/s", "{:,.1f}", True),
    "beside_p99_us": ("slow p99", "time", False),
    "others": ("others", "{:.0%}", False),
}
MORE_IS_BETTER = {name for name, (_, _, more) in METRICS.items() if more}
CLIFF = 2.0  # times off the growth that is expected


def shown(metric, value):
    """A figure as people read it."""
    if value is None:
        return "–"
    form = METRICS[metric][1]
    if form != "time":
        return form.format(value)
    return f"{value:.0f} µs" if value < 1000 else f"{value / 1000:.1f} ms" if value < 1e6 else f"{value / 1e6:.2f} s"


def valid(rounds):
    """The rounds that count."""
    return [r for r in rounds if not r.get("void")]


def median(rounds, metric):
    """The median of one figure over the rounds that count, each figure for itself; None where there is none."""
    values = [r[metric] for r in valid(rounds) if r.get(metric) is not None]
    return statistics.median(values) if values else None


def metrics(told, rows):
    """The figures that rows of one case have, the one first that they are compared by."""
    asked = next((row["metrics"] for row in rows if "metrics" in row), told["metrics"])
    return [m for m in asked if any(median(row["rounds"], m) is not None for row in rows)]


def spread(rounds, metric):
    """How far the rounds are apart: the largest distance from the median, as a share of it; None below two rounds."""
    values = [r[metric] for r in valid(rounds) if r.get(metric) is not None]
    middle = statistics.median(values) if values else 0
    return max(abs(v - middle) for v in values) / middle if len(values) > 1 and middle else None


def ratio(value, other):
    """One figure divided by another; None where one is missing or the divisor is zero."""
    return None if value is None or not other else value / other


def best(metric, values):
    """The best of several figures, those that are missing left out."""
    values = [v for v in values if v is not None]
    return (max if metric in MORE_IS_BETTER else min)(values) if values else None


def line(points):
    """The line cost = a + b·x through points of (x, cost) with the smallest squares of relative errors, and neither a nor b below 0."""
    weights = [1 / (y * y) for _, y in points]
    total = sum(weights)
    x_mean = sum(w * x for w, (x, _) in zip(weights, points)) / total
    y_mean = sum(w * y for w, (_, y) in zip(weights, points)) / total
    variance = sum(w * (x - x_mean) ** 2 for w, (x, _) in zip(weights, points))
    slope = sum(w * (x - x_mean) * (y - y_mean) for w, (x, y) in zip(weights, points)) / variance if variance else 0
    if slope < 0:
        return y_mean, 0.0
    start = y_mean - slope * x_mean
    if start < 0:  # through the origin
        return 0.0, sum(w * x * y for w, (x, y) in zip(weights, points)) / sum(w * x * x for w, (x, _) in zip(weights, points))
    return start, slope


def cliffs(points, growth):
    """The points of a series (x, cost) that cost more than CLIFF times what is expected, as (x, cost, expected).

    Where growth is "flat", the cost should stay what it is: expected is the least cost at a smaller x. Where it is "linear", the
    cost is a fixed part and one that grows with x: expected is the line through all points. A steeper growth leaves that line
    too, since errors are relative: the line follows the many small costs, not the one large.
    """
    points, found = sorted((x, y) for x, y in points if y), []
    if len(points) < 2:
        return found
    start, slope = line(points)
    for i, (x, cost) in enumerate(points):
        expected = start + slope * x if growth == "linear" else min((y for _, y in points[:i]), default=cost)
        if cost > CLIFF * expected:
            found.append((x, cost, expected))
    return found
