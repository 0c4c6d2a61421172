# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an operator sees where the broker is a unit with a socket that would start it."""
import json
import os
import signal
import subprocess

import pytest

READS = ["status", "list", "bindings", "explain tcp 127.0.0.1 9", "version", "wait web --for=live --timeout=1s"]


def ctl(broker, words):
    done = broker.run(f"sockbrokerctl --json=short {words}", check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize("words", READS)
def test_what_only_reads_never_starts_a_stopped_broker(broker, words):
    broker.run("systemctl stop sockbrokerd.service")
    assert broker.show("sockbrokerd.socket", "ActiveState") == "active", "a connection would start it"
    status, said = ctl(broker, words)
    assert broker.show("sockbrokerd.service", "ActiveState") == "inactive"
    assert status == (0 if words == "list" else 3)
    if words == "status":
        assert said["state"] == "stopped" and said["dispatches"] is True
    elif words not in ("list", READS[-1]):
        assert said["result"] == "stopped" and "is not started" in said["message"]
    broker.run("systemctl start sockbrokerd.service")


def test_what_only_reads_does_not_undo_an_unload_that_has_just_answered(broker):
    for _ in range(10):
        status, said = ctl(broker, "unload && sockbrokerctl --json=short status")
        assert (status, said["state"], said["dispatches"]) == (3, "stopped", False)
        assert broker.show("sockbrokerd.service", "ActiveState") == "inactive"
        broker.run("systemctl start sockbrokerd.service")
    assert ctl(broker, "status")[0] == 0


def test_unload_returns_when_systemd_has_noticed_that_the_broker_ended(broker):
    pid = broker.pid()
    os.kill(broker.leader, signal.SIGSTOP)
    try:
        with broker.start("sockbrokerctl unload") as unload:
            broker.until("the broker's end", lambda: "zombie" in broker.out(f"grep State: /proc/{pid}/status"))
            with pytest.raises(subprocess.TimeoutExpired):
                unload.wait(1)
            os.kill(broker.leader, signal.SIGCONT)
            assert unload.wait(10) == 0
    finally:
        os.kill(broker.leader, signal.SIGCONT)
    assert broker.show("sockbrokerd.service", "ActiveState") == "inactive"


def test_status_and_list_beside_a_broker_that_fails_at_each_start_say_what_the_kernel_does(broker):
    """It does not hang: there is none, as after an upgrade whose broker does not start."""
    broker.example("hello", "hello.service")
    broker.run("systemctl start hello.service && sockbrokerctl wait hello --for=live --timeout=10s")
    broker.drop_in("sockbrokerd.service", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    broker.run("systemctl restart sockbrokerd.service", check=False)
    try:
        for words, wanted in (("status --timeout=2s", 3), ("status hello --timeout=2s", 0)):
            status, said = ctl(broker, words)
            assert (status, said["state"], said["dispatches"]) == (wanted, "stopped", True), said
            assert [row["service"] for row in said["services"]] == ["hello"], said
        done = broker.run("sockbrokerctl status --timeout=2s", check=False)
        assert (done.returncode, "not running, dispatch goes on" in done.stdout) == (3, True), done
        done = broker.run("sockbrokerctl list --json=short --timeout=2s", check=False)
        assert (done.returncode, [row["service"] for row in json.loads(done.stdout)]) == (0, ["hello"]), done
        done = broker.run("sockbrokerctl bindings --timeout=2s", check=False)
        assert (done.returncode, "it fails at each start" in done.stderr) == (1, True), done
    finally:
        broker.run("rm /run/systemd/system/sockbrokerd.service.d/test.conf && systemctl daemon-reload")
        broker.run("systemctl restart sockbrokerd.service")
    assert ctl(broker, "status")[0] == 0


@pytest.mark.parametrize("words", ["", "--load"])
def test_a_broker_that_root_starts_beside_the_unit_by_hand_is_not_told_to_take_its_pins(broker, words):
    for _ in range(2):  # while the unit runs, and after it was stopped
        done = broker.run(f"timeout 10 /usr/lib/sockbroker/sockbrokerd {words}", check=False)
        assert done.returncode == 1 and "start that one (systemctl start sockbrokerd.service)" in done.stderr, done
        assert "chown" not in done.stderr
        broker.run("systemctl stop sockbrokerd.service")
    broker.run("systemctl start sockbrokerd.service && sockbrokerctl status")


@pytest.mark.parametrize("verb, wanted, state_after", [("stop", (3, "stopped"), "inactive"),
                                                       ("restart", (0, "running"), "active")])
def test_what_only_reads_waits_for_a_broker_that_is_being_stopped_and_never_starts_it(broker, verb, wanted,
                                                                                      state_after):
    broker.drop_in("sockbrokerd.service", "[Service]\nExecStop=/bin/sleep 1\n")
    broker.run(f"systemctl {verb} --no-block sockbrokerd.service")
    broker.until("its end to begin", lambda: broker.show("sockbrokerd.service", "ActiveState") == "deactivating")
    status, said = ctl(broker, "status")
    assert (status, said["state"]) == wanted
    broker.until("the job to be over", lambda: "sockbroker" not in broker.out("systemctl list-jobs"))
    assert broker.show("sockbrokerd.service", "ActiveState") == state_after


def test_metrics_are_served_by_a_unit_without_privilege_that_starts_nothing(broker):
    broker.policy("a.conf", "[Service web]\nUnit=web.service\nListenStream=192.0.2.0/24:80\n")
    broker.run("systemctl reload sockbrokerd && systemctl start sockbroker-exporter.socket")
    scrape = "curl -sSf http://127.0.0.1:9818/metrics"
    text = broker.out(scrape)
    assert "\nsockbroker_up 1\n" in text and 'sockbroker_service_bindings{service="web"} 1\n' in text
    broker.run("systemctl stop sockbrokerd.service")
    assert "\nsockbroker_up 0\n" in broker.out(scrape)
    assert broker.show("sockbrokerd.service", "ActiveState") == "inactive"
    broker.run("systemctl start sockbrokerd.service")
    assert "\nsockbroker_up 1\n" in broker.out(scrape)
    pid = broker.show("sockbroker-exporter.service", "MainPID")
    caps = broker.out(f"grep ^Cap /proc/{pid}/status")
    assert {line.split()[1] for line in caps.splitlines()} == {"0" * 16}
    exposure = broker.run("systemd-analyze security --no-pager sockbroker-exporter.service", check=False).stdout
    score = float(exposure.partition("Overall exposure level for sockbroker-exporter.service: ")[2].split()[0])
    assert score <= 1.4, exposure
    broker.run("systemctl stop sockbroker-exporter.socket sockbroker-exporter.service")


def test_the_end_of_the_exporter_leaves_its_socket_to_pid_1(broker):
    both = "sockbroker-exporter.socket sockbroker-exporter.service"
    broker.run(f"systemctl start {both}")
    broker.run("systemctl restart sockbroker-exporter.service && systemctl stop sockbroker-exporter.service")
    assert broker.show("sockbroker-exporter.socket", "Result") == "success"
    assert "\nsockbroker_up 1\n" in broker.out("curl -sSf http://127.0.0.1:9818/metrics"), "the service starts anew"
    broker.run(f"systemctl stop {both}")


def test_list_and_status_have_the_state_of_the_service_behind_a_socket_unit(broker):
    broker.example("resolver", "resolver.socket", "resolver.service", "resolver-register.service")
    broker.run("systemctl start resolver.socket")
    broker.until_registered("resolver", 4)
    def behind():
        service = [one for one in ctl(broker, "status")[1]["services"] if one["service"] == "resolver"][0]
        rows = {(row["triggers"], row["triggers_state"]) for row in ctl(broker, "list resolver")[1]}
        assert rows == {(service["triggers"], service["triggers_state"])}
        return service["triggers"], service["triggers_state"]
    assert behind() == ("resolver.service", "inactive"), "nobody has asked it yet"
    broker.run("systemctl start resolver.service")
    assert behind() == ("resolver.service", "active")
    assert " resolver.service (active) " in broker.out("sockbrokerctl list resolver")
    broker.run("systemctl kill --signal=KILL resolver.service", check=False)
    broker.run("systemctl stop resolver.service; mkdir -p /run/systemd/system/resolver.service.d && "
               "printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\nRestart=no\\n' "
               ">/run/systemd/system/resolver.service.d/x.conf; "
               "systemctl daemon-reload; ! systemctl start resolver.service || true")
    broker.until("it has failed", lambda: broker.show("resolver.service", "ActiveState") == "failed")
    assert behind() == ("resolver.service", "failed")
    assert "resolver.service, which is to answer, has failed" in broker.out("sockbrokerctl status")
    broker.run("rm -r /run/systemd/system/resolver.service.d; systemctl daemon-reload; systemctl reset-failed")


def test_verify_and_reload_name_the_unit_where_the_policy_has_an_alias_of_it(broker):
    """As bind9.service is one of named.service: nobody could ever register, and nothing else would say so."""
    broker.unit("real@.service", "[Service]\nExecStart=/bin/true\n")
    folder = "/etc/systemd/system"
    broker.run(f"ln -s {folder}/real@.service {folder}/other@.service && systemctl daemon-reload")
    try:
        broker.policy("alias.conf", "[Service web]\nUnit=other@1.service\nListenStream=192.0.2.0/24:80\n")
        said = ("/etc/sockbroker/conf.d/alias.conf:2: warning: Unit=: other@1.service is another name of "
                "real@1.service on this host, and a process runs in real@1.service alone, so nobody can register for "
                "service web: write real@1.service")
        assert said in broker.out("sockbrokerctl verify").splitlines()
        assert said in broker.out("setpriv --reuid=nobody --clear-groups sockbrokerctl verify").splitlines()
        assert said in broker.run("sockbrokerctl reload").stderr.splitlines()
        broker.policy("alias.conf", "[Service web]\nUnit=real@1.service\nListenStream=192.0.2.0/24:80\n")
        assert "Unit=" not in broker.out("sockbrokerctl verify")
    finally:
        broker.run("rm /etc/systemd/system/other@.service; systemctl daemon-reload")
        broker.policy("alias.conf", None)


@pytest.mark.parametrize("admitted", [True, False])
def test_journalctl_of_a_unit_shows_the_verdict_that_sockbroker_run_was_given(broker, admitted):
    """Its own standard error is the one way into `journalctl -u` that asks for no root in the broker."""
    unit = "verdict.service" if admitted else "another.service"
    broker.policy("verdict.conf", f"[Service verdict]\nUnit={unit}\nListenStream=192.0.2.0/24:80\n")
    broker.run("systemctl reload sockbrokerd")
    broker.unit("verdict.service", "[Service]\nType=oneshot\nDynamicUser=yes\nExecStart=/usr/bin/sockbroker-run "
                "--service=verdict --listen-stream=127.0.0.1:0 /bin/true\n")
    cursor = broker.cursor()
    assert (broker.run("systemctl start verdict.service", check=False).returncode == 0) == admitted
    broker.run("journalctl --sync")
    said = broker.out(f"journalctl -o cat -u verdict.service --after-cursor='{cursor}'")
    assert ("sockbroker-run: verdict: 1 socket registered" if admitted else
            "sockbroker-run: verdict: not-permitted: not admitted to service verdict: Unit=another.service at "
            ) in said, said
    broker.run("systemctl reset-failed", check=False)
    broker.policy("verdict.conf", None)
