# SPDX-License-Identifier: Apache-2.0
"""From samples to what is printed: medians, quartiles, ratios of one round, and the verdict."""

import statistics

from proxies import PEERS


def median(samples, key):
    return statistics.median(sample[key] for sample in samples)


def spread(values):
    """Median and quartiles."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def ratio(samples, against, key="cost"):
    """Spread of the per-round ratios of cost, or None where one of the two is absent."""
    if not samples or not against:
        return None
    return spread([a[key] / b[key] for a, b in zip(samples, against)])


def best_peer(result):
    """The peer with the least cost in this row, or None."""
    peers = [name for name in PEERS if result.get(name)]
    return min(peers, key=lambda name: median(result[name], "cost"), default=None)


def ratio_text(spread_or_none):
    if spread_or_none is None:
        return "-"
    return "%.3f (%.3f-%.3f)" % spread_or_none


def verdict(value, limit, form):
    if value <= limit:
        return "ok"
    return "misses by " + form(value - limit)


def bytes_text(number):
    return f"{number:,.0f} B"


def limits_of(row, result):
    """Every limit of the row as (what, measured, text of the measure, limit, its text, verdict)."""
    ours = result.get("akashd")
    if not ours:
        return []
    if row.kind == "idle":
        return idle_limits(row, result, median(ours, "cost"))
    if row.kind == "workers":
        return [ratio_limit("two workers / one", result["two workers"], ours, row.max_best)]
    if row.kind == "all-on":
        return [ratio_limit("all on / all off", result["all on"], ours, row.max_best)]
    if row.kind == "slow":
        return slow_limits(row, result)
    found = []
    if row.max_floor and result.get(row.floor):
        found.append(ratio_limit(f"akashd / {row.floor}", ours, result[row.floor], row.max_floor))
    peer = best_peer(result)
    if row.max_best and peer:
        found.append(ratio_limit(f"akashd / best peer ({peer})", ours, result[peer], row.max_best))
    return found


def slow_limits(row, result):
    """p99 of the better of our two algorithms against the better peer's."""
    def p99(name):
        return median(result[name], "p99_ms")

    ours = min(("akashd", "random_two"), key=p99)
    peer = min((n for n in PEERS if result.get(n)), key=p99, default=None)
    if not peer:
        return []
    what = f"p99 of {'ewma' if ours == 'akashd' else ours} / of {peer}"
    return [ratio_limit(what, result[ours], result[peer], row.max_best, "p99_ms")]


def ratio_limit(what, samples, against, limit, key="cost"):
    measured = ratio(samples, against, key)
    return {"what": what, "measured": measured[0], "text": ratio_text(measured),
            "limit": f"at most {limit:.2f}",
            "verdict": verdict(measured[0], limit, lambda over: f"{over:.3f}")}


def idle_limits(row, result, ours):
    found = [{"what": "akashd", "measured": ours, "text": bytes_text(ours),
              "limit": f"at most {bytes_text(row.max_bytes)}",
              "verdict": verdict(ours, row.max_bytes, bytes_text)}]
    peer = best_peer(result)
    if row.below_peers and peer:
        theirs = median(result[peer], "cost")
        found.append({"what": f"akashd against {peer}", "measured": ours, "text": bytes_text(ours),
                      "limit": f"below {bytes_text(theirs)}",
                      "verdict": verdict(ours, theirs - 1, bytes_text)})
    return found


def load_line(name, samples, result, row):
    floor, peer = result.get(row.floor), best_peer(result)
    rate = f"{median(samples, 'rate'):,.{1 if row.bulk else 0}f}"
    return "  %-13s %11s %12s %9.2f %9.2f %7d  %-22s %-22s" % (
        name, rate, f"{median(samples, 'cost'):,.2f}",
        median(samples, "p50_ms"), median(samples, "p99_ms"),
        sum(sample["errors"] for sample in samples),
        ratio_text(ratio(samples, floor)), ratio_text(ratio(samples, result.get(peer))))


def print_row(row, result, failures):
    rounds = max((len(samples) for samples in result.values()), default=0)
    print(f"\n{row.name}: {row.title} ({rounds} rounds)")
    if not result and not failures:
        print("  not measured: akashd is not built")
    elif row.kind == "idle":
        print("  %-13s %14s %9s" % ("proxy", "bytes/client", "lost"))
        for name, samples in result.items():
            print("  %-13s %14s %9d" % (name, f"{median(samples, 'cost'):,.0f}",
                                        sum(sample["errors"] for sample in samples)))
    else:
        print("  %-13s %11s %12s %9s %9s %7s  %-22s %-22s" % (
            "proxy", "requests/s", "CPU us/req", "p50 ms", "p99 ms", "errors",
            "/ " + (row.floor or "floor"), "/ best peer"))
        for name, samples in result.items():
            print(load_line(name, samples, result, row).rstrip())
    for name, text in failures.items():
        print(f"  {name}: FAILED: {text}")
    for limit in limits_of(row, result):
        print("  {what}: {text}, {limit}: {verdict}".format(**limit))
    print(end="", flush=True)


def print_summary(rows_and_results):
    """The table for README: a line per limit."""
    print("\n| workload | akashd | relay | HAProxy | nginx | measured | to reach | |")
    print("|---|---|---|---|---|---|---|---|")
    for row, result in rows_and_results:
        costs = " | ".join(figure_text(row, result.get(name))
                           for name in ("akashd", row.floor, "haproxy", "nginx"))
        limits = limits_of(row, result)
        print(f"| {row.title} | {costs} | " + " | ".join(
            "; ".join(limit[key] for limit in limits) or "-"
            for key in ("text", "limit", "verdict")) + " |")


def figure_text(row, samples):
    if not samples:
        return "-"
    if row.kind == "slow":
        return f"{median(samples, 'p99_ms'):,.2f} ms"
    cost = median(samples, "cost")
    return bytes_text(cost) if row.kind == "idle" else f"{cost:,.2f} us"
