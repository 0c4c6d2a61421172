# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbroker-run --supervise: what is not the broker's happens as the program asked, with the kernel's own words."""

import os
import pathlib

import pytest

from harness import supervised
from supervising import UID, begin


@pytest.fixture(name="web")
def _web(broker):
    return begin(broker)


def test_loopback_and_ports_of_the_kernels_choice_are_bound_as_asked(web):
    with supervised.Program() as program:
        assert program.do("sock('tcp', '127.0.0.1', 8080).getsockname()") == ("127.0.0.1", 8080)
        assert program.do("sock('udp', '127.0.0.9', 8080).getsockname()") == ("127.0.0.9", 8080)
        assert program.do("sock('tcp', '::1', 8080).getsockname()[:2]") == ("::1", 8080)
        assert program.do("sock('udp', '0.0.0.0', 0).getsockname()[0]") == "0.0.0.0"
        assert program.do("sock('tcp', '127.0.0.1', 80)") == "EACCES"  # the kernel's own word
        assert program.do("a = sock('tcp', '127.0.0.1', 8081)") is None
        assert program.do("sock('tcp', '127.0.0.1', 8081)") == "EADDRINUSE"
        assert web.list() == []


# HAProxy, from 2.8 on, tries so whether SO_REUSEPORT works; others open the second family at the port of the first.

def test_a_port_that_the_kernel_chose_is_the_programs_for_as_long_as_a_socket_of_it_has_it(web):
    with supervised.Program() as program:
        program.do("reuse = lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)")
        refused = 0
        for protocol, other in (("tcp", "udp"), ("udp", "tcp")):
            program.do(f"a = sock('{protocol}', '0.0.0.0', 0, early=reuse); port = a.getsockname()[1]")
            assert program.do(f"b = sock('{protocol}', '0.0.0.0', port, early=reuse)") is None
            assert program.do("b.getsockname() == ('0.0.0.0', port)") is True
            assert program.do(f"c = sock('{protocol}', '::', port, 1)") is None
            assert program.do(f"sock('{protocol}', '0.0.0.0', port)") == "EADDRINUSE"  # the kernel's own word
            assert web.log().count("refuse: ") == refused
            assert program.do(f"sock('{other}', '0.0.0.0', port)") == "EACCES"
            program.do("number = a.fileno(); a.close(); b.close(); c.close()")
            assert program.do(f"sock('{protocol}', '0.0.0.0', port)") == "EACCES"
            # Another socket has its number now, and on loopback, which needs no permission, its port.
            program.do(f"d = sock('{protocol}', '127.0.0.1', port)")
            assert program.do("d.fileno() == number") is True
            assert program.do(f"sock('{protocol}', '0.0.0.0', port)") == "EACCES"
            program.do("d.close()")
            refused = web.log().count("refuse: ")
        assert web.list() == []


def test_a_port_that_a_socket_has_lost_is_not_the_programs(web):
    """UDP, whose connection was dissolved: the kernel takes the port that it has chosen."""
    with supervised.Program() as program:
        program.do("s = sock('udp', '127.0.0.1', 0); port = s.getsockname()[1]; s.connect(('127.0.0.1', 9))")
        program.do("r = libc.connect(s.fileno(), bytes(16), 16)")
        assert program.do("r, s.getsockname()[1]") == (0, 0)
        assert program.do("sock('udp', '0.0.0.0', port)") == "EACCES"
        assert web.list() == []


def test_limits_leave_all_else_to_the_kernel(web):
    with supervised.Program("--bind=tcp:80", "--bind=udp:5353") as program:
        assert program.do("sock('tcp', '0.0.0.0', 8080).getsockname()") == ("0.0.0.0", 8080)
        assert program.do("sock('udp', '0.0.0.0', 40000).getsockname()") == ("0.0.0.0", 40000)
        assert program.do("sock('tcp', '0.0.0.0', 80).fileno() > 0") is True
        program.do("s = sock('udp', '0.0.0.0', 5353)")
        assert [entry["protocol"] for entry in web.list() if entry["state"] == "live"] == ["udp"]


def test_the_brokers_sockets_may_be_named_from_the_folder_in_which_it_is_started(web):
    with supervised.Program("--runtime-dir=sockbroker", cwd="/run") as program:
        program.do("s = sock('tcp', '0.0.0.0', 80)")
        assert [entry["pid"] for entry in web.list()] == [program.process.pid]


def test_unix_sockets_are_made_where_and_how_the_program_makes_them(web):  # pylint: disable=unused-argument
    folder = pathlib.Path("/run/own")
    folder.mkdir()
    os.chown(folder, UID, UID)
    with supervised.Program(cwd=folder) as program:
        program.do("u = socket.socket(socket.AF_UNIX)")
        program.do("os.umask(0o027); u.bind('a.sock'); u.listen(1)")
        assert (folder / "a.sock").stat().st_mode & 0o777 == 0o750
        assert (folder / "a.sock").stat().st_uid == UID
        program.do("os.umask(0o177); v = socket.socket(socket.AF_UNIX); v.bind('/run/own/' + 'b' * 90)")
        assert (folder / ("b" * 90)).stat().st_mode & 0o777 == 0o600
        assert program.do("socket.socket(socket.AF_UNIX).bind('a.sock')") == "EADDRINUSE"
        assert program.do("socket.socket(socket.AF_UNIX).bind('/run/none/a.sock')") == "ENOENT"
        assert program.do("socket.socket(socket.AF_UNIX).bind('/run/a.sock')") == "EACCES"
        assert program.do("w = socket.socket(socket.AF_UNIX); w.bind('\\0abstract'); w.getsockname()") is None
        assert program.do("w.getsockname()") == b"\0abstract"
        assert program.do("w = socket.socket(socket.AF_UNIX); w.bind(''); len(w.getsockname())") is None
        assert program.do("os.chdir('/'); u2 = socket.socket(socket.AF_UNIX); u2.bind('run/own/c.sock')") is None
        assert (folder / "c.sock").is_socket()
    assert os.getcwd() != "/run/own"


def test_a_whole_unix_path_is_bound_from_a_folder_that_the_program_may_not_search(web):
    # pylint: disable=unused-argument
    """As when it is started from root's home."""
    own, closed = pathlib.Path("/run/own"), pathlib.Path("/run/closed")
    own.mkdir()
    os.chown(own, UID, UID)
    closed.mkdir(mode=0o700)
    with supervised.Program(cwd=closed) as program:
        assert program.do("socket.socket(socket.AF_UNIX).bind('/run/own/a.sock')") is None
        assert program.do("socket.socket(socket.AF_UNIX).bind('/proc/self/cwd/a.sock')") == "EACCES"
        assert program.do("socket.socket(socket.AF_UNIX).bind('a.sock')") == "EACCES"
    assert (own / "a.sock").stat().st_uid == UID


def test_a_unix_path_through_proc_self_is_the_programs_whatever_the_supervisor_has_there(web):
    # pylint: disable=unused-argument
    for folder in ("/run/own", "/run/own/sub"):
        os.mkdir(folder)
        os.chown(folder, UID, UID)
    with supervised.Program(cwd="/run/own") as program:
        program.do("d = os.open('sub', os.O_RDONLY | os.O_DIRECTORY); os.symlink('/proc/self/fd', 'link')")
        program.do("def bind(path): socket.socket(socket.AF_UNIX).bind(path)")
        for number in range(3, 24):
            program.do(f"os.dup2(d, {number})")
            for way in ("/proc/self/fd", "/proc/thread-self/fd", "/dev/fd", "link"):
                name = f"{number}{way.replace('/', '-')}"
                assert program.do(f"bind('{way}/{number}/{name}')") is None, name
                assert pathlib.Path("/run/own/sub", name).is_socket()
        assert program.do("bind('/proc/self/fd/99/x')") == "ENOENT"
        assert program.do("bind('/proc/self/fd/0/x')") == "ENOTDIR"
        assert program.do("t = threading.Thread(target=lambda: bind('/proc/thread-self/cwd/by-a-thread')); "
                          "t.start(); t.join()") is None
        assert sorted(os.listdir("/run/own")) == ["by-a-thread", "link", "sub"]
        os.mkdir("/run/everybodys")
        os.chmod("/run/everybodys", 0o1777)
        os.symlink("/proc/self/fd", "/run/everybodys/link")
        os.lchown("/run/everybodys/link", UID + 1, UID + 1)
        assert program.do("bind('/run/everybodys/link/3/x')") == "EACCES"
        program.wait_error("link is somebody else's link")


def test_netlink_sockets_are_bound(web):  # pylint: disable=unused-argument
    with supervised.Program("--profile=interfaces") as program:
        assert program.do("n = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); n.bind((0, 0))") is None
        assert program.do("n.getsockname()[0] != 0") is True
        assert program.do("[name for _, name in socket.if_nameindex()][0]") == "lo"


def test_mistakes_of_the_program_are_the_kernels_to_tell(web):  # pylint: disable=unused-argument
    with supervised.Program() as program:
        raw = "ctypes.set_errno(0); r = libc.{}; r = r and errno.errorcode[ctypes.get_errno()]"
        program.do("path = os.open('/', os.O_PATH)")
        for call, heard in [("bind(path, None, 16)", "EBADF"), ("listen(path, 1)", "EBADF"),
                            ("bind(999, None, 16)", "EBADF"), ("bind(0, None, 16)", "ENOTSOCK"),
                            ("listen(999, 1)", "EBADF"), ("listen(0, 1)", "ENOTSOCK"),
                            ("bind(s.fileno(), None, 16)", "EFAULT"), ("bind(s.fileno(), 8, 16)", "EFAULT"),
                            ("bind(s.fileno(), b'x' * 200, 200)", "EINVAL"), ("bind(s.fileno(), b'', -1)", "EINVAL"),
                            ("bind(s.fileno(), b'\\2\\0\\0\\x50', 4)", "EINVAL"),
                            ("bind(s.fileno(), b'\\x0a\\0' + bytes(14), 16)", "EAFNOSUPPORT"),
                            ("listen(u.fileno(), 1)", "ENOTSUP")]:
            program.do("s = socket.socket(); u = socket.socket(type=socket.SOCK_DGRAM)")
            program.do(raw.format(call))
            assert program.do("r") == heard, call
