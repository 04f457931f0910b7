"""The page of the audit: rates with their bounds, coverage, which check finds what."""

import numpy as np

ABOUT = """Records are made by a program that shares no sampled model with the package (`tests/support/audit.py`). Truths are near V = 1 where the word is decided.
*right*: truths from the priors of `thomas2021`. *honest*: separable truths, V in 1 … 1.05, calibrations with their stated errors (those of `thomas2021`, or every other
time a third of them). *biased*: the same with one or two of eleven biases of calibrations, shot level and white excess; "conflict" is the largest that is expected on average.
A bias along a direction that the record does not see (2ηΓV_c is measured, V_c is not) cannot be found by any check: what protects there is the distance of the nearest
separable model, in sd of the calibrations. *power*: honest calibrations, V = 0.79 and 0.90. *faults*: one thing wrong that the model does not have."""

SEEN = 4.2
"""Biases whose expected conflict is larger must be found out."""


def rate(count, total):
    return f"{count} of {total} ({100 * count / total:.1f} %; 95 % bound {100 * upper(count, total):.1f} %)"


def covered(rows):
    """Intervals of 90 % that hold the truth at the same pair, and the mean pull."""
    done = [r for r in rows if "value" in r]
    inside = sum(r["q05"] <= r["fixed"] <= r["q95"] for r in done)
    pull = np.mean([(r["value"] - r["fixed"]) / r["sd"] for r in done])
    return f"{inside} of {len(done)} ({100 * inside / len(done):.0f} %), mean pull {pull:+.2f}"


def table(rows, head):
    """The page of the documentation."""
    out = ["# How often is the verdict wrong?", "", head, ""]
    by = {s: [r for r in rows if r["stratum"] == s] for s in ("right", "honest", "biased", "power", "faults")}
    out += ["| stratum | record | sampling | analyses | outcome |", "|---|---|---|---|---|"]
    for stratum, own in by.items():
        for duration, quick in sorted({(r["duration_s"], r["quick"]) for r in own}):
            part = [r for r in own if (r["duration_s"], r["quick"]) == (duration, quick)]
            start = f"| {stratum} | {duration:g} s | {'quick' if quick else 'NUTS'} | {len(part)} |"
            if stratum == "right":
                out.append(
                    f"{start} refused: {rate(sum(bool(r['failed']) for r in part), len(part))}; 90 % hold V in {covered(part)} |"
                )
            elif stratum == "honest":
                out.append(
                    f"{start} called entangled: {rate(sum(r['entangled'] is True for r in part), len(part))}; 90 % hold V in {covered(part)} |"
                )
            elif stratum == "biased":
                large = [r for r in part if r.get("expected", 0.0) > SEEN]
                small = [r for r in part if r.get("expected", 0.0) <= SEEN]
                words = [
                    f"{name}: called entangled {sum(r['entangled'] is True for r in group)} of {len(group)}, "
                    f"a check failed in {sum(bool(r['failed']) for r in group)}"
                    for name, group in ((f"conflict above {SEEN} sd", large), ("below", small))
                ]
                out.append(f"{start} {'; '.join(words)} |")
            elif stratum == "power":
                for what in sorted({r["what"] for r in part}):
                    group = [r for r in part if r["what"] == what]
                    out.append(
                        f"{start} {what}: called entangled {sum(r['entangled'] is True for r in group)} of {len(group)} |"
                    )
    reach = reached(by["biased"])
    out += [*reach, "", "## Which check finds what", ""]
    for duration in sorted({r["duration_s"] for r in by["faults"]}):
        out += power_table([r for r in by["faults"] if r["duration_s"] == duration], duration)
    return "\n".join(out) + "\n"


def reached(rows):
    """Called entangled against how far the fit says that the nearest separable model is."""
    done = [r for r in rows if "distance" in r and not r["failed"]]
    if not done:
        return []
    lines = [
        "",
        "Separable states with biases that no check found, by the distance of the nearest separable model that the report prints:",
        "",
    ]
    lines += ["| distance (sd) | analyses | called entangled |", "|---|---|---|"]
    for low, high in ((0, 1), (1, 2), (2, 3), (3, 4), (4, np.inf)):
        group = [r for r in done if low <= r["distance"] < high]
        if group:
            lines.append(f"| {low} … {high:g} | {len(group)} | {sum(r['entangled'] is True for r in group)} |")
    return lines


def power_table(rows, duration):
    """Per fault: how often it was found, by which checks, and by how much V moved."""
    lines = [f"Table I, calibrations as good as a laboratory's, records of {duration:g} s:", ""]
    lines += ["| fault | analyses | found | by | called entangled | mean V − truth |", "|---|---|---|---|---|---|"]
    for what in dict.fromkeys(r["what"] for r in rows):
        group = [r for r in rows if r["what"] == what]
        if not group:
            continue
        done = [r for r in group if "value" in r]
        checks: dict[str, int] = {}
        for r in group:
            for name in r["failed"] or (["refused"] if "refused" in r else []):
                checks[name] = checks.get(name, 0) + 1
        by = ", ".join(f"{n} {k}" for n, k in sorted(checks.items(), key=lambda item: -item[1])[:4]) or "–"
        moved = f"{np.mean([r['value'] - r['fixed'] for r in done]):+.3f}" if done else "–"
        found = sum(bool(r["failed"]) or "refused" in r for r in group)
        called = sum(r["entangled"] is True for r in group)
        lines.append(f"| {what} | {len(group)} | {found} | {by} | {called} | {moved} |")
    return [*lines, ""]


def upper(count, total):
    """95 % upper bound of a rate (Clopper and Pearson)."""
    from scipy import stats

    return float(stats.beta.ppf(0.95, count + 1, total - count)) if total > count else 1.0
