# SPDX-License-Identifier: LGPL-2.1-or-later
"""Variants that take turns in every round, ratios within a round only, and medians with quartiles of these."""

import os
import sys


def spread(values):
    """[lower quartile, median, upper quartile]"""
    ordered = sorted(values)
    return [round(ordered[int(part * (len(ordered) - 1) + 0.5)], 4) for part in (0.25, 0.5, 0.75)]


def ratios(mine, others):
    return spread([a / max(b, 1e-9) for a, b in zip(mine, others)])


def play(names, rounds, slice_of):
    """slice_of(name) -> number. Returns {name: numbers}, one a round; a first round warms up. The order turns."""
    result = {name: [] for name in names}
    for number in range(rounds + 1):
        turned = names[number % len(names):] + names[:number % len(names)]
        for name in turned:
            value = slice_of(name)
            if number > 0:
                result[name].append(value)
    return result


def cell(values, form="{:.2f}"):
    low, middle, high = (form.format(value) for value in values)
    return f"{middle} ({low}-{high})"


def table(head, lines):
    """Markdown, columns aligned, so that it reads well in a terminal too."""
    rows = [head, *lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    show = ["| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |" for row in rows]
    return "\n".join([show[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *show[1:]])


def machine():
    """What a reader has to know of where it ran."""
    model = "unknown"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"processor": model, "processors": len(os.sched_getaffinity(0)), "kernel": os.uname().release,
            "load_average_before": list(os.getloadavg())}


def say(text):
    print(text)
    sys.stdout.flush()
