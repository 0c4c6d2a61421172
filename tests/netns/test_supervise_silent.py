# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that make their supervisor wait: by an address in a page that never comes, or a descriptor whose close(2)
never ends. That is a service's own loss, for as long as the one that it waits for lives."""

import os
import pathlib
import signal
import socket
import struct
import time

import pytest

from harness import kernel, sandbox, silent_file, supervised, worker
from supervising import UID, ask, everything
from words import add_routes

OTHER = 61002
BOUND = 20  # seconds for what the broker and others do meanwhile, on a busy machine


class Giver(worker.Child):
    """Another process of the program's user, which has a file of a silent FUSE server and passes it on."""

    def __init__(self, silent):
        super().__init__()
        kernel.drop_privileges(UID, UID)
        silent_file.enter_namespaces()
        content, self.content = os.pipe()
        self.file = silent_file.SilentFile(silent, content=content)
        self.ended = False

    def give(self):
        with socket.socket(socket.AF_UNIX) as carrier:
            carrier.connect("\0give")
            socket.send_fds(carrier, [b"x"], [self.file.fd])

    def fill(self, content):
        os.write(self.content, content)

    def end(self):
        if not self.ended:
            self.ended = True
            self.file.end()


@pytest.fixture(name="web")
def _web(broker):
    add_routes()
    broker.policy(everything("web") + everything("other", ports=8080).replace(str(UID), str(OTHER))).start()
    sandbox.install()
    silent_file.make_device()
    return broker


@pytest.fixture(name="give")
def _give():
    """give(silent operations): a Giver."""
    started = []

    def begin(*silent):
        started.append(worker.Worker(Giver, silent))
        return started[-1]

    yield begin
    for one in started:
        one.end()
        one.kill()


# What the program does: the page is never there, and close(2) of the copy never ends.
TAKE = "u = socket.socket(socket.AF_UNIX); u.bind('\\0give'); u.listen(1)"
TAKEN = "silent = socket.recv_fds(u.accept()[0], 1, 1)[1][0]"
MAP = """
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, ctypes.c_size_t(4096), 1, 2, silent, ctypes.c_long(0))
def attack():
    s = socket.socket()
    ctypes.set_errno(0)
    libc.bind(s.fileno() if {page} else silent, ctypes.c_void_p(page), 16)
    names["heard"] = errno.errorcode[ctypes.get_errno()]
attacker = threading.Thread(target=attack, daemon=True)
attacker.start()"""
ELSE = """
second = threading.Thread(target=lambda: names.update(s=sock('tcp', '0.0.0.0', 80)), daemon=True)
second.start()"""

each_way = pytest.mark.parametrize("silent, call, heard", [
    (silent_file.READ, "310", "EFAULT"),  # process_vm_readv
    (silent_file.FLUSH, "3", "ENOTSOCK"),  # close
], ids=["address", "descriptor"])


def attacked(program, giver, silent, call):
    """Until the supervisor waits. Its pid."""
    program.do(TAKE)
    giver.give()
    program.do(TAKEN)
    pid = program.supervisor()
    program.do(MAP.format(page=silent == silent_file.READ))
    doing = pathlib.Path(f"/proc/{pid}/syscall")
    supervised.until(lambda: doing.read_text().split()[0] == call)
    return pid


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
def test_an_option_that_changes_while_the_address_is_read_makes_no_bind_that_policy_has_not(web, give, kind):
    """With IPV6_V6ONLY the kernel refuses a v4-mapped address, and without it policy does."""
    giver = give()
    with supervised.Program() as program:
        program.do(TAKE)
        giver.give()
        program.do(TAKEN)
        program.do(f"s = socket.socket(socket.AF_INET6, socket.SOCK_{kind})")
        program.do("s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)")
        doing = pathlib.Path(f"/proc/{program.supervisor()}/syscall")
        program.do(MAP.format(page=True).replace("s = socket.socket()", "").replace(", 16)", ", 28)"))
        supervised.until(lambda: doing.read_text().split()[0] == "310")
        program.do("s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)")
        nowhere = socket.inet_pton(socket.AF_INET6, "::ffff:0.0.0.0")
        giver.fill(struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(8081), 0, nowhere, 0))
        program.do("attacker.join()")
        assert program.do("s.getsockname()") == ("::", 0, 0, 0)
        assert program.do("names['heard']") == "EINVAL"
        assert program.do("s.bind(('::ffff:0.0.0.0', 8081))") == "EACCES"
    assert web.list() == []


def others_are_served(broker):
    begun = time.monotonic()
    with supervised.Program(uid=OTHER) as program:
        program.do("s = sock('tcp', '0.0.0.0', 8080); serve(s)")
        assert ask("192.0.2.1", 8080) == f"served {program.process.pid}"
        assert {entry["service"] for entry in broker.list() if entry["pid"] == program.process.pid} == {"other"}
        assert time.monotonic() - begun < BOUND


@each_way
def test_who_makes_the_supervisor_wait_waits_alone(web, give, silent, call, heard):
    giver = give(silent)
    with supervised.Program() as program:
        attacked(program, giver, silent, call)
        program.do(ELSE)
        others_are_served(web)
        assert program.do("second.join(0.2), attacker.is_alive(), second.is_alive()") == (None, True, True)
        giver.end()
        # It has lost nothing but the time.
        program.do("attacker.join(); second.join()")
        assert program.do("names['heard']") == heard
        program.do("serve(names['s'])")
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"


def test_a_program_is_killed_while_its_supervisor_waits_and_nothing_is_left(web, give):
    giver = give(silent_file.READ)
    with supervised.Program() as program:
        supervisor = attacked(program, giver, silent_file.READ, "310")
        ended = os.pidfd_open(supervisor)
        program.process.kill()
        assert program.process.wait(BOUND) == -signal.SIGKILL
        others_are_served(web)
        giver.end()
        import select  # pylint: disable=import-outside-toplevel
        assert select.select([ended], [], [], sandbox.TIMEOUT)[0] == [ended]
    assert web.list() == []


def test_user_faults_are_no_way_to_make_it_wait(web):
    """userfaultfd(2) without privilege is for faults in user mode alone, and the profiles have it not at all."""
    with supervised.Program() as program:
        assert program.do("libc.syscall(323, 1), ctypes.get_errno() in (errno.EPERM, errno.ENOSYS)") == (-1, True)
    profile = pathlib.Path("/run/faults.profile")
    profile.write_text("include default\nallow userfaultfd  # why: a test\nallow ioctl  # why: a test\n")
    with supervised.Program(f"--profile={profile}") as program:
        program.do("""
faults = libc.syscall(323, 1 | os.O_CLOEXEC)  # UFFD_USER_MODE_ONLY
assert faults >= 0, ctypes.get_errno()
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_long(0))
libc.ioctl.argtypes = ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p
assert libc.ioctl(faults, 0xc018aa3f, struct.pack("QQQ", 0xaa, 0, 0)) == 0  # UFFDIO_API
assert libc.ioctl(faults, 0xc020aa00, struct.pack("QQQQ", page, 4096, 1, 0)) == 0  # UFFDIO_REGISTER
s = socket.socket()
ctypes.set_errno(0)
heard = libc.bind(s.fileno(), ctypes.c_void_p(page), 16), ctypes.get_errno() == errno.EFAULT""")
        assert program.do("heard") == (-1, True)
        program.do("s = sock('tcp', '0.0.0.0', 80); serve(s)")
        assert ask("192.0.2.1", 80) == f"served {program.process.pid}"
