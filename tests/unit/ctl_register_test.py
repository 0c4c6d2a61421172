# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl register and unregister: which requests come of the sockets that were passed to it."""

import json
import os
import socket
import subprocess

from support.tool import CTL, OK, Peer, ctl


def test_register_and_wait_say_that_the_broker_hangs(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hung:
        hung.bind(str(tmp_path / "control"))
        hung.listen()
        registering, _ = register(["--json=short", "--timeout=300ms"], ["dns"], tmp_path)
        measuring = ctl("metrics", "--timeout=300ms", "--runtime-dir", tmp_path)
        assert measuring.returncode == 1 and "does not answer" in measuring.stderr
        assert "\nsockbroker_up 0\n" in measuring.stdout
        waiting = ctl("wait", "dns", "--for=live", "--json=short", "--timeout=300ms", "--runtime-dir", tmp_path)
        for done, status in (registering, 1), (waiting, 3):
            assert done.returncode == status and "does not answer" in done.stderr
            assert json.loads(done.stdout)["result"] == "no-answer"


def register(arguments, names, runtime_dir, pid=None):
    """Runs `register` with TCP listeners passed as systemd would; returns the outcome and their addresses."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    copies = [os.dup(listener.fileno()) for listener in listeners]
    script = "".join(f"exec {3 + i}<&{fd};" for i, fd in enumerate(copies))
    # From a shell, since LISTEN_PID= has to be the pid of the process that becomes the tool.
    script += f"LISTEN_PID={pid or '$$'} LISTEN_FDS={len(names)} LISTEN_FDNAMES={':'.join(names)} exec \"$@\""
    done = subprocess.run(
        ["bash", "-c", script, "bash", CTL, "register", "--runtime-dir", str(runtime_dir), *arguments],
        pass_fds=copies, capture_output=True, text=True,
    )  # fmt: skip
    addresses = [listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()
    for fd in copies:
        os.close(fd)
    return done, addresses


def test_register_makes_one_request_a_name_with_all_its_sockets(tmp_path):
    peer = Peer(tmp_path, lambda _: [OK])
    done, (a, b, c) = register([], ["dns", "web", "dns"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "dns: 2 sockets registered\nweb: 1 socket registered\n"
    assert peer.requests == [("FDSTORE=1\nFDNAME=dns\nMIGRATE=1\n", [a, c]),
                             ("FDSTORE=1\nFDNAME=web\nMIGRATE=1\n", [b])]


def test_register_asks_an_older_broker_without_what_it_does_not_know(tmp_path):
    """As after an upgrade, before the broker was restarted."""
    unknown = 'RESULT=malformed\nERRNO=74\nMESSAGE=unknown key "MIGRATE"\n'
    peer = Peer(tmp_path, lambda text: [unknown if "MIGRATE" in text else OK])
    done, addresses = register(["dns"], ["dns"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert peer.requests == [("FDSTORE=1\nFDNAME=dns\nMIGRATE=1\n", addresses), ("FDSTORE=1\nFDNAME=dns\n", addresses)]


def test_register_of_more_sockets_than_a_message_carries_says_what_to_do(tmp_path):
    peer = Peer(tmp_path, lambda _: [OK])
    done, _ = register([], ["dns"] * 254, tmp_path)
    assert done.returncode != 0 and not done.stdout
    assert "254 sockets are too many for one message, which carries 253" in done.stderr
    assert "in several messages (several .socket units), for a service with Handover=share" in done.stderr
    assert not peer.requests


def test_register_with_a_service_gives_it_all_sockets(tmp_path):
    peer = Peer(tmp_path, lambda _: [OK])
    done, addresses = register(["dns"], ["a.socket", "b.socket"], tmp_path)
    assert done.returncode == 0
    assert peer.requests == [("FDSTORE=1\nFDNAME=dns\nMIGRATE=1\n", addresses)]


def test_register_succeeds_only_if_all_do(tmp_path):
    refusal = "RESULT=not-permitted\nERRNO=1\nMESSAGE=uid 0 is not admitted\n"
    Peer(tmp_path, lambda request: [refusal if "dns" in request else OK])
    done, _ = register([], ["dns", "web"], tmp_path)
    assert (done.returncode, done.stdout) == (1, "web: 1 socket registered\n")
    assert done.stderr == "sockbrokerctl: dns: not-permitted: uid 0 is not admitted\n"


def test_register_as_json_has_an_element_a_service(tmp_path):
    refusal = "RESULT=not-permitted\nERRNO=1\nMESSAGE=no\n"
    Peer(tmp_path, lambda request: [refusal if "dns" in request else OK])
    done, _ = register(["--json=short"], ["dns", "web"], tmp_path)
    assert done.returncode == 1
    assert done.stdout == (
        '[{"service":"dns","result":"not-permitted","errno":1,"message":"no"},'
        '{"service":"web","result":"ok","errno":0,"message":""}]\n'
    )


def test_register_explains_a_name_taken_from_the_unit(tmp_path):
    Peer(tmp_path, lambda _: ["RESULT=unknown-service\nERRNO=2\nMESSAGE=no such service\n"])
    done, _ = register([], ["foo.socket"], tmp_path)
    assert done.returncode == 1
    assert "set FileDescriptorName=SERVICE" in done.stderr


def test_register_refuses_sockets_without_a_name(tmp_path):
    peer = Peer(tmp_path, lambda _: [OK])
    done, _ = register([], ["dns", "unknown"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "set FileDescriptorName=SERVICE" in done.stderr
    assert peer.requests == []


def test_register_without_sockets_says_where_to_call_it(tmp_path):
    done = ctl("register", "--runtime-dir", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    for word in ("ExecStartPost=", "256", "one-shot service", "Sockets="):
        assert word in done.stderr


def test_register_below_a_shell_says_so(tmp_path):
    done, _ = register([], ["dns"], tmp_path, pid=1)
    assert done.returncode == 1
    assert "the sockets were passed to process 1 " in done.stderr


def test_unregister_asks_for_the_service(tmp_path):
    peer = Peer(tmp_path, lambda _: ["RESULT=not-held\nERRNO=2\nMESSAGE=nothing of yours\n"])
    done = ctl("unregister", "dns", "--runtime-dir", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "sockbrokerctl: dns: not-held: nothing of yours\n"
    assert peer.requests == [("VERB=unregister\nFDNAME=dns\n", [])]
