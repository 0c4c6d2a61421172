# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an operator sees of the broker: running, stopped, hung, unloaded; sockets with their queues."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest

from harness import broker as broker_module
from harness import client, pins
from harness.until import until
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, refused, section


def told(broker, *arguments):
    """Status, the value that --json prints."""
    done = subprocess.run([broker_module.BUILD / "sockbrokerctl", "--runtime-dir", broker.runtime, "--bpffs",
                           broker.bpffs, "--json=short", *arguments], capture_output=True, text=True, timeout=60,
                          check=False)
    return done.returncode, json.loads(done.stdout)


def as_nobody():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def test_status_tells_a_stopped_broker_from_an_unloaded_one(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere()) + section("dns", 61002, everywhere(9))).start()
    one = spawn("web", 61001)
    cookie = handed_over(one, "tcp", "ipv4")
    newest = handed_over(one, "tcp", "ipv4", label="newer")
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    running = told(broker, "status")
    listed = told(broker, "list")
    broker.stop()
    status, said = told(broker, "status")
    assert status == 3 and said["state"] == "stopped" and said["dispatches"] is True
    of_policy = ("bindings", "announced", "drained", "bindings_without_socket")
    counted = [{name: value for name, value in row.items() if name not in of_policy} for row in running[1]["services"]]
    assert said["services"] == counted, "as the broker counted them"
    assert said["services"][1]["live"] == said["services"][1]["draining"] == 1
    assert told(broker, "status", "web")[0] == 0, "it serves, whoever runs"
    assert told(broker, "status", "dns")[0] == 3
    assert told(broker, "status", "none")[0] == 4
    status, rows = told(broker, "list")
    assert status == 0 and {(row["cookie"], row["state"]) for row in rows} == {(cookie, "draining"), (newest, "live")}
    def drop_queue(row):
        return {key: value for key, value in row.items() if not key.startswith("queue")}
    assert sorted(map(str, map(drop_queue, rows))) == sorted(map(str, map(drop_queue, listed[1])))
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    status, text = broker.ctl("--bpffs", str(broker.bpffs), "unload")
    assert status == 0, text
    status, said = told(broker, "status")
    assert status == 3 and said["dispatches"] is False and said["reason"] == "unloaded: nothing is dispatched"
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "status", "web")
    assert status == 3 and "nothing serves: unloaded" in said and "no policy names" not in said
    assert told(broker, "status", "web")[0] == 3
    assert told(broker, "list") == (3, told(broker, "list")[1]) and told(broker, "list")[1]["result"] == "unreachable"
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "list")
    assert status == 3 and "unloaded: nothing is dispatched" in said


def test_an_unload_where_nothing_was_ever_pinned_is_done_and_says_so(broker):
    """As on a machine that has booted since with the broker disabled: removing the package unloads there too."""
    where = "--bpffs", str(broker.bpffs / "none"), "unload"
    assert broker.ctl(*where) == (0, f"sockbrokerctl: nothing is pinned in {broker.bpffs}/none/dispatch, so nothing "
                                  "is dispatched by it\n")
    assert broker.ctl("--quiet", *where) == (0, "")


def lose_netns_of(broker):
    """A broker serves a network namespace that then goes, with all its processes; its pins stay."""
    command = [broker_module.BUILD / "sockbrokerd", "--load", *broker.options()]
    subprocess.run(["unshare", "--net", *command], check=True, timeout=60, capture_output=True)
    until("the namespace is gone", lambda: pins.netns_of_link(broker.bpffs / "dispatch") == 0)


@pytest.mark.parametrize("how", ["detached", "netns-gone"])
def test_status_says_of_a_link_that_is_attached_to_nothing_that_nothing_is_dispatched(broker, spawn, how):
    """And the next broker attaches it again, with what the pins have."""
    add_routes()
    broker.policy(section("web", 61001, everywhere()))
    if how == "netns-gone":
        lose_netns_of(broker)
    else:
        broker.start()
        handed_over(spawn("web", 61001), "tcp", "ipv4")
        broker.stop()
        pins.detach_link(broker.bpffs / "dispatch")
        with refused():
            client.ask("tcp", ADDRESS["ipv4"], PORT)
    why = "detached: nothing is dispatched until a broker starts"
    status, said = told(broker, "status")
    assert status == 3 and said["dispatches"] is False and said["reason"] == why and said["services"] == []
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "status", "web")
    assert status == 3 and f"nothing serves: {why}" in said
    status, said = broker.ctl("--bpffs", str(broker.bpffs), "list")
    assert status == 3 and why in said and "goes on" not in said
    broker.start()
    assert pins.netns_of_link(broker.bpffs / "dispatch") == os.stat("/proc/self/ns/net").st_ino
    if how == "netns-gone":
        handed_over(spawn("web", 61001), "tcp", "ipv4")
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    broker.stop()
    assert told(broker, "status")[1]["dispatches"] is True


def test_a_running_broker_whose_program_is_detached_says_so_everywhere_and_a_restart_mends_it(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    status, said = told(broker, "status")
    assert status == 0 and said["state"] == "running" and said["dispatches"] is True and said["degraded_since"] is None
    before = time.time_ns() // 1000
    pins.detach_link(broker.bpffs / "dispatch")
    with refused():
        client.ask("tcp", ADDRESS["ipv4"], PORT)
    broker.wait_log("nothing is dispatched: .*restart sockbrokerd")  # without being asked
    status, said = told(broker, "status")
    assert status == 1 and said["state"] == "degraded" and said["dispatches"] is False
    assert "systemctl restart sockbrokerd" in said["reason"]
    assert before < said["degraded_since"] < time.time_ns() // 1000
    assert told(broker, "status", "web")[0] == 3, "it has a socket, and serves nobody"
    explained = told(broker, "explain", "tcp", ADDRESS["ipv4"], str(PORT))[1]
    assert any("nothing is dispatched" in note for note in explained["notes"])
    assert "sockbroker_dispatches 0\n" in broker.ctl("metrics")[1]
    broker.policy("nonsense")
    assert broker.reload()[0] == 1
    reason = told(broker, "status")[1]["reason"]
    assert "nothing is dispatched" in reason and "50-test.conf" in reason
    broker.policy(section("web", 61001, everywhere()))
    assert broker.reload()[0] == 0
    assert told(broker, "status")[1]["state"] == "degraded", "no policy mends it"
    assert len(broker.log().split("nothing is dispatched: ")) == 2, "said once"
    broker.stop()
    broker.start()
    assert told(broker, "status")[1]["dispatches"] is True
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    assert "sockbroker_dispatches 1\n" in broker.ctl("metrics")[1]


def test_a_running_broker_whose_pins_are_removed_says_that_dispatch_ends_with_it(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    for pin in (broker.bpffs / "dispatch").iterdir():
        pin.unlink()
    broker.wait_log("removed the pins in .*/dispatch, so dispatch ends with this broker")  # without being asked
    status, said = told(broker, "status")
    assert status == 1 and said["state"] == "degraded" and said["dispatches"] is True
    assert "removed the pins in" in said["reason"]
    assert told(broker, "status", "web")[0] == 0, "it serves"
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    assert broker.reload()[0] == 0
    broker.stop()
    with refused():
        client.ask("tcp", ADDRESS["ipv4"], PORT)
    broker.start()
    assert told(broker, "status")[1]["state"] == "running"


def test_unload_ends_dispatch_where_the_directory_of_pins_was_removed(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    shutil.rmtree(broker.bpffs / "dispatch")
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    status, said = broker.ctl("unload")
    assert status == 0, said
    with refused():
        client.ask("tcp", ADDRESS["ipv4"], PORT)


def told_nobody(broker, *arguments):
    """Of one who is not root: status, and all that was said."""
    with open(broker_module.BUILD / "sockbrokerctl", "rb") as program:
        done = subprocess.run([f"/proc/self/fd/{program.fileno()}", "--runtime-dir", broker.runtime, "--bpffs",
                               broker.bpffs, *arguments], pass_fds=[program.fileno()], preexec_fn=as_nobody,
                              capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_others_than_root_are_told_that_they_cannot_know(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    broker.stop()
    status, said = told_nobody(broker, "status")
    assert status == 3 and "not running, whether dispatch goes on only root can see" in said
    assert "listed" not in said, "how many services there are is not known either"
    status, said = told_nobody(broker, "list")
    assert status == 3 and "only root can see" in said
    status, said = told_nobody(broker, "status", "web")
    assert status == 3 and "only root can see" in said and "no policy names" not in said
    assert told(broker, "status", "none")[0] == 4


def test_status_of_a_degraded_broker_is_1(broker):
    broker.policy("").start()
    assert broker.ctl("status")[0] == 0
    broker.policy("[Service web]\nFrob=1\n")
    assert broker.reload()[0] == 1
    assert told(broker, "status")[0] == 1


def test_a_stopped_process_is_a_hang_and_says_so(broker):
    broker.policy("").start()
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        status, said = told(broker, "list", "--timeout=1s")
        assert status == 1 and said["result"] == "no-answer" and "does not answer" in said["message"]
        started = time.monotonic()
        assert broker.ctl("unload", "--timeout=1s")[0] == 1
        assert time.monotonic() - started < 20
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


def test_status_says_of_a_broker_that_hangs_whether_dispatch_goes_on(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    os.kill(broker.process.pid, signal.SIGSTOP)
    try:
        assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
        status, said = broker.ctl("--bpffs", str(broker.bpffs), "status", "--timeout=1s")
        assert status == 1 and "does not answer, dispatch goes on with the last rules and sockets\n" in said
        assert "\nweb           1       1 " in said
        status, said = told(broker, "status", "--timeout=1s")
        assert status == 1 and said["result"] == "no-answer"
    finally:
        os.kill(broker.process.pid, signal.SIGCONT)


def test_status_has_columns_for_held_and_draining_sockets_where_there_are_any(broker, spawn):
    broker.policy(section("web", 61001, everywhere(), "HoldSec=1min")).start()
    assert broker.ctl("status", "web")[1].startswith("SERVICE SOCKETS LOOKUPS ")
    one = spawn("web", 61001)
    handed_over(one, "tcp", "ipv4")
    handed_over(one, "tcp", "ipv4", label="newer")
    status, said = broker.ctl("status", "web")
    assert status == 0 and said.startswith("SERVICE SOCKETS DRAINING LOOKUPS ")
    assert "\nweb           2        1 " in said
    one.kill()
    until("held", lambda: broker.ctl("status", "web")[1].startswith("SERVICE SOCKETS HELD LOOKUPS "))
    status, said = broker.ctl("status", "web")
    assert status == 3 and "\nweb           1    1 " in said


def test_json_of_status_says_on_standard_error_what_no_policy_has(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    done = subprocess.run([broker_module.BUILD / "sockbrokerctl", "--runtime-dir", broker.runtime, "--json=short",
                           "status", "web", "none"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4 and [row["service"] for row in json.loads(done.stdout)["services"]] == ["web"]
    assert done.stderr == 'sockbrokerctl: no policy names a service "none"\n'


def test_a_prefix_with_a_slip_in_it_is_no_service_that_policy_lacks(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    for slip in "192.0.2.0/33", "2001:db8:::1", "[2001:db8::]/129", "192.0.2.0/24:80":
        status, said = broker.ctl("bindings", slip)
        assert status == 2 and said == f'sockbrokerctl: "{slip}" is no service, no address and no prefix\n'
    for good in "192.0.2.0/24", "2001:db8::1", "[2001:db8::]/64", "[[:alpha:]]eb", "w*":
        assert broker.ctl("bindings", good)[0] == 0, good


@pytest.mark.parametrize("asked, ports", [
    ("127.0.0.1", ["84"]), ("127.0.0.0/8", ["84"]), ("::1", ["85"]), ("126.0.0.0/7", ["81", "82", "84", "88"]),
    ("0.0.0.0/0", ["81", "82", "84", "88"]), ("::/0", ["81", "83", "85"]), ("10.1.2.3", ["81", "82", "88"]),
    ("2001:db8::1", ["81", "83"]),
])
def test_bindings_of_an_address_are_those_that_cover_it(broker, asked, ports):
    """Short prefixes and ports alone cover no loopback address, and with Source= of one family nothing of the other."""
    broker.policy(section("web", 61001, "ListenStream=81", "ListenStream=0.0.0.0/1:82", "ListenStream=[::]/0:83",
                          "ListenStream=127.0.0.0/8:84", "ListenStream=[::1]:85") +
                  section("near", 61001, "ListenStream=88", "Source=10.0.0.0/8")).start()
    status, rows = told(broker, "bindings", asked)
    assert (status, sorted(row["ports"] for row in rows)) == (0, ports)
    shown = broker.ctl("--no-legend", "bindings", asked)[1].splitlines()
    assert sorted(line.split()[3] for line in shown) == ports


def test_nothing_that_a_terminal_obeys_comes_out_of_a_policy_file(broker):
    broker.policy("# \u009b31m red \x1b[0m \u202eback\tt\u00fc\r\n\n[Service web]\n")
    status, said = broker.ctl("--config-dir", str(broker.config), "cat")
    assert status == 0 and said.partition("\n")[2] == (
        "# \\xc2\\x9b31m red \\x1b[0m \\xe2\\x80\\xaeback\tt\u00fc\\x0d\n\n[Service web]\n")


def test_list_has_the_accept_queue_and_its_limit(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    one = spawn("web", 61001)
    handed_over(one, "tcp", "ipv4")
    row = told(broker, "list", "web")[1][0]
    assert row["queue"] == 0 and row["queue_limit"] > 0 and row["drops"] == 0
    os.kill(one.pid, signal.SIGSTOP)
    waiting = []
    for _ in range(3):
        waiting.append(socket.create_connection((ADDRESS["ipv4"], PORT), timeout=20))
    row = told(broker, "list", "web")[1][0]
    assert row["queue"] == 3
    status, text = broker.ctl("list", "--no-legend", "w*")
    assert status == 0 and f" 3/{row['queue_limit']} " in text
    os.kill(one.pid, signal.SIGCONT)
    for connection in waiting:
        connection.close()


def test_list_has_the_datagrams_that_a_udp_socket_dropped(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    one = spawn("web", 61001)
    handed_over(one, "udp", "ipv4")
    assert told(broker, "list")[1][0]["drops"] == 0
    os.kill(one.pid, signal.SIGSTOP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(4000):  # more than a default buffer holds
            sock.sendto(b"x" * 1000, (ADDRESS["ipv4"], PORT))
    row = told(broker, "list")[1][0]
    os.kill(one.pid, signal.SIGCONT)
    assert row["queue"] > 0 and row["drops"] > 0 and row["queue_limit"] is None


@pytest.mark.parametrize("program", ("sockbrokerctl", "sockbrokerd", "sockbroker-run", "sockbroker-routes",
                                     "sockbroker-exporter"))
def test_no_program_ends_because_standard_error_cannot_be_written(program):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([broker_module.BUILD / program, "--frob"], stderr=full, timeout=60, check=False)
    assert done.returncode in (2, 64), "as for any command line that is wrong"


def test_the_exit_status_is_the_same_where_standard_error_cannot_be_written(broker):
    broker.policy("").start()
    broker.policy("nonsense\n")
    tool = [broker_module.BUILD / "sockbrokerctl", "--runtime-dir", broker.runtime]
    with open("/dev/full", "wb") as full:
        for words, status in (["reload"], 1), (["diff"], 1), (["list", "none"], 4), (["frob"], 2):
            assert subprocess.run([*tool, *words], stderr=full, timeout=60, check=False).returncode == status, words


def test_nothing_is_printed_into_the_brokers_socket_where_standard_output_is_closed(broker):
    """The lowest free descriptor would be that of the connection."""
    bindings = "".join(f"ListenStream=192.0.2.{n}/32:80\n" for n in range(256))
    broker.policy("[Service web]\nUser=61001\n" + bindings).start()
    for verb in (["bindings"], ["bindings", "--json=short"], ["status"], ["--version"]):
        done = subprocess.run(["bash", "-c", 'exec "$@" >&-', "-", broker_module.BUILD / "sockbrokerctl",
                               "--runtime-dir", broker.runtime, *verb], stderr=subprocess.PIPE, text=True, timeout=20,
                              check=False)
        assert done.returncode == 1 and "cannot write to standard output" in done.stderr, verb
    assert broker.status()[0]["refused"] == 0
