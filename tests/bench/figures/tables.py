# SPDX-License-Identifier: LGPL-2.1-or-later
"""Markdown tables of what was measured, for docs/performance.md; each function makes one section."""

from figures import goals
from traffic.rounds import cell, table

GOALS = ["goal", "wanted", "measured, median (quartiles)", ""]


def all_goals(reports):
    rows = []
    for name, function in (("lookups", goals.lookups), ("stalls", goals.stalls), ("traffic", goals.traffic),
                           ("control", goals.control), ("supervise", goals.supervise)):
        if name in reports:
            rows += function(reports[name])
    return table(GOALS, rows)


def where(reports):
    lines = []
    for name, report in reports.items():
        machine = report.get("machine", report)
        before, after = (", ".join(f"{value:.1f}" for value in machine[key])
                         for key in ("load_average_before", "load_average_after"))
        lines.append(f"* {name}: load average {before} before, {after} after"
                     + (" (a quick run, for plausibility only)" if report.get("quick") else ""))
    for report in reports.values():
        if "machine" in report:
            machine = report["machine"]
            lines.insert(0, f"* {machine['processors']} processors, {machine['processor']}; "
                            f"Linux {machine['kernel']}")
            break
    return "\n".join(lines)


def lookups(report):
    def line(row):
        return [row["family"], row["lengths"], f"{row['services']:,}", f"{row['bindings']:,}",
                cell(row["hot"]["ours_over_floor"]), cell(row["cold"]["ours_over_floor"]),
                cell(row["random"]["ours_over_floor"], "{:.1f}"),
                *(cell(row[part]["two_lpm_over_ours"], form) for part, form in
                  (("hot", "{:.1f}"), ("cold", "{:.2f}"), ("random", "{:.1f}"), ("near_miss", "{:.1f}"),
                   ("far_miss", "{:.2f}")))]
    return table(["family", "lengths", "services", "bindings", "hot, x floor", "cold, x floor", "random, x floor",
                  "two-LPM / ours: hot", "cold", "random", "near miss", "far miss"],
                 [line(row) for row in report["rows"]])


def nanoseconds(report):
    rows = [row for row in report["rows"] if row["bindings"] == goals.MILLION] or report["rows"]

    def times(row, part):
        return ", ".join(f"{row[part]['ns'][program][1]:.0f}" for program in ("floor", "ours", "two_lpm"))
    return table(["family", "lengths", "services", "hot: floor, ours, two-LPM", "random: floor, ours, two-LPM"],
                 [[row["family"], row["lengths"], f"{row['services']:,}", times(row, "hot"), times(row, "random")]
                  for row in rows])


def stalls(report):
    return table(["while", "longest that a processor was away, ms", "of looks"],
                 [[row["phase"], f"{row['longest_ms']:.2f}", f"{row['looks']:,}"] for row in report["rows"]])


def rates(result):
    unit = "datagrams/s" if result["protocol"] == "udp" else "connections/s"
    lines = [[name, cell(values, "{:,.0f}"), cell(result["sender_us_each"][name]),
              f"{100 * result['lost_share'][name]:.2f} %"] for name, values in result["per_second"].items()]
    ratios = [[name, cell(values), cell(result["cpu_ratios"][name])] for name, values in result["ratios"].items()]
    return (table(["variant, bindings", f"{unit}, median (quartiles)", "sender's CPU, us each", "lost"], lines)
            + "\n\n" + table(["ratio", unit, "by the sender's CPU time alone"], ratios))


def flood(result):
    lines = [[name, cell(values, "{:,.0f}"), cell(result["connects_per_second"][name], "{:,.0f}"),
              str(result["connects_failed"][name])] for name, values in result["answered_per_second"].items()]
    ratios = [[name, cell(values), cell(result["connect_ratios"][name])] for name, values in result["ratios"].items()]
    return (table(["variant, bindings", "segments answered/s", "real connections/s meanwhile", "failed"], lines)
            + "\n\n" + table(["ratio", "segments answered/s", "real connections/s"], ratios))


def prices(result):
    shown = {"unit": "neither", "stay": "`UdpFlows=stay`", "reply": "`UdpReply=original`"}
    return table(["policy", "CPU time of a question and its answer, us", "beside neither"],
                 [[shown[name], cell(values),
                   cell(result["ratios"][f"{name} / unit"], "{:.3f}") if name != "unit" else "-"]
                  for name, values in result["us_each"].items()])


def elsewhere(result):
    shown = {"none": "in no cgroup", "elsewhere": "in a cgroup of others"}
    return table(["a program in sendmsg", "CPU time of a question and its answer, us", "beside none"],
                 [[shown[name], cell(values),
                   cell(result["ratios"]["elsewhere / none"], "{:.3f}") if name == "elsewhere" else "-"]
                  for name, values in result["us_each"].items()])


_SHOWN = {"flood": flood, "prices": prices, "elsewhere": elsewhere}


def experiment(name, result):
    return _SHOWN.get(name.rstrip("0123456789"), rates)(result)


def traffic(report):
    """Every experiment under a heading of its own."""
    titles = {"udp4": "Datagrams, IPv4", "udp6": "Datagrams, IPv6", "tcp4": "Connections, IPv4",
              "tcp6": "Connections, IPv6", "flood1": "SYN flood, tcp_syncookies=1 (the default)",
              "flood2": "SYN flood, tcp_syncookies=2", "prices4": "What UDP flows and replies cost, IPv4",
              "prices6": "What UDP flows and replies cost, IPv6",
              "elsewhere4": "What a program in sendmsg costs others, IPv4",
              "elsewhere6": "What a program in sendmsg costs others, IPv6"}
    return "\n\n".join(
        f"### {titles[name]}\n\n{result['rounds']} rounds of {result['slice_s']} s a variant.\n\n"
        + experiment(name, result) for name, result in report["experiments"].items())


def load(report):
    def line(part):
        written = part["compile_and_write_s"]
        parts = (part[key] for key in ("parse_s", "compile_s", "compile_and_write_s"))
        return [f"{part['bindings']:,}", *(f"{value:.3f}" for value in parts),
                f"{part['parse_s'] + written:.3f}", f"{part['two_lpm_updates_s']:.3f}",
                f"{part['two_lpm_updates_s'] / written:.1f}",
                f"{part['two_lpm_updates_s'] / (part['parse_s'] + written):.1f}"]
    return table(["bindings", "parse, s", "compile alone, s", "compile, write and grace, s", "parse and these, s",
                  "two-LPM's updates, s",
                  "two-LPM / compile and write", "two-LPM / all"], [line(part) for part in report["load"]])


def registrations(report):
    lines = [[kind, cell(values["wall"], "{:,.0f}"), cell(values["cpu"], "{:,.0f}")]
             for kind, values in report["registrations"].items()]
    crowd = [[kind, cell(values["wall"], "{:,.0f}"), cell(values["cpu"], "{:,.0f}")]
             for kind, values in report["crowd"].items()]
    latency, scrapes, names = report["latency"], report["scrapes"], report["pauses for names"]
    return (table(["registrations", "a second", "by CPU second of the broker"], lines)
            + "\n\nOf a new socket each, by 64 clients at once, who have the same processors:\n\n"
            + table(["registrations", "a second", "by CPU second of the broker, its hands and all"], crowd)
            + f"\n\nReloads of {latency['bindings']:,} bindings, {cell(latency['reload_s'])} s each by "
            "sockbrokerctl:\n\n" + _waits(latency, "beside reloads")
            + f"\n\nScrapes of sockbroker-exporter, ten a second at most, with {scrapes['services']:,} services that "
            f"have a socket each,\n{cell(scrapes['scrape_ms'], '{:.1f}')} ms, the longest "
            f"{scrapes['longest_scrape_ms']:.1f} ms:\n\n" + _waits(scrapes, "beside scrapes")
            + f"\n\nThe longest wait for the answer to a trivial request beside a reload by which "
            f"{report['pauses']['services']:,} services come or go:\n\n"
            + table(["services", "ms"], [[name, cell(values, "{:.0f}")]
                                         for name, values in report["pauses"]["longest_ms"].items()])
            + f"\n\nThe same beside a reload with {names['sockets']:,} sockets, of services with {names['names']} "
            f"names of User= each: {cell(names['longest_ms'], '{:.0f}')} ms.")


def _waits(latency, beside):
    lines = [[name, *(f"{latency[key][part]:.2f}" for part in ("median_ms", "p99_ms", "max_ms")),
              f"{latency[key]['count']:,}"] for key, name in (("quiet", "quiet"), ("beside", beside))]
    return table(["one registration", "median, ms", "99th, ms", "longest, ms", "of"], lines)


def memory(report):
    idle = report["memory"][0]

    def line(row):
        more = "-" if row is idle else f"{(row['resident'] - idle['resident']) / row['bindings']:.0f}"
        return [f"{row['bindings']:,}", f"{row['capacity']:,}", f"{row['resident'] / 1e6:.1f}",
                f"{row['anonymous'] / 1e6:.1f}", more, f"{row['maps'] / 1e6:.1f}",
                f"{row['maps'] / row['capacity']:.0f}"]
    return table(["bindings", "capacity", "resident, MB", "of it anonymous", "more than idle, bytes a binding",
                  "maps, MB", "maps, bytes a binding of capacity"], [line(row) for row in report["memory"]])


def supervise(report):
    servers = [[name, cell(row["plain"], "{:,.0f}"), cell(row["supervised"], "{:,.0f}"), cell(row["ratio"])]
               for name, row in report["servers"].items()]
    calls = [[call, *(cell(row["ns"][name], "{:,.0f}") if name in row["ns"] else "-"
                      for name in ("plain", "any filter", "supervised")), cell(row["more_ns"], "{:,.0f}")]
             for call, row in report["calls"].items()]
    return (table(["answers a second", "plain bind", "under --supervise", "ratio"], servers) + "\n\n"
            + table(["system calls, ns", "plain", "a filter that allows all", "under --supervise", "more than plain"],
                    calls))
