# SPDX-License-Identifier: LGPL-2.1-or-later
"""What tests of LocalRoutes= and Announce= do: a policy with routes, and which of them stand."""

from harness import routes
from harness.until import until
from words import PREFIXES, listen, section

WEB = "".join(listen("tcp", prefix) for prefix in PREFIXES.values())
BOTH = set(PREFIXES.values())


def conf(broker, **keys):
    text = "[Broker]\n" + "".join(f"{key}={value}\n" for key, value in keys.items())
    (broker.config / "sockbrokerd.conf").write_text(text)


def begin(broker, maker, *lines, **keys):
    conf(broker, **{"AnnounceUpSec": 0, **keys})
    maker.start()
    broker.policy(section("web", 61001, WEB, *lines)).start()


def announced_is(wanted):
    until(f"announced is {wanted}, not {routes.announced()}", lambda: routes.announced() == set(wanted))


def local_is(wanted):
    until(f"local is {wanted}, not {routes.local()}", lambda: routes.local() == set(wanted))


def told(broker, name="web"):
    return broker.status()[1][name]["announced"]
