"""Two files of results beside each other, if they are of one machine."""
import figures
import machine

FORMAT = 1


class Incomparable(Exception):
    """Why two files can't be compared."""


def check(old, new):
    """Raises Incomparable unless the figures of both were made under the same conditions."""
    for what, results in (("the older", old), ("the newer", new)):
        if results.get("format") != FORMAT:
            raise Incomparable(f"{what} file has format {results.get('format')}; this bench reads {FORMAT}")
    differ = machine.differences(old["machine"], new["machine"])
    if differ:
        raise Incomparable("they are of different machines: " + "; ".join(differ))


def rows(old, new):
    """(suite, row, metric, old, new, ratio) of every row that both have figures for, by the first figure of the row."""
    check(old, new)
    for name, told in new["suites"].items():
        for row, result in told["rows"].items():
            before = old["suites"].get(name, {}).get("rows", {}).get(row)
            metric = next(iter(figures.metrics(told, [result])), None)
            if before is None or metric is None:
                continue
            a, b = figures.median(before["rounds"], metric), figures.median(result["rounds"], metric)
            if a is not None:
                yield name, row, metric, a, b, figures.ratio(b, a)


def notes(old, new):
    """What else differs, and may be the reason for a difference."""
    said = [f"{name}: {old['versions'].get(name, 'not there')} → {new['versions'].get(name, 'not there')}"
            for name in sorted({**old["versions"], **new["versions"]}) if old["versions"].get(name) != new["versions"].get(name)]
    for key in ("rounds", "seconds"):
        if old["settings"][key] != new["settings"][key]:
            said.append(f"{key}: {old['settings'][key]} → {new['settings'][key]}")
    for what, results in (("older", old), ("newer", new)):
        if results["state"]["busy"] > machine.BUSY:
            said.append(f"the machine was busy at the {what} run: {results['state']['busy']:.0%} of the cores were taken")
    return said
