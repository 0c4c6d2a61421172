# SPDX-License-Identifier: LGPL-2.1-or-later
"""Each goal beside what was measured. The goals are here and nowhere else."""

from traffic.rounds import cell
from traffic.variants import MANY

MILLION = 1000000
OURS, TWO_LPM = f"ours {MANY}", f"two-lpm {MANY}"


def _verdict(met):
    return "met" if met else "missed"


def _extent(values, digits=2):
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def lookups(report):
    """(goal, wanted, measured, verdict) of lookup_bench's JSON. A goal over several rows is met when the worst one
    meets it."""
    rows, result = report["rows"], []

    def add(what, bound, most, part, key, which):
        values = [row[part][key][1] for row in rows if which(row)]
        if values:
            met = max(values) <= bound if most else min(values) >= bound
            result.append([what, f"{'at most' if most else 'at least'} {bound}", _extent(values), _verdict(met)])

    def few(row):
        return row["lengths"] in ("hosts", "4 lengths")

    def many(row):
        return row["lengths"] not in ("hosts", "4 lengths", "ports")

    def large(row):
        return row["bindings"] == MILLION

    for family in ("ipv4", "ipv6"):
        def of(which, family=family):
            return lambda row: row["family"] == family and which(row)
        floor, lpm = "ours_over_floor", "two_lpm_over_ours"
        add(f"{family}: hot key, host prefixes, every size: ours / floor", 1.35, True, "hot", floor,
            of(lambda row: row["lengths"] == "hosts"))
        add(f"{family}: hot key, several lengths and ports mixed: ours / floor", 1.8, True, "hot", floor,
            of(lambda row: row["lengths"] != "hosts"))
        add(f"{family}: random keys, 1,000,000, one service, up to four lengths: two-LPM / ours", 6, False, "random",
            lpm, of(lambda row: large(row) and few(row) and row["services"] == 1))
        add(f"{family}: the same, 10,000 services: two-LPM / ours", 4.5, False, "random", lpm,
            of(lambda row: large(row) and few(row) and row["services"] > 1))
        add(f"{family}: random keys, 1,000,000, 16 lengths and more: two-LPM / ours", 3.5, False, "random", lpm,
            of(lambda row: large(row) and many(row)))
        add(f"{family}: cold code, 1 to 100 bindings: two-LPM / ours", 1, False, "cold", lpm,
            of(lambda row: row["bindings"] <= 100))
        for part, name in (("hot", "hot keys"), ("random", "random keys"), ("near_miss", "near misses"),
                           ("far_miss", "far misses")):
            add(f"{family}: never slower than two-LPM: {name}", 1, False, part, lpm, of(lambda row: True))
    return result


def stalls(report):
    longest = {row["phase"]: row["longest_ms"] for row in report["rows"]}
    return [[f"a processor away from other work, 1,000,000 bindings: {phase}", "at most 5 ms",
             f"{longest[phase]:.1f} ms",
             _verdict(longest[phase] <= 5)] for phase in ("replace them", "exit of the broker", "unload")]


def traffic(report):
    experiments, result = report["experiments"], []

    def add(what, bound, name, ratio, key="ratios"):
        values = experiments.get(name, {}).get(key, {}).get(ratio)
        if values:
            result.append([what, f"at least {bound}", cell(values), _verdict(values[1] >= bound)])

    for family in (4, 6):
        name = f"udp{family}"
        unit = f"datagrams/s, IPv{family}, 65,536 bindings: ours /"
        add(f"{unit} bind(any)", 0.95, name, f"{OURS} / bind")
        add(f"{unit} TPROXY", 1.1, name, f"{OURS} / tproxy")
        add(f"{unit} two-LPM", 1.25, name, f"{OURS} / {TWO_LPM}")
    for family in (4, 6):
        name = f"tcp{family}"
        unit = f"connections/s, IPv{family}, 65,536 bindings: ours /"
        add(f"{unit} bind(any)", 0.97, name, f"{OURS} / bind")
        add(f"{unit} TPROXY", 1, name, f"{OURS} / tproxy")
    for family in (4, 6):
        for name, key, bound in (("reply", "UdpReply=original", 1.05), ("stay", "UdpFlows=stay", 1.03)):
            values = experiments.get(f"prices{family}", {}).get("ratios", {}).get(f"{name} / unit")
            if values:
                result.append([f"`{key}`, IPv{family}: CPU time of a question and its answer, beside without",
                               f"at most {bound}", cell(values, "{:.3f}"), _verdict(values[1] <= bound)])
    for cookies in (1, 2):
        add(f"SYN flood, tcp_syncookies={cookies}: SYNs answered, ours / TPROXY", 1, f"flood{cookies}",
            f"{OURS} / tproxy")
        add(f"SYN flood, tcp_syncookies={cookies}: real connections meanwhile, ours / TPROXY", 1, f"flood{cookies}",
            f"{OURS} / tproxy", "connect_ratios")
    failed = {f"flood{c}": experiments[f"flood{c}"]["connects_failed"][OURS] for c in (1, 2)
              if f"flood{c}" in experiments}
    if failed:
        result.append(["SYN flood: real connections that failed, ours", "0", str(sum(failed.values())),
                       _verdict(not any(failed.values()))])
    return result


def control(report):
    result = []
    load = {part["bindings"]: part for part in report["load"]}.get(MILLION)
    if load:
        ratio = load["two_lpm_updates_s"] / load["compile_and_write_s"]
        result.append(["load of 1,000,000: two-LPM's updates / compile, write and grace", "at least 10",
                       f"{ratio:.1f}", _verdict(ratio >= 10)])
        whole = report["latency"]["reload_s"][1]
        result.append(["whole reload of 1,000,000, by sockbrokerctl, parsing included, beside two-LPM's updates",
                       "at most a third", f"{whole:.2f} s beside {load['two_lpm_updates_s']:.2f} s",
                       _verdict(whole <= load["two_lpm_updates_s"] / 3)])
    for kind, values in report["registrations"].items():
        result.append([f"registrations by CPU second of the broker, {kind}", "at least 10,000",
                       cell(values["cpu"], "{:,.0f}"), _verdict(values["cpu"][1] >= 10000)])
    for kind, values in report["crowd"].items():
        result.append([f"registrations a second, {kind}, clients on the same processors", "at least 10,000",
                       cell(values["wall"], "{:,.0f}"), _verdict(values["wall"][1] >= 10000)])
    latency, scrapes = report["latency"], report["scrapes"]
    median = latency["quiet"]["median_ms"]
    result.append(["a registration, median", "at most 0.5 ms", f"{median:.2f} ms", _verdict(median <= 0.5)])
    delay = latency["beside"]["max_ms"] - latency["quiet"]["median_ms"]
    result.append([f"longest delay of a registration by a reload of {latency['bindings']:,}", "at most 50 ms",
                   f"{delay:.1f} ms", _verdict(delay <= 50)])
    longest = report["pauses"]["longest_of_all_ms"]
    result.append([f"longest wait beside a reload by which {report['pauses']['services']:,} services come or go",
                   "at most 50 ms", f"{longest:.0f} ms", _verdict(longest <= 50)])
    names = report["pauses for names"]
    longest = names["longest_of_all_ms"]
    result.append([f"longest wait beside a reload with {names['sockets']:,} sockets and {names['names']} names of "
                   "User= for each", "at most 50 ms", f"{longest:.0f} ms", _verdict(longest <= 50)])
    took, delay = scrapes["scrape_ms"][1], scrapes["beside"]["p99_ms"] - scrapes["quiet"]["p99_ms"]
    result.append([f"a scrape of {scrapes['services']:,} services", "at most 50 ms",
                   cell(scrapes["scrape_ms"], "{:.1f}") + " ms", _verdict(took <= 50)])
    result.append(["99th percentile of a registration: more beside scrapes", "at most 5 ms", f"{delay:.1f} ms",
                   _verdict(delay <= 5)])
    idle = report["memory"][0]
    result.append(["idle broker, resident", "at most 10 MB", f"{idle['resident'] / 1e6:.1f} MB",
                   _verdict(idle["resident"] <= 10e6)])
    for row in report["memory"][1:]:
        more = (row["resident"] - idle["resident"]) / row["bindings"]
        result.append([f"the same with {row['bindings']:,} bindings: more for each", "at most 150 bytes",
                       f"{more:.0f} bytes", _verdict(more <= 150)])
    result.append(["kernel maps at default capacity, with 5 MB for flows of UDP", "at most 21 MB",
                   f"{idle['maps'] / 1e6:.1f} MB", _verdict(idle["maps"] <= 21e6)])
    last = report["memory"][-1]
    each = last["maps"] / last["capacity"]
    result.append([f"kernel maps, for each of a capacity of {last['capacity']:,}", "at most 200 bytes",
                   f"{each:.0f} bytes", _verdict(each <= 200)])
    return result


def supervise(report):
    result = [[f"{name}: under --supervise / plain bind", "at least 0.97", cell(row["ratio"]),
               _verdict(row["ratio"][1] >= 0.97)]
              for name, row in report["servers"].items()]
    calls = report["calls"]
    bind = cell([value / 1000 for value in calls["bind"]["more_ns"]], "{:.1f} us")
    others = [[f"{name}: more", "at most 40 ns", cell(calls[call]["more_ns"], "{:.0f} ns"),
               _verdict(calls[call]["more_ns"][1] <= 40)]
              for name, call in (("getppid(2)", "getppid"), ("recv(2)", "recv"),
                                 ("fcntl(2), whose arguments the profile looks at", "fcntl"))]
    return [*result,
            ["socket, bind, close under --supervise: more", "at most 60 us", bind,
             _verdict(calls["bind"]["more_ns"][1] <= 60000)],
            *others]
