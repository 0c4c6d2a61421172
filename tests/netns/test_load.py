# SPDX-License-Identifier: LGPL-2.1-or-later
"""The harness of ../load itself: each way to fail lands in the count of its cause, or the table would be worth
nothing."""

from harness.load import Load, failed
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, section


def test_each_failure_is_counted_by_its_cause(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    v4, v6 = ADDRESS.values()
    one, plain = spawn("web-1"), spawn("web-plain")
    one.for_load()
    for protocol in ("tcp", "udp"):
        handed_over(one, protocol, "ipv4", service="web")
        handed_over(plain, protocol, "ipv6", service="web")
    plain.pause("udp-ipv6")
    cases = {
        ("tcp", v4, PORT, "web"): "ok", ("udp", v4, PORT, "web"): "ok",
        ("tcp", v4, PORT, "other"): "misdirected", ("udp", v4, PORT, "we"): "misdirected",
        ("tcp", v6, PORT, "web"): "short",  # the greeting of the plain service has no number
        ("udp", v6, PORT, "web"): "timed_out",  # nobody reads
        ("tcp", v4, PORT + 1, "web"): "refused", ("udp", v4, PORT + 1, "web"): "refused",
    }
    for target, cause in cases.items():
        with Load([target], window=4, timeout=0.2 if cause == "timed_out" else 20) as load:
            load.more(8)
            counts = load.end()[target[0]]
        if cause == "ok":
            assert failed(counts) == {} and counts["instances"] == {"web-1": counts["begun"]}
        else:
            assert failed(counts) == {cause: counts["begun"]}, (target, counts)
    assert counts["longest_refusal_ms"] > 0
    # Those that nobody accepted, when the listener is closed.
    dying = spawn("web-3")
    handed_over(dying, "tcp", "ipv4", service="web")
    dying.pause("tcp-ipv4")
    one.kill()
    with Load([("tcp", v4, PORT, "web")], window=4) as load:
        dying.wait_for_queue("tcp-ipv4", 4)
        dying.kill()
        load.more(8)
        counts = load.end()["tcp"]
    assert failed(counts) == {"reset": 4, "refused": counts["begun"] - 4}
