# SPDX-License-Identifier: LGPL-2.1-or-later
"""Datagrams, connections and a SYN flood, for each variant, in turns."""

import contextlib

from harness import units
from traffic import hooks, pair, rounds, variants
from traffic.variants import MANY

RATIOS = ["bind", "tproxy", "tproxy-marked", "two-lpm 1", f"two-lpm {MANY}", "floor"]
IPV6 = ["bind", "tproxy", f"two-lpm {MANY}", f"ours {MANY}"]
PRICED = ["unit", "stay", "reply"]
CLIENTS = 10000
FLOODED = ["bind", "tproxy", f"two-lpm {MANY}", f"ours {MANY}"]


def _summary(values, mine):
    if mine not in values:
        return {}
    return {f"{mine} / {other}": rounds.ratios(values[mine], values[other]) for other in RATIOS if other in values}


def rates(protocol, family, names, count, seconds, warm):
    """Per second, what arrived at the right socket: datagrams, or accepted connections. Each slice begins with `warm`
    seconds that are not counted, since the variants before have taken the caches."""
    with contextlib.ExitStack() as stack:
        pairs = {name: stack.enter_context(pair.Pair(name, protocol, family)) for name in names}
        lost = dict.fromkeys(names, 0)
        sent_in_all = dict.fromkeys(names, 0)
        cpu = {name: [] for name in names}
        misdelivered = dict.fromkeys(names, 0)

        def one(name):
            if warm:
                pairs[name].traffic(warm)
            before = pairs[name].server.dropped() if protocol == "udp" else 0
            sent, got = pairs[name].traffic(seconds)
            drops = pairs[name].server.dropped() - before if protocol == "udp" else 0
            sent_in_all[name] += sent["done"]
            lost[name] += drops + sent["failed"]
            if got["done"] == 0:
                raise RuntimeError(f"{name}: nothing arrived: {sent}")
            if protocol == "udp":
                misdelivered[name] += sent["done"] - got["done"] - drops
            cpu[name].append(sent["cpu_seconds"] / sent["done"] * 1e6)
            return got["done"] / sent["seconds"]

        values = rounds.play(names, count, one)
    # The price of one, as the ratio that it alone would make of the rates: it does not suffer from who else runs.
    worth = {name: [1 / value for value in cpu[name][1:]] for name in names}
    return {"protocol": protocol, "family": family, "slice_s": seconds, "warm_s": warm, "rounds": count,
            "per_second": {name: rounds.spread(values[name]) for name in names},
            "sender_us_each": {name: rounds.spread(cpu[name][1:]) for name in names},
            "lost_share": {name: round(lost[name] / sent_in_all[name], 6) for name in names},
            "unaccounted": misdelivered,
            "ratios": _summary(values, "ours 1") | _summary(values, f"ours {MANY}"),
            "cpu_ratios": _summary(worth, "ours 1") | _summary(worth, f"ours {MANY}")}


def _question(pair_of_hosts, seconds, warm):
    """CPU time of a question and its answer on both sides, in us, and how many could not be answered."""
    if warm:
        pair_of_hosts.traffic(warm)
    sent, got = pair_of_hosts.traffic(seconds)
    if got["done"] == 0:
        raise RuntimeError(f"{pair_of_hosts.name}: nothing arrived: {sent}")
    return (sent["cpu_seconds"] / sent["done"] + got["cpu_seconds"] / got["done"]) * 1e6, got["failed"]


def prices(family, count, seconds, warm):
    """CPU time of a question and its answer, on both sides of the veth pair, in a service with UdpFlows=stay and in one
    with UdpReply=original beside one with neither. Each of CLIENTS clients asks an address of its own, in turns, so
    that their flows are known and nearly no two packets in a row are of one. The answers are sent, and not read. Each
    slice begins with `warm` seconds that are not counted, as those of rates() do."""
    with contextlib.ExitStack() as stack:
        pairs = {name: stack.enter_context(pair.Pair(name, "udp", family, clients=CLIENTS)) for name in PRICED}
        unanswered = dict.fromkeys(PRICED, 0)

        def one(name):
            price, failed = _question(pairs[name], seconds, warm)
            unanswered[name] += failed
            return price

        values = rounds.play(PRICED, count, one)
    return {"family": family, "clients": CLIENTS, "slice_s": seconds, "warm_s": warm, "rounds": count,
            "unanswered": unanswered,
            "us_each": {name: rounds.spread(values[name]) for name in PRICED},
            "ratios": {f"{name} / unit": rounds.ratios(values[name], values["unit"]) for name in PRICED[1:]}}


def elsewhere(family, count, seconds, warm):
    """The same for a service with neither, while a program that does nothing is in sendmsg of another cgroup, beside
    none on the machine: as soon as there is one anywhere, the kernel locks the socket for every unconnected datagram.
    The services of prices() run beside each other, so all of them pay that there."""
    with contextlib.ExitStack() as stack:
        others = units.Slice()
        stack.callback(others.end)
        cgroup = others.unit("other.service")
        both = stack.enter_context(pair.Pair("unit", "udp", family, clients=CLIENTS))

        def one(name):
            with hooks.empty(cgroup) if name == "elsewhere" else contextlib.nullcontext():
                return _question(both, seconds, warm)[0]

        values = rounds.play(["none", "elsewhere"], count, one)
    return {"family": family, "clients": CLIENTS, "slice_s": seconds, "warm_s": warm, "rounds": count,
            "us_each": {name: rounds.spread(values[name]) for name in values},
            "ratios": {"elsewhere / none": rounds.ratios(values["elsewhere"], values["none"])}}


def flood(cookies, names, count, seconds):
    """Two senders of SYNs, one a processor, and beside them a client that connects for real."""
    with contextlib.ExitStack() as stack:
        pairs = {name: stack.enter_context(pair.Pair(name, "tcp", 4, flooders=2)) for name in names}
        for one in pairs.values():
            one.server.sysctl("net/ipv4/tcp_syncookies", cookies)
        connects = {name: [] for name in names}
        failed = dict.fromkeys(names, 0)
        errors = dict.fromkeys(names, 0)
        sent_cookies = dict.fromkeys(names, 0)

        def one(name):
            it = pairs[name]
            before = it.server.counters()
            it.server.begin()
            flooding = [pair.Call(flooder, "flood", seconds) for flooder in it.flooders]
            real = it.client.tcp(seconds, window=16)
            syns = [call.result() for call in flooding]
            it.server.finish()
            after = it.server.counters()
            delta = {key: after[key] - before.get(key, 0) for key in after}
            connects[name].append(real["done"] / real["seconds"])
            failed[name] += real["failed"]
            errors[name] = real["error"] or errors[name]
            sent_cookies[name] += delta["TcpExt.SyncookiesSent"]
            return delta["Tcp.OutSegs"] / max(call["seconds"] for call in syns)

        values = rounds.play(names, count, one)
    connects = {name: connects[name][1:] for name in names}
    mine = f"ours {MANY}"
    others = [name for name in names if name != mine]
    return {"syncookies": cookies, "slice_s": seconds, "rounds": count,
            "answered_per_second": {name: rounds.spread(values[name]) for name in names},
            "connects_per_second": {name: rounds.spread(connects[name]) for name in names},
            "connects_failed": failed, "connect_errno": errors, "cookies_sent": sent_cookies,
            "ratios": {f"{mine} / {other}": rounds.ratios(values[mine], values[other]) for other in others},
            "connect_ratios": {f"{mine} / {other}": rounds.ratios(connects[mine], connects[other])
                               for other in others}}


def everything(quick, only=None):
    """Yields (name, result) of each experiment as it is there."""
    count = 5 if quick else 20
    for protocol, seconds, warm in (("udp", 0.25, 0.15), ("tcp", 0.2, 0)):
        if quick:
            seconds, warm = 0.1, 0
        for family in (4, 6):
            name = f"{protocol}{family}"
            if only is None or name in only:
                yield name, rates(protocol, family, variants.ALL if family == 4 else IPV6, count, seconds, warm)
    for family in (4, 6):
        if only is None or f"prices{family}" in only:
            # A few percent are asked for: many short slices, for what else the machine does lasts longer than one.
            yield f"prices{family}", prices(family, 15 * count, 0.05, 0 if quick else 0.05)
        if only is None or f"elsewhere{family}" in only:
            yield f"elsewhere{family}", elsewhere(family, 5 * count, 0.05, 0 if quick else 0.05)
    for cookies in (1, 2):
        if only is None or f"flood{cookies}" in only:
            yield f"flood{cookies}", flood(cookies, FLOODED, count, 0.1 if quick else 0.25)
