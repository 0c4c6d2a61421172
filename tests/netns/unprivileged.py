# SPDX-License-Identifier: LGPL-2.1-or-later
"""A broker as the installed units start it: loaded by a process with three capabilities, served by one with none."""

import os

from harness import kernel

OWN_UID = 61900  # in place of the user sockbroker


def _as_own_user(capabilities, bounding):
    return ["setpriv", f"--reuid={OWN_UID}", f"--regid={OWN_UID}", "--clear-groups", f"--inh-caps=-all{capabilities}",
            f"--ambient-caps=-all{capabilities}", f"--bounding-set=-all{bounding}", "--no-new-privs"]


def with_three_capabilities():
    """Words in front of a command, as sockbrokerd-load.service runs it."""
    three = ",+bpf,+perfmon,+net_admin"
    return _as_own_user(three, three)


def without_capabilities():
    """As sockbrokerd.service runs it."""
    return _as_own_user("", "")


def as_the_units_do(broker):
    """Each start of the broker is a load and then a broker without any capability."""
    pins = broker.bpffs / "dispatch"
    broker.bpffs.mkdir(parents=True, exist_ok=True)
    kernel.mount("bpf", str(broker.bpffs), "bpf", 0, "mode=0755")
    pins.mkdir(mode=0o700)
    for path in (pins, broker.state):
        os.chown(path, OWN_UID, OWN_UID)
    broker.loader = with_three_capabilities()
    broker.before = ["/bin/sh", "-c", f'{" ".join(broker.loader)} "$@" --load && exec '
                                      f'{" ".join(without_capabilities())} "$@"',
                     "sh"]
