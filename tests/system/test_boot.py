# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a first boot makes of the installed files, before and without any service."""
import os
import re

import pytest

from conftest import EXAMPLES
from harness import long



def test_units_pass_systemd_analyze_verify_without_a_word(broker):
    """The manual pages that they name, and the programs that they start, included."""
    examples = broker.out(f"cd {EXAMPLES} && ls *.service *.socket").split()
    units = [unit.replace("@.", "@edge.") for unit in examples]
    broker.run(f"cp {EXAMPLES}/*.service {EXAMPLES}/*.socket /run/systemd/system/")
    # its package's, and this /etc began empty
    broker.write("/etc/manpath.config", "MANDATORY_MANPATH /usr/share/man\n")
    try:
        done = broker.run("systemd-analyze verify sockbrokerd.service sockbrokerd.socket sockbrokerd@edge.service "
                          f"sockbrokerd@edge.socket sockbrokerd-load.service sockbrokerd-load@edge.service "
                          f"sockbrokerd-links.socket sockbrokerd-links@edge.service sockbrokerd-tubular.socket "
                          f"sockbrokerd-tubular@edge.socket run-sockbroker-bpf.mount {' '.join(units)}")
    finally:
        broker.run(f"cd /run/systemd/system && rm -f {' '.join(examples)}")
    assert done.stdout + done.stderr == ""


def test_presets_enable_the_broker_and_the_first_boot_starts_it(broker):
    assert broker.out("systemctl is-enabled sockbrokerd.socket sockbrokerd.service").split() == ["enabled"] * 2
    assert broker.out("systemctl is-active sockbrokerd.socket sockbrokerd.service run-sockbroker-bpf.mount"
                      ).split() == ["active"] * 3
    assert broker.show("sockbrokerd", "NRestarts") == "0"
    assert broker.status()["state"] == "running"


def test_places_belong_to_root_and_only_the_pins_to_the_broker(broker):
    places = broker.out("stat -c '%n %A %U:%G' /run/sockbroker /run/sockbroker/notify /run/sockbroker/control "
                        "/run/sockbroker/bpf /run/sockbroker/bpf/dispatch /var/lib/sockbroker")
    assert places.splitlines() == [
        "/run/sockbroker drwxr-xr-x root:root",
        "/run/sockbroker/notify srw-rw-rw- root:root",
        "/run/sockbroker/control srw-rw-rw- root:root",
        "/run/sockbroker/bpf drwxr-xr-t root:root",
        "/run/sockbroker/bpf/dispatch drwx------ sockbroker:sockbroker",
        "/var/lib/sockbroker drwx------ sockbroker:sockbroker",
    ]
    assert broker.out("stat -f -c %T /run/sockbroker/bpf/dispatch") == "bpf_fs"
    assert broker.run("setpriv --reuid=61001 --regid=61001 --clear-groups ls /run/sockbroker/bpf/dispatch",
                      check=False).returncode != 0


def test_after_start_the_broker_is_its_own_user_and_has_no_capability(broker):
    status = dict(re.findall(r"^(\w+):\s*(.*)$", broker.out(f"cat /proc/{broker.pid()}/status"), re.M))
    uid = broker.out("id -u sockbroker")
    assert status["Uid"].split() == [uid] * 4 and uid != "0"
    assert status["Gid"].split() == [broker.out("id -g sockbroker")] * 4
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {
        "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0}
    assert int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    # Capabilities are a thread's: none may have kept any.
    threads = broker.out(f"grep -h CapEff /proc/{broker.pid()}/task/*/status").split()[1::2]
    assert all(int(thread, 16) == 0 for thread in threads)


def test_the_broker_has_no_capability_from_its_exec_on(broker):
    """Not only once it serves: what the unit would start in its place has none, in any of the five sets."""
    broker.drop_in("sockbrokerd.service", "[Service]\nExecStartPre=/usr/bin/grep -H ^Cap /proc/self/status\n")
    cursor = broker.cursor()
    broker.run("systemctl restart sockbrokerd")
    told = [entry["MESSAGE"]
            for entry in broker.entries(cursor, "_SYSTEMD_UNIT=sockbrokerd.service", "SYSLOG_IDENTIFIER=grep", least=5)]
    assert sorted(told) == [f"/proc/self/status:{name}:\t{0:016x}"
                            for name in ("CapAmb", "CapBnd", "CapEff", "CapInh", "CapPrm")]
    assert broker.status()["state"] == "running"


EXPOSURE = {"sockbrokerd": 0.8, "sockbrokerd-links": 1.0, "sockbrokerd-load": 1.2, "sockbroker-routes": 1.2,
            "sockbroker-exporter": 1.1}


@pytest.mark.skipif("SOCKBROKER_TRIAL" in os.environ, reason="a trial of the filter relaxes the unit")
@pytest.mark.parametrize("unit", long.some(
    [f"{name}{at}.service" for name in EXPOSURE for at in ("", "@") if name + at != "sockbroker-exporter@"],
    *(f"{name}.service" for name in EXPOSURE)))  # a template says what its unit says
def test_exposure_is_no_more_than_the_documents_say(broker, unit):
    said = broker.out(f"systemd-analyze security --offline=true /usr/lib/systemd/system/{unit}")
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", said).group(1)
    assert float(exposure) <= EXPOSURE[unit.removesuffix(".service").removesuffix("@")], said


def test_each_start_of_the_broker_loads_anew_and_a_load_beside_it_does_nothing(broker):
    def pins():
        return broker.out("ls -i /run/sockbroker/bpf/dispatch")
    cursor = broker.cursor()
    before = pins()
    pid = broker.pid()
    broker.run("systemctl start sockbrokerd-load.service")
    broker.entries(cursor, "_SYSTEMD_UNIT=sockbrokerd-load.service")
    assert (pins(), broker.pid()) == (before, pid)
    broker.run("systemctl restart sockbrokerd")
    assert pins() != before and broker.show("sockbrokerd-load", "Result") == "success"
    before = pins()
    broker.run("systemctl kill -s KILL sockbrokerd")
    broker.until("the next broker", lambda: broker.pid() not in (0, pid) and broker.show(
        "sockbrokerd", "ActiveState") == "active")
    assert pins() != before
    assert broker.show("sockbrokerd-load", "ActiveState") == "inactive"


def test_a_broker_whose_load_fails_says_so_and_comes_when_it_succeeds(broker):
    broker.run("systemctl stop sockbrokerd.service && sockbrokerctl --timeout=30s unload")
    broker.drop_in("sockbrokerd-load.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    cursor = broker.cursor()
    broker.run("systemctl start sockbrokerd.service", check=False)
    told = broker.entries(cursor, "_SYSTEMD_UNIT=sockbrokerd.service")[0]["MESSAGE"]
    assert "no dispatch program is loaded" in told and "systemctl restart sockbrokerd" in told
    assert broker.show("sockbrokerd.socket", "ActiveState") == "active", "messages wait"
    broker.run("rm /run/systemd/system/sockbrokerd-load.service.d/test.conf && systemctl daemon-reload")
    broker.until("the broker", lambda: broker.show("sockbrokerd", "ActiveState") == "active")
    assert broker.status()["state"] == "running"


def test_each_message_id_has_its_text_in_the_installed_catalog(broker, message_ids):
    assert len(message_ids) >= 13
    for action, match in message_ids.items():
        text = broker.out(f"journalctl --dump-catalog {match.removeprefix('MESSAGE_ID=')}")
        assert "Defined-By: sockbroker" in text and len(text.splitlines()) > 4, action


def test_the_bpf_mount_cannot_be_stopped_by_mistake(broker):
    assert broker.run("systemctl stop run-sockbroker-bpf.mount", check=False).returncode != 0
    assert broker.show("run-sockbroker-bpf.mount", "ActiveState") == "active"


def test_a_stop_of_the_socket_unit_stops_the_broker_and_removes_the_nodes(broker):
    broker.run("systemctl stop sockbrokerd.socket")
    assert broker.run("systemctl is-active sockbrokerd.service", check=False).stdout == "inactive\n"
    assert broker.run("ls /run/sockbroker/notify /run/sockbroker/control", check=False).stdout == ""
    broker.run("systemctl start sockbrokerd.service")
    assert broker.status()["state"] == "running", "the service brings its socket unit back"


def test_watchdog_replaces_a_broker_that_hangs(broker):
    broker.drop_in("sockbrokerd.service", "[Service]\nWatchdogSec=3s\nWatchdogSignal=SIGKILL\n")
    broker.run("systemctl restart sockbrokerd")
    hung = broker.pid()
    broker.run(f"kill -STOP {hung}")
    broker.until("another broker", lambda: broker.pid() not in (0, hung) and broker.show(
        "sockbrokerd", "ActiveState") == "active")
    assert broker.status()["state"] == "running"


def test_a_socket_unit_may_ask_the_broker_while_it_is_started_at_boot(broker):
    """As ExecStartPost=sockbrokerctl register does from systemd 256 on: sockets.target waits for that answer."""
    assert broker.show("early.socket", "Result") == "success"
    assert broker.show("early.socket", "ActiveState") == "active"
    assert "RESULT=ok" in broker.out("journalctl -q -o cat _SYSTEMD_UNIT=early.socket")


def test_pins_can_be_made_though_run_is_read_only_for_the_broker(broker):
    """As ProtectSystem=strict makes it. In a container the two options below undo that for /run, so they are off."""
    for unit in ("sockbrokerd.service", "sockbrokerd-load.service"):
        broker.drop_in(unit, "[Service]\nProtectControlGroups=no\nProtectKernelTunables=no\n")
    broker.run("systemctl stop sockbrokerd.socket sockbrokerd.service && sockbrokerctl unload")
    broker.run("systemctl start sockbrokerd.service", check=False)
    mounts = {line.split()[4]: line.split()[5].split(",")[0]
              for line in broker.out(f"cat /proc/{broker.pid() or 'self'}/mountinfo").splitlines()}
    assert (mounts["/run"], mounts["/run/sockbroker/bpf"]) == ("ro", "ro")
    assert broker.status()["state"] == "running"
    assert broker.out("ls /run/sockbroker/bpf/dispatch") != ""
