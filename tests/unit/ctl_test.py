# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl from outside: its command line, a broker that is not there or hangs, and the verbs wait and reload."""

import json
import os
import socket
import time

import pytest

from support.tool import OK, ROW, Peer, ctl, rows


# The command line


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["frob"], "unknown verb frob, see sockbrokerctl --help"),
        (["reload", "dns"], "too many arguments, write: sockbrokerctl reload"),
        (["unregister"], "too few arguments, write: sockbrokerctl unregister SERVICE"),
        (["register", "a", "b"], "too many arguments, write: sockbrokerctl register [SERVICE]"),
        (["unregister", "a/b"], '"a/b" cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -'),
        (["unregister", ""], "the name of the service is empty"),
        (["list", "--json=long"], 'cannot print JSON as "long", write --json=short, pretty or off'),
        (["--frob", "list"], "option --frob is unknown, ambiguous, or takes no value, see --help"),
    ],
)
def test_usage_errors_have_a_status_of_their_own(arguments, message):
    done = ctl(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"sockbrokerctl: {message}\n")


@pytest.mark.parametrize(
    "arguments, status, result",
    [
        (["--frob", "list"], 2, "failed"),
        (["list", "--timeout=soon"], 2, "failed"),
        (["frob"], 2, "failed"),
        (["unregister"], 2, "failed"),
        (["cat", "none"], 1, "unknown-service"),
        (["verify", "--config-dir=/nowhere"], 1, "failed"),
        (["cat", "--config-dir=/nowhere"], 1, "failed"),
        (["import", "tubular", "/nowhere"], 1, "failed"),
        (["wait", "dns", "--for=live", "--timeout=50ms"], 3, "unreachable"),
    ],
)
@pytest.mark.parametrize("mode", [["--json=short"], ["--json", "pretty"]], ids=" ".join)
def test_with_json_a_failure_is_an_object_whatever_failed(mode, arguments, status, result, tmp_path):
    done = ctl("--runtime-dir", tmp_path, "--config-dir", tmp_path, *arguments, *mode)
    said = json.loads(done.stdout)
    assert (done.returncode, list(said), said["result"]) == (status, ["result", "errno", "message"], result)
    assert f"sockbrokerctl: {said['message']}" in done.stderr


def test_with_json_cat_prints_an_object_where_no_file_can_be_read(tmp_path):
    (tmp_path / "conf.d").mkdir()
    link = tmp_path / "conf.d/10-link.conf"
    link.symlink_to("nowhere")
    said = ctl("cat", "--json=short", "--config-dir", tmp_path)
    failure = json.loads(said.stdout)
    assert (said.returncode, list(failure), failure["result"]) == (1, ["result", "errno", "message"], "failed")
    assert failure["message"].startswith(f"{link}: ")
    (tmp_path / "conf.d/20-web.conf").write_text("[Service web]\n")
    said = ctl("cat", "--json=short", "--config-dir", tmp_path)
    assert (said.returncode, [row["text"] for row in json.loads(said.stdout)]) == (1, ["[Service web]\n"])
    assert failure["message"] in said.stderr


def test_a_file_that_cannot_be_read_is_named():
    done = ctl("import", "tubular", "/nowhere/bindings.json")
    assert (done.returncode, done.stdout) == (1, "") and "/nowhere/bindings.json: " in done.stderr


def test_version_option_asks_nobody(tmp_path):
    done = ctl("--version", "--runtime-dir", tmp_path)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "sockbrokerctl", "")


# No broker


@pytest.mark.parametrize("verb", [["status"], ["list"], ["bindings"], ["unregister", "dns"], ["reload"], ["version"]])
@pytest.mark.parametrize("state", ["missing", "refusing"])
def test_an_unreachable_broker_names_the_socket_and_the_remedy(verb, state, tmp_path):
    if state == "refusing":
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stale:
            stale.bind(str(tmp_path / "control"))
    done = ctl(*verb, "--json=short", "--runtime-dir", tmp_path)
    assert done.returncode == 3
    said = json.loads(done.stdout)
    if verb == ["status"]:
        assert said["state"] == "stopped" and "dispatches" in said and said["services"] == []
    else:
        assert said["result"] == "unreachable" and said["errno"] == (2 if state == "missing" else 111)
        assert f"{tmp_path}/control" in said["message"]
    assert f"{tmp_path}/control" in done.stderr
    assert f"start sockbrokerd with --runtime-dir {tmp_path}" in done.stderr


def test_the_remedy_for_the_usual_socket_is_systemctl():
    if os.path.exists("/run/sockbroker/control"):
        pytest.skip("a broker is installed here")
    done = ctl("status")
    assert done.returncode == 3
    assert "/run/sockbroker/control" in done.stderr
    assert "systemctl start sockbrokerd.socket" in done.stderr


@pytest.mark.parametrize("verb", [["status"], ["list"], ["bindings"], ["version"], ["reload"], ["unregister", "dns"],
                                  ["explain", "tcp", "1.0.0.1", "80"], ["diff"], ["drain", "dns"], ["undrain", "dns"],
                                  ["unload"], ["retrieve", "dns", "--", "/bin/true"]])
@pytest.mark.parametrize("backlog", [1, 0], ids=["takes connections", "takes none"])
def test_a_broker_that_hangs_is_an_error_within_five_seconds(verb, backlog, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hung:
        hung.bind(str(tmp_path / "control"))
        hung.listen(backlog)
        others = []
        while not backlog and len(others) < 4:  # the queue is full
            others.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            others[-1].setblocking(False)
            if others[-1].connect_ex(str(tmp_path / "control")) != 0:
                break
        begun = time.monotonic()
        done = ctl("--json=short", "--timeout=300ms", "--runtime-dir", tmp_path, *verb)
        assert time.monotonic() - begun < 4.5, "five seconds are the default"
        assert done.returncode == 1 and "does not answer" in done.stderr
        assert json.loads(done.stdout)["result"] == "no-answer" and "does not answer" in json.loads(
            done.stdout)["message"]
        for other in others:
            other.close()


def test_five_seconds_is_the_default(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hung:
        hung.bind(str(tmp_path / "control"))
        hung.listen()
        begun = time.monotonic()
        assert ctl("list", "--runtime-dir", tmp_path).returncode == 1
        assert 4.5 < time.monotonic() - begun < 15


# wait


def test_wait_wants_to_know_for_what_and_how_long(tmp_path):
    for arguments, said in (
        (["wait", "web"], "wait for what? write --for=live or --for=drained"),
        (["wait"], "too few arguments, write: sockbrokerctl wait SERVICE"),
        (["wait", "web", "--for=held"], 'cannot wait for "held", write --for=live or --for=drained'),
        (["wait", "web", "--for=live", "--timeout=soon"], '"soon" is no time span, write for example 30s, 2min or '
                                                          '500ms'),
        (["wait", "no/name", "--for=live"], "no/name"),
    ):
        done = ctl(*arguments, "--runtime-dir", tmp_path)
        assert (done.returncode, done.stdout) == (2, "") and said in done.stderr, arguments


def test_wait_for_a_broker_that_never_comes_ends_when_its_time_is_over(tmp_path):
    done = ctl("wait", "web", "--for=drained", "--timeout=150ms", "--runtime-dir", tmp_path)
    assert (done.returncode, done.stdout) == (3, "") and "timed out: cannot connect to " in done.stderr


def test_wait_takes_each_service_for_itself_and_only_what_is_live(tmp_path):
    states = [("dns", "draining"), ("dns-two", "live"), ("dns", "held")]
    Peer(tmp_path, lambda _: [rows(*[{**ROW, "service": name, "state": state} for name, state in states]), OK])
    done = ctl("wait", "dns", "--for=live", "--timeout=0", "--runtime-dir", tmp_path)
    assert (done.returncode, done.stderr) == (4, "sockbrokerctl: timed out: service dns has no live socket\n")


def test_wait_for_a_service_that_no_policy_has_is_refused(tmp_path):
    Peer(tmp_path, lambda _: [OK])
    done = ctl("wait", "none", "--for=live", "--json=short", "--runtime-dir", tmp_path)
    assert (done.returncode, json.loads(done.stdout)["result"]) == (1, "unknown-service")


# reload


def test_reload_prints_diagnostics_and_fails_if_refused(tmp_path):
    diagnostics = [
        {"file": "/a.conf", "line": 3, "severity": "error", "message": "bad"},
        {"file": "/a.conf", "line": 4, "severity": "warning", "message": "odd"},
    ]
    refusal = "RESULT=malformed\nERRNO=22\nMESSAGE=policy refused, 1 error, the running policy stays\n"

    def answer(_):
        return [rows(*diagnostics), refusal]

    Peer(tmp_path, answer)
    done = ctl("reload", "--runtime-dir", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "/a.conf:3: bad\n/a.conf:4: warning: odd\n"
        "sockbrokerctl: policy refused, 1 error, the running policy stays\n"
    )
    (tmp_path / "control").unlink()
    Peer(tmp_path, answer)
    done = ctl("reload", "--json=short", "--runtime-dir", tmp_path)
    assert (done.returncode, json.loads(done.stdout)) == (1, diagnostics)
