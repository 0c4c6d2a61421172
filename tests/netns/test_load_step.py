# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerd --load and a broker that has never had a capability, as the units start them."""

import os
import subprocess

import pytest

from harness import broker as broker_module
from harness import wire
from unprivileged import OWN_UID, as_the_units_do, without_capabilities
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, section, who

pytestmark = pytest.mark.skipif(broker_module.TRIAL is not None, reason="a trial loads by itself")


@pytest.fixture
def broker(netns):  # pylint: disable=unused-argument
    made = broker_module.Broker(activated=True)
    as_the_units_do(made)
    yield made
    made.discard()


def load(broker):
    """By whoever runs this, as another start of the unit would."""
    return subprocess.run([*broker.loader, str(broker.program), *broker.options(), "--load"], capture_output=True,
                          text=True, check=False)


def capability_sets(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return {line.split()[0].rstrip(":"): int(line.split()[1], 16) for line in status if line.startswith("Cap")}


def test_a_broker_without_any_capability_serves_restarts_explains_and_unloads(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    assert set(capability_sets(broker.process.pid).values()) == {0}
    web = spawn("web")
    handed_over(web, "tcp", "ipv4")
    assert who("tcp", "ipv4") == "web"
    assert broker.reload()[0] == 0
    explained = broker.ctl("--json=short", "explain", "tcp", ADDRESS["ipv4"], str(PORT))
    assert explained[0] == 0 and '"verdict":"socket"' in explained[1].replace(" ", "")
    for end in (broker.kill, broker.stop):
        end()
        assert who("tcp", "ipv4") == "web"
        broker.start()
        assert [row["service"] for row in broker.list()] == ["web"]
        assert who("tcp", "ipv4") == "web"
    assert broker.ctl("unload")[0] == 0
    broker.process.wait(broker_module.TIMEOUT)
    assert not os.listdir(broker.bpffs / "dispatch")


def test_a_load_beside_a_broker_that_serves_does_nothing(broker, spawn):
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web"), "tcp", "ipv4")
    before = {name: os.stat(broker.bpffs / "dispatch" / name).st_ino for name in os.listdir(broker.bpffs / "dispatch")}
    done = load(broker)
    assert (done.returncode, done.stdout) == (0, "") and "a broker serves" in done.stderr
    after = {name: os.stat(broker.bpffs / "dispatch" / name).st_ino for name in os.listdir(broker.bpffs / "dispatch")}
    assert after == before
    assert wire.control(broker.control_path, "VERB=version").result == "ok"


def test_an_unload_and_a_load_at_once_leave_what_the_next_start_can_use(broker):
    broker.start()
    broker.stop()
    os.unlink(broker.control_path)  # as where its .socket unit is down
    for _ in range(20):
        with subprocess.Popen([*broker.loader, str(broker.program), *broker.options(), "--load"],
                              stderr=subprocess.PIPE, text=True) as loading:
            unloaded = broker.ctl("--bpffs", str(broker.bpffs), "unload")
            said = loading.communicate(timeout=broker_module.TIMEOUT)[1]
        assert (loading.returncode, unloaded[0]) == (0, 0), (said, unloaded[1])
        again = load(broker)
        assert again.returncode == 0 and "a broker serves" not in again.stderr, again.stderr


def test_an_unload_from_outside_takes_nothing_from_a_broker_whose_socket_is_gone(broker):
    broker.start()
    os.unlink(broker.control_path)
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "unload")
    assert status == 1 and "is in use, by a broker" in said, said
    assert "link" in os.listdir(broker.bpffs / "dispatch")


def test_where_nothing_is_loaded_the_broker_says_what_to_do(broker):
    broker.before = without_capabilities()
    with pytest.raises(RuntimeError, match="no dispatch program is loaded.*sockbrokerd --load"):
        broker.start()


def test_a_load_without_capabilities_says_which_it_misses(broker):
    done = subprocess.run([*without_capabilities(), str(broker.program), *broker.options(), "--load"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "CAP_BPF" in done.stderr, done.stderr


def test_larger_limits_are_made_by_the_load_and_a_load_that_cannot_leaves_those_of_before(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    small = broker.status()[0]["capacity"]["bindings"]
    broker.stop()
    (broker.config / "sockbrokerd.conf").write_text(f"[Broker]\nMaxBindings={small + 1000}\n")
    broker.start()
    assert broker.status()[0]["capacity"]["bindings"] == small + 1000
    broker.stop()
    # The load of another limit has failed, or was never tried.
    (broker.config / "sockbrokerd.conf").write_text(f"[Broker]\nMaxBindings={small + 5000}\n")
    broker.before = without_capabilities()
    broker.start()
    broker.wait_log("the limits of sockbrokerd.conf are above what was loaded")
    assert broker.status()[0]["capacity"]["bindings"] == small + 1000
    assert os.stat(broker.bpffs / "dispatch" / "loaded").st_uid == OWN_UID
