# SPDX-License-Identifier: LGPL-2.1-or-later
"""Row S4 in full: a service that has been taken over tries all that its sandbox is to refuse, and goes on serving its
prefixes meanwhile. tests/netns/sandboxed_service.cc makes the attempts."""

import subprocess

import pytest

from harness import broker as broker_module
from harness import namespace, sandbox

POLICY = """\
[Service web]
User=61001
ListenStream=192.0.2.0/24:80
ListenStream=[2001:db8:1::]/48:80
ListenDatagram=192.0.2.0/24:53
ListenDatagram=[2001:db8:1::]/48:53
"""
PREFIXES = ["192.0.2.0/24", "2001:db8:1::/48"]
QUESTIONS = [("tcp", "192.0.2.1", 80), ("tcp", "192.0.2.254", 80), ("tcp", "2001:db8:1::7", 80),
             ("udp", "192.0.2.9", 53), ("udp", "2001:db8:1:ffff::9", 53)]
LISTENS = ["--listen-stream=127.0.0.1:0", "--listen-stream=[::1]:0", "--listen-datagram=127.0.0.2:53",
           "--listen-datagram=[::1]:53"]

# What the kernel answers to each attempt under the profile "default"; "0": it is done. The second, where there is one,
# is that of "strict".
ATTEMPTS = {
    "raw-ipv4": "EPERM", "raw-ipv6": "EPERM", "ping": "EPERM", "sctp": "EPERM", "mptcp": "EPERM", "packet": "EPERM",
    "netlink": "EPERM", "vsock": "EPERM", "alg": "EPERM", "xdp": "EPERM", "upper-half": "EPERM",
    "bind-foreign-ipv4": "EADDRNOTAVAIL EPERM", "bind-foreign-ipv6": "EADDRNOTAVAIL EPERM",
    "ip-transparent": "EPERM", "ipv6-transparent": "EPERM", "ip-freebind": "EPERM", "ipv6-freebind": "EPERM",
    "ip-hdrincl": "EPERM", "ip-options": "EPERM", "so-mark": "EPERM", "so-priority": "EPERM",
    "so-bindtodevice": "EPERM",
    "so-rcvbufforce": "EPERM", "so-attach-filter": "EPERM", "tcp-repair": "EPERM", "tcp-ulp": "EPERM",
    "io-uring": "EPERM", "bpf-map-create": "EPERM", "bpf-open-pin": "EPERM", "open-pin": "EACCES",
    "remove-pin": "EACCES",
    "ptrace-broker": "EPERM", "ptrace-own-child": "EPERM", "read-broker": "EPERM", "write-broker": "EPERM",
    "open-broker-memory": "EACCES", "take-broker-descriptor": "EPERM", "kill-broker": "EPERM",
    "capset": "EPERM", "ambient": "EPERM", "securebits": "EPERM", "setuid": "EPERM", "setresuid": "EPERM",
    "setgroups": "EPERM", "exec-setuid": "0",  # it runs, as the same user
    "exec-capable": "EPERM",
    "unshare-user": "EPERM", "unshare-net": "EPERM", "clone-user": "EPERM", "clone-user-net": "EPERM",
    "clone3": "ENOSYS",
    "setns": "EPERM", "mount": "EPERM", "umount": "EPERM", "fsopen": "EPERM", "chroot": "EPERM", "pivot-root": "EPERM",
    "keyctl": "EPERM", "add-key": "EPERM", "perf-event-open": "EPERM", "userfaultfd": "EPERM",
    "open-by-handle-at": "EPERM", "fanotify": "EPERM", "init-module": "EPERM", "kexec": "EPERM", "personality": "EPERM",
    "set-flags-of-interface": "EPERM", "type-into-terminal": "EPERM", "make-setuid-file": "EPERM",
    "chmod-setuid": "EPERM",
    # What the profiles do not stop, or only the strict one; docs/sandbox.md says so.
    "writable-code": "0 EPERM", "code-later": "0 EPERM", "connect-datagram": "0 EPERM",
    "int80": "ENOSYS", "x32": "ENOSYS",
}


def privileged_files():
    """id, setuid root, and cat with capabilities: both as root would have made them."""
    as_root = sandbox.install(broker_module.BUILD / "tests/netns/sandboxed_service", "/usr/bin/id", "/usr/bin/cat")
    _, setuid_file, capable_file = as_root
    setuid_file.chmod(0o4755)
    subprocess.run(["setcap", "cap_net_raw,cap_net_admin=ep", capable_file], check=True)
    # Without the sandbox both do give what they promise, or the test would prove nothing.
    ordinary = ["setpriv", "--reuid=61001", "--regid=61001", "--clear-groups"]
    assert subprocess.run([*ordinary, setuid_file, "-u"], capture_output=True, check=True).stdout == b"0\n"
    status = subprocess.run([*ordinary, capable_file, "/proc/self/status"], capture_output=True, check=True).stdout
    assert b"CapEff:\t0000000000003000" in status
    return as_root


@pytest.mark.parametrize("profile", ["default", "strict"])
def test_s4_a_service_taken_over_is_refused_each_attempt_while_it_serves(broker, clients, profile):
    namespace.add_local_routes(*PREFIXES)
    broker.policy(POLICY).start()
    program, setuid_file, capable_file = privileged_files()
    pin = next((broker.bpffs / "dispatch").iterdir())
    with sandbox.Sandboxed(f"--profile={profile}", "--service=web", *LISTENS, program, "web", broker.process.pid, pin,
                           setuid_file, capable_file) as service:
        service.lines_until("serving")
        served = clients(QUESTIONS)
        served.until("web")
        service.say("\n")
        answers = dict(line.split() for line in service.lines_until("done"))
        served.until("web")
        if answers.get("int80") == "-1":
            del answers["int80"]  # a kernel without i386
        wanted = {name: answer.split()[-1 if profile == "strict" else 0] for name, answer in ATTEMPTS.items()
                  if name in answers or name not in ("int80", "x32")}
        assert answers == wanted
        assert len(answers) >= 70
        by_name, failures = served.end()
        assert (set(by_name), failures) == ({"web"}, [])
        status = service.status()
        assert {name: int(value, 16) for name, value in status.items() if name.startswith("Cap")} == {
            "CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": 0, "CapAmb": 0}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Uid"].split()[0]) == ("1", "2", "61001")
        assert broker.process.poll() is None
        assert {(line["protocol"], line["family"]) for line in broker.list()} == {
            (protocol, family) for protocol in ("tcp", "udp") for family in ("ipv4", "ipv6")}
