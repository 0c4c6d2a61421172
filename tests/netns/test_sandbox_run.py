# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-run from outside: what the program finds, what the broker is told, and how each failure ends."""

import contextlib
import re
import signal
import socket
import subprocess

import pytest

from harness import namespace, sandbox
from harness.until import until
from words import ADDRESS, PORT, add_routes, everywhere, section

# What a program sees of its sockets, as a program of any language would.
SHOW = r'for name in LISTEN_PID LISTEN_FDS LISTEN_FDNAMES; do echo $name=${!name}; done; echo PID=$$; ls /proc/self/fd'


def shown(output):
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    fds = {int(line) for line in output.splitlines() if line.isdigit()}
    return values, fds


@pytest.fixture
def web(broker):
    """A broker with one service, and sockbroker-run installed beside it."""
    broker.policy(section("web", 61001, everywhere())).start()
    sandbox.install()
    return broker


BECOME = """
import os
own = os.geteuid(), os.getegid()
os.setgid(own[1]), os.setuid(own[0])
os.setregid(-1, own[1]), os.setreuid(-1, own[0])
os.setresgid(-1, own[1], -1), os.setresuid(-1, own[0], -1)
for one in 0, 61002:
    for change in os.setuid, os.setgid, os.seteuid, os.setegid:
        try:
            change(one)
        except OSError:  # EPERM; EINVAL where the user namespace has no such user
            continue
        raise SystemExit(f"became {one}")
print(*os.getresuid(), *os.getresgid())
"""


@pytest.fixture
def alone(netns):  # pylint: disable=unused-argument
    """sockbroker-run without a broker."""
    sandbox.install()


def run_with(named, *words):
    """With sockets passed to it, (name, socket) each. LISTEN_PID needs the child's own pid, so a shell says it."""
    fds = [sock.fileno() for _, sock in named]
    moves = " ".join(f"{3 + i}<&{fd}" for i, fd in enumerate(fds))
    names = ":".join(name for name, _ in named)
    script = f'LISTEN_FDS={len(fds)} LISTEN_PID=$$ LISTEN_FDNAMES={names} exec "$@" {moves}'
    done = subprocess.run(["bash", "-c", script, "-", *sandbox.command(*words)], pass_fds=fds, capture_output=True,
                          text=True, timeout=sandbox.TIMEOUT, check=False)
    return done.returncode, done.stdout, done.stderr


def listener(family=socket.AF_INET):
    return socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family, reuse_port=True)


def test_the_program_takes_the_place_of_the_launcher(alone):  # pylint: disable=unused-argument
    assert sandbox.run("/bin/sh", "-c", "exit 42")[0] == 42
    assert sandbox.run("/bin/sh", "-c", "kill -TERM $$")[0] == -signal.SIGTERM
    with sandbox.Sandboxed("/bin/sh", "-c", "echo $$; echo there; read line") as shell:
        assert shell.lines_until("there") == [str(shell.process.pid)]
        shell.process.send_signal(signal.SIGTERM)  # not SIGINT: a shell's background jobs ignore that
        assert shell.process.wait(25) == -signal.SIGTERM


def test_sockets_made_are_registered_and_passed_on(web):
    status, output, said = sandbox.run("--service=web", "--listen-stream=127.0.0.1:0", "--listen-stream=[::1]:0",
                                       "--listen-datagram=127.0.0.1:7000", "--listen-datagram=[::1]:7000",
                                       "/bin/bash", "-c", SHOW)
    assert (status, said) == (0, "")
    values, fds = shown(output)
    assert values == {"LISTEN_PID": values["PID"], "PID": values["PID"], "LISTEN_FDS": "4",
                      "LISTEN_FDNAMES": "web:web:web:web"}
    assert fds - {7} == {0, 1, 2, 3, 4, 5, 6}  # 7 is the directory that ls reads
    web.wait_log("(?s)" + "register: .*" * 4)


def test_what_is_probably_not_meant_is_said_and_the_program_runs(web):
    status, _, said = sandbox.run("--service=web", "--listen-datagram=127.0.0.1:7001", "/bin/true")
    assert status == 0
    for word in ("port 7001", "IPv6"):
        assert re.search(f"^sockbroker-run: web: warning: .*{word}", said, re.M), said
    web.wait_log("warn: .*port 7001")  # after the answer
    assert web.log().count("warn: ") == 1, "of families nothing yet"


def test_one_socket_for_both_families(web):
    with sandbox.Sandboxed("--service=web", "--listen-stream=[::ffff:127.0.0.1]:8080", "/bin/bash", "-c",
                           SHOW + "; echo there; read line") as program:
        program.lines_until("there")
        row, = web.list()
        assert (row["family"], row["bound"]) == ("dual", "[::ffff:127.0.0.1]:8080")


def accept_queue(port):
    """Connections that wait to be accepted on listeners of this port."""
    with open("/proc/self/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in list(table)[1:]]
    return sum(int(row[4].split(":")[1], 16) for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}"))


def test_what_waits_in_the_listener_of_an_instance_that_is_killed_goes_to_the_next(web):
    # pylint: disable=unused-argument
    add_routes()
    namespace.sysctl("net/ipv4/tcp_migrate_req", 0)
    words = ["--service=web", "--listen-stream=127.0.0.1:7100", "/bin/sh", "-c", "echo there; read line"]
    with sandbox.Sandboxed(*words) as first, contextlib.ExitStack() as connections:
        first.lines_until("there")
        for _ in range(20):
            connections.enter_context(socket.create_connection((ADDRESS["ipv4"], PORT), 8))
        with sandbox.Sandboxed(*words) as second:
            second.lines_until("there")
            first.process.kill()
            first.process.wait()
            until("the first listener is gone", lambda: len(web.list()) == 1)
            assert accept_queue(7100) == 20


def test_several_services_in_front_of_one_program(broker):
    """Plain and TLS, say: each socket says whose it is; the next instance finds what is held of both."""
    broker.policy(section("http", 61001, "ListenStream=80", "HoldSec=30") +
                  section("https", 61001, "ListenStream=443", "HoldSec=30")).start()
    sandbox.install()
    words = ["--listen-stream=http=[::ffff:127.0.0.1]:0", "--listen-stream=https=[::ffff:127.0.0.1]:0", "/bin/bash",
             "-c", SHOW + "; echo there; read line"]
    with sandbox.Sandboxed(*words) as first:
        values, _ = shown("\n".join(first.lines_until("there")))
        assert values["LISTEN_FDNAMES"] == "http:https"
        made = {row["service"]: row["cookie"] for row in broker.list()}
        assert set(made) == {"http", "https"}
    broker.wait_log("waits(.*\n)+.*waits")
    with sandbox.Sandboxed("--service=http", "--service=https", "--retrieve", *words[2:]) as second:
        values, _ = shown("\n".join(second.lines_until("there")))
        assert values["LISTEN_FDNAMES"] == "http:https"
        assert {row["service"]: row["cookie"] for row in broker.list() if row["state"] == "live"} == made


def test_a_name_that_systemd_gave_is_told_of_and_the_program_runs(web):
    for name in ("web.socket", "connection"):
        with listener() as passed:
            status, _, said = run_with([(name, passed)], "/bin/true")
            assert status == 0 and f'"{name}"' in said and "not registered" in said
    assert web.list() == []


def test_passed_sockets_are_registered_under_their_names(web):
    """Those named as services, IP sockets among them; all are passed on, in their order and with their names."""
    with listener() as first, listener(socket.AF_INET6) as second, listener() as third, \
            socket.socket(socket.AF_UNIX) as local:
        status, output, said = run_with([("web", first), ("unknown", third), ("web", local), ("web", second)],
                                        "/bin/bash", "-c", SHOW)
        assert (status, said) == (0, "")
        values, _ = shown(output)
        assert (values["LISTEN_PID"], values["LISTEN_FDS"]) == (values["PID"], "4")
        assert values["LISTEN_FDNAMES"] == "web:unknown:web:web"
        bound = {line["bound"] for line in web.list()}
        assert bound == {f"127.0.0.1:{first.getsockname()[1]}", f"[::1]:{second.getsockname()[1]}"}


def test_service_names_all_of_them_and_listens_yield_to_what_was_passed(web):
    with listener() as passed:
        status, output, _ = run_with([("web.socket", passed)], "--service=web", "--listen-stream=127.0.0.1:0",
                                     "/bin/bash", "-c", SHOW)
        values, _ = shown(output)
        assert (status, values["LISTEN_FDS"], values["LISTEN_FDNAMES"]) == (0, "1", "web")
        assert [line["bound"] for line in web.list()] == [f"127.0.0.1:{passed.getsockname()[1]}"]


def test_the_next_instance_retrieves_what_is_held(broker):
    """--retrieve: nothing is held at first, so a socket is made; later the same socket is passed on, and serves."""
    broker.policy(section("web", 61001, everywhere(), "HoldSec=30\n")).start()
    sandbox.install()
    words = ["--service=web", "--retrieve", "--listen-stream=127.0.0.1:0", "/bin/bash", "-c",
             SHOW + "; echo there; read line"]
    with sandbox.Sandboxed(*words) as first:
        first.lines_until("there")
        made, = broker.list()
    broker.wait_log("waits")
    assert [line["state"] for line in broker.list()] == ["held"]
    with sandbox.Sandboxed(*words) as second:
        values, _ = shown("\n".join(second.lines_until("there")))
        assert (values["LISTEN_FDS"], values["LISTEN_FDNAMES"]) == ("1", "web")
        again, = broker.list()
        assert (again["cookie"], again["state"], again["pid"]) == (made["cookie"], "live", second.process.pid)
    broker.wait_log("retrieve: (.*\n)+.*waits")
    words.insert(3, "--listen-datagram=127.0.0.1:7000")
    with sandbox.Sandboxed(*words) as third:
        values, _ = shown("\n".join(third.lines_until("there")))
        assert (values["LISTEN_FDS"], values["LISTEN_FDNAMES"]) == ("2", "web:web"), "what was added is made"
        assert {(line["protocol"], line["cookie"] == made["cookie"]) for line in broker.list()} == {
            ("tcp", True), ("udp", False)}


def test_no_register_asks_nobody(web):
    with listener() as passed:
        status, output, _ = run_with([("web", passed)], "--no-register", "/bin/bash", "-c", SHOW)
        assert (status, shown(output)[0]["LISTEN_FDS"], web.list()) == (0, "1", [])


def test_sockets_of_somebody_else_are_not_taken_for_ones_own(alone):  # pylint: disable=unused-argument
    status, output, _ = sandbox.run("/bin/bash", "-c", SHOW)
    values, fds = shown(output)
    assert (status, values["LISTEN_FDS"], fds - {3}) == (0, "", {0, 1, 2})


def test_no_other_descriptor_comes_through(alone):  # pylint: disable=unused-argument
    script = 'exec "$@" 5</etc/hostname 9</etc/hostname'
    done = subprocess.run(["bash", "-c", script, "-", *sandbox.command("ls", "/proc/self/fd")], capture_output=True,
                          text=True, timeout=sandbox.TIMEOUT, check=True)
    assert {int(fd) for fd in done.stdout.split()} - {3} == {0, 1, 2}  # 3 is the directory that ls reads


def test_the_made_sockets_can_be_joined_by_the_next_instance(web):  # pylint: disable=unused-argument
    """SO_REUSEPORT on every one: two instances at the same address."""
    words = ["--service=web", *(f"--listen-{kind}={address}:7000" for kind in ("stream", "datagram")
                                for address in ("127.0.0.1", "[::1]"))]
    with sandbox.Sandboxed(*words, "/bin/bash", "-c", "echo there; read line") as first:
        first.lines_until("there")
        assert sandbox.run(*words, "/bin/true") == (0, "", "")


def test_a_drop_in_adds_to_a_profile_and_takes_from_it(alone):  # pylint: disable=unused-argument
    probe = ["/usr/bin/python3", "-c", "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"]
    assert "Operation not permitted" in sandbox.run(*probe)[2]
    drop_ins = sandbox.PROFILES / "default.profile.d"
    drop_ins.mkdir()
    (drop_ins / "50-netlink.profile").write_text("allow socket arg0 == AF_NETLINK and arg2 == NETLINK_ROUTE\n")
    assert sandbox.run(*probe) == (0, "", "")
    (drop_ins / "60-none.profile").write_text("errno EAFNOSUPPORT socket\n")
    assert "Address family not supported" in sandbox.run(*probe)[2]
    (drop_ins / "60-none.profile").write_text("errno EAFNOSUPPORT sockt\n")
    status, _, said = sandbox.run(*probe)
    assert (status, said) == (78, f"sockbroker-run: {drop_ins}/60-none.profile:1: \"sockt\" is a system call of no "
                                  "architecture\n")


def test_a_trial_denies_nothing(alone):  # pylint: disable=unused-argument
    assert sandbox.run("--log-denials", "--profile=strict", "/usr/bin/python3", "-c",
                       "import socket; socket.socket(); print('made')") == (0, "made\n", "")


# How failures end: (words, exit status, what it says).
FAILURES = [
    (["--profile=nosuch", "true"], 78, "sockbroker-run: nosuch: there is no nosuch.profile in /etc/sockbroker/sandbox, "
                                       "/run/sockbroker/sandbox, /usr/local/lib/sockbroker/sandbox, "
                                       "/usr/lib/sockbroker/sandbox\n"),
    (["--service=other", "--listen-stream=127.0.0.1:0", "true"], 77,
     "sockbroker-run: other: unknown-service: no policy has a section [Service other], check FDNAME= or add one and "
     "reload\n"),
    (["--service=web", "--listen-stream=127.0.0.1:80", "true"], 71,
     "sockbroker-run: cannot listen at tcp 127.0.0.1:80: Permission denied; a port below "
     "net.ipv4.ip_unprivileged_port_start is bound by a .socket unit, of UDP where policy says UdpReply=original, "
     "or with AmbientCapabilities=CAP_NET_BIND_SERVICE, which the program will not have\n"),
    (["--service=web", "--listen-stream=203.0.113.1:8080", "true"], 71,
     "sockbroker-run: cannot listen at tcp 203.0.113.1:8080: Cannot assign requested address; bind to a loopback "
     "address, the policy says what traffic comes\n"),
    (["/no/such/program"], 127, "sockbroker-run: cannot run /no/such/program: No such file or directory\n"),
    (["/etc/passwd"], 126, "sockbroker-run: cannot run /etc/passwd: Permission denied\n"),
    ([], 64, "sockbroker-run: a program is missing, as in: sockbroker-run --service=web /usr/bin/server\n"),
]


def test_each_failure_has_its_status_and_its_remedy(web):  # pylint: disable=unused-argument
    for words, status, said in FAILURES:
        assert sandbox.run(*words, ambient="") == (status, "", said), words


def test_not_permitted_by_policy_is_said_in_the_words_of_the_broker(web):  # pylint: disable=unused-argument
    status, _, said = sandbox.run("--service=web", "--listen-stream=127.0.0.1:0", "true", uid=61002)
    assert (status, said) == (77, "sockbroker-run: web: not-permitted: not admitted to service web: User=61001 at "
                                  "/run/config/conf.d/50-test.conf:2 does not match, the sender has uid 61002\n")


def test_without_a_broker_the_message_says_what_to_do(alone):  # pylint: disable=unused-argument
    status, output, said = sandbox.run("--service=web", "--listen-stream=127.0.0.1:0", "/bin/echo", "ran")
    assert (status, output) == (69, "")
    assert said == ("sockbroker-run: cannot connect to /run/sockbroker/control (is sockbrokerd running?): No such file "
                    "or "
                    "directory: start sockbrokerd.socket; in a container bind-mount /run/sockbroker into it; or run "
                    "the "
                    "program with --no-register, without the broker\n")
    assert sandbox.run("--no-register", "/bin/echo", "ran") == (0, "ran\n", "")


@pytest.mark.parametrize("more", [(), ("--supervise",), ("--supervise", "--user-namespace=yes")], ids=" ".join)
def test_a_server_may_become_who_it_is_and_nobody_else(alone, more):  # pylint: disable=unused-argument
    """As gunicorn, dovecot and freeradius do, which give up at their start what they do not have."""
    words = [*more, "--no-register", "/usr/bin/python3", "-c", BECOME]
    assert sandbox.run(*words) == (0, "61001 61001 61001 61001 61001 61001\n", "")


def test_a_server_cannot_go_back_to_the_user_who_has_started_its_launcher(alone):  # pylint: disable=unused-argument
    before = sandbox.command("--no-register", "/usr/bin/python3", "-c", BECOME, ambient="")
    before[1:3] = ["--ruid=61002", "--euid=61001", "--rgid=61002", "--egid=61001"]
    done = subprocess.run(before, capture_output=True, text=True, timeout=sandbox.TIMEOUT, check=False)
    assert done.stdout == "61001 61001 61001 61001 61001 61001\n", done.stderr


def test_root_is_turned_away(alone):  # pylint: disable=unused-argument
    status, _, said = sandbox.run("/bin/true", uid=0, ambient="")
    assert (status, said) == (64, "sockbroker-run: does not run a program as root, whose files are the machine's even "
                                  "without a capability: set DynamicUser=yes or User= in the unit\n")


def test_capabilities_are_gone_for_whoever_cannot_empty_the_bounding_set_too(alone):  # pylint: disable=unused-argument
    status, output, _ = sandbox.run("/bin/cat", "/proc/self/status", ambient="+net_bind_service")
    sets = {line.split()[0]: int(line.split()[1], 16) for line in output.splitlines() if line.startswith("Cap")}
    assert status == 0 and sets["CapBnd:"] != 0
    assert {name for name, value in sets.items() if value} == {"CapBnd:"}
    assert "NoNewPrivs:\t1\n" in output


# nfs-ganesha and dnsdist, which keep what they need and give up the rest: what they have is nothing.
GIVE_UP = r"""
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def capset(effective, permitted, inheritable):
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, itself
    done = libc.capset(header, struct.pack("=6I", effective, permitted, inheritable, 0, 0, 0))
    return "done" if done == 0 else os.strerror(ctypes.get_errno())
one = 1 << 10  # CAP_NET_BIND_SERVICE
print(capset(0, 0, 0), capset(0, one, 0), capset(one, one, 0), capset(0, 0, one), sep="; ")
"""


@pytest.mark.parametrize("more", [(), ("--supervise",), ("--supervise", "--user-namespace=yes")], ids=" ".join)
def test_a_server_may_give_up_its_capabilities_and_gets_none(alone, more):  # pylint: disable=unused-argument
    status, output, errors = sandbox.run(*more, "--no-register", "/usr/bin/python3", "-c", GIVE_UP)
    assert (status, output) == (0, "done" + 3 * "; Operation not permitted" + "\n"), errors
