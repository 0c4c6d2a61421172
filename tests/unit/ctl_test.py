# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl from outside: without a broker, as an ordinary user, and against a peer that does what no healthy
broker would do (break off, send a million rows at once), speaking the control protocol from a script."""

import array
import json
import os
import pathlib
import pty
import resource
import socket
import subprocess
import tempfile
import threading
import time

import pytest

CTL = os.environ["SOCKBROKERCTL"]
GOOD = "[Service dns]\nUser=0\nListenDatagram=1.0.0.0/24:53\nListenStream=53\n"
BAD = "[Service dns]\nUser=0\nListenDatagram=1.0.0.1/24:53\nFrob=1\n"


def ctl(*arguments, env=None, **options):
    environment = {**os.environ, "NO_COLOR": "1", **(env or {})}
    return subprocess.run([CTL, *map(str, arguments)], capture_output=True, text=True, env=environment, **options)


@pytest.fixture
def policy(tmp_path):
    """Writes conf.d files; returns the directory for --config-dir."""

    def write(folder=tmp_path, **files):
        (folder / "conf.d").mkdir()
        for name, text in files.items():
            (folder / "conf.d" / f"{name}.conf").write_text(text)
        return folder

    return write


class Peer(threading.Thread):
    """A control socket; answers each request with what `script(request text, number of fds)` yields, then hangs up."""

    def __init__(self, folder, script):
        super().__init__(daemon=True)
        self.runtime_dir = folder
        self.requests = []
        self.script = script
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(folder / "control"))
        self.listener.listen()
        self.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection:
            while True:
                data, ancillary, _, _ = connection.recvmsg(8192, 4096)
                if not data:
                    return
                fds = array.array("i")
                for _, _, payload in ancillary:
                    fds.frombytes(payload)
                cookies = [socket.socket(fileno=fd).getsockname() for fd in fds]
                self.requests.append((data.decode(), cookies))
                for record in self.script(data.decode()):
                    if record is None:
                        return
                    connection.send(record.encode())


SINCE = "Mon 2024-03-04 05:06:07 UTC"  # 1709528767654321
OK = "RESULT=ok\nERRNO=0\nMESSAGE=\n"
ROW = {
    "service": "dns", "protocol": "udp", "family": "ipv4", "cookie": "000000000000002a", "bound": "127.0.0.2:53",
    "unit": None, "uid": 61001, "pid": 77, "state": "live", "since": 1709528767654321,
}  # fmt: skip


def rows(*objects):
    return "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in objects)


# verify


def ordinary_user():
    os.setgroups([])
    os.setgid(61001)
    os.setuid(61001)


def test_verify_needs_no_privilege(policy):
    preexec = ordinary_user if os.geteuid() == 0 else None
    # pytest's directories and the build tree are closed to that user: a directory of its own, and a program opened
    # before.
    with tempfile.TemporaryDirectory() as name, open(CTL, "rb") as program:
        folder = policy(pathlib.Path(name), good=GOOD)
        folder.chmod(0o755)
        done = subprocess.run(
            [f"/proc/self/fd/{program.fileno()}", "verify", f"--config-dir={folder}"],
            pass_fds=[program.fileno()], preexec_fn=preexec, cwd="/", capture_output=True, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    # What this machine has of it may be warned of.
    assert done.stdout.endswith("The policy is valid: 1 file, 1 service, 2 bindings.\n")


def test_verify_prints_every_error_with_its_place(policy):
    folder = policy(bad=BAD)
    done = ctl("verify", "--config-dir", folder)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{folder}/conf.d/bad.conf:3: ") and "write 1.0.0.0/24" in lines[0]
    assert lines[1].startswith(f"{folder}/conf.d/bad.conf:4: unknown key Frob=")
    assert len(lines) == 2


def test_a_file_name_drives_no_terminal(policy):
    names = ["10-\x1b[2J", "20-\u202egnp", "30-\u2066a\u009b31m"]
    folder = policy(**{name: "Nonsense=\x1b[31m\n" for name in names})
    for option in ("--json=off", "--json=short", "--json=pretty"):
        done = ctl("verify", option, "--config-dir", folder)
        assert done.returncode == 1
        assert [char for char in done.stdout if not (char in "\n\t" or " " <= char <= "~")] == []
    assert [os.path.basename(row["file"]) for row in json.loads(done.stdout)] == [f"{name}.conf" for name in names]


def test_verify_as_json(policy):
    folder = policy(bad=BAD)
    done = ctl("verify", "--json=short", "--config-dir", folder)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert [list(row) for row in found] == [["file", "line", "severity", "message"]] * 2
    assert [(row["file"], row["line"], row["severity"]) for row in found] == [
        (f"{folder}/conf.d/bad.conf", 3, "error"),
        (f"{folder}/conf.d/bad.conf", 4, "error"),
    ]
    assert json.loads(ctl("verify", "--json=pretty", "--config-dir", folder).stdout) == found


def test_verify_a_warning_is_no_failure(policy):
    folder = policy(twice=GOOD + "ListenStream=53\n")
    done = ctl("verify", "--offline", "--no-legend", "--config-dir", folder)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{folder}/conf.d/twice.conf:5: warning: ")
    found = json.loads(ctl("verify", "--offline", "--json=short", "--config-dir", folder).stdout)
    assert [row["severity"] for row in found] == ["warning"]


def test_verify_a_valid_policy_is_an_empty_array(policy):
    done = ctl("verify", "--offline", "--json=short", "--config-dir", policy(good=GOOD))
    assert (done.returncode, done.stdout) == (0, "[]\n")


def test_verify_checks_the_settings_of_the_broker_and_its_limits(policy):
    folder = policy(good=GOOD)
    (folder / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=1\n")
    assert ctl("verify", "--config-dir", folder).returncode == 1
    (folder / "sockbrokerd.conf").write_text("[Broker]\nMaxBindings=many\n")
    done = ctl("verify", "--config-dir", folder)
    assert done.returncode == 1
    assert done.stdout.startswith(f"{folder}/sockbrokerd.conf:2: ")


def test_verify_a_folder_that_is_not_there_is_a_slip(tmp_path):
    done = ctl("verify", f"--config-dir={tmp_path}/nowhere")
    assert done.returncode == 1
    assert f"cannot read the directory {tmp_path}/nowhere given by --config-dir" in done.stderr


def test_verify_names_the_folder_to_give_where_a_file_or_the_conf_d_itself_is_named(policy):
    folder = policy(good=GOOD)
    done = ctl("verify", f"--config-dir={folder}/conf.d/good.conf")
    assert (done.returncode, done.stdout) == (1, "")
    assert (f"--config-dir={folder}/conf.d/good.conf is not a directory: give the one whose conf.d holds the file"
            in done.stderr)
    for name in f"{folder}/conf.d", f"{folder}/conf.d//":
        done = ctl("verify", f"--config-dir={name}")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"--config-dir={name} has no conf.d in it: give the directory above it" in done.stderr
    assert ctl("verify", f"--config-dir={folder}/").returncode == 0


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


# Rows


def test_list_is_a_table_with_header_and_count(tmp_path):
    peer = Peer(tmp_path,
                lambda _: [rows({**ROW, "flows": 7}), rows({**ROW, "service": "tcp-proxy", "unit": "x.service"}), OK])
    done = ctl("list", "--runtime-dir", tmp_path, env={"TZ": "UTC"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "SERVICE   PROTOCOL FAMILY BOUND        UNIT        UID PID STATE QUEUE FLOWS SINCE                       "
        "COOKIE\n"
        f"dns       udp      ipv4   127.0.0.2:53 -         61001  77 live      -     7 {SINCE} 000000000000002a\n"
        f"tcp-proxy udp      ipv4   127.0.0.2:53 x.service 61001  77 live      -     - {SINCE} 000000000000002a\n"
        "\n"
        "2 sockets listed.\n"
    )
    assert peer.requests == [("VERB=list\n", [])]


def test_list_as_json_has_the_fields_in_their_order(tmp_path):
    Peer(tmp_path, lambda _: [rows(ROW, ROW), OK])
    done = ctl("list", "--json=short", "--runtime-dir", tmp_path)
    row = {**ROW, "queue": None, "queue_limit": None, "drops": None}  # the kernel knows no such socket
    assert (done.returncode, done.stdout) == (0, "[" + ",".join([rows(row)[:-1]] * 2) + "]\n")


def test_bindings_show_any_where_json_has_null(tmp_path):
    binding = {
        "service": "http", "protocol": "tcp", "prefix": None, "ports": None, "source": None, "interface": None,
        "when_absent": "refuse", "file": "/etc/sockbroker/conf.d/a.conf", "line": 3,
    }  # fmt: skip
    Peer(tmp_path, lambda _: [rows(binding), OK])
    done = ctl("bindings", "--no-legend", "--runtime-dir", tmp_path)
    assert done.stdout == "http tcp any * any any refuse /etc/sockbroker/conf.d/a.conf:3\n"


def test_a_million_rows_stream(tmp_path):
    record = rows(ROW) * (60000 // len(rows(ROW)))
    records = 1_000_000 // record.count("\n") + 1
    Peer(tmp_path, lambda _: (record if i < records else OK for i in range(records + 1)))
    limit = 64 << 20  # a fraction of what the rows take

    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [CTL, "bindings", "--json=short", "--runtime-dir", tmp_path], stdout=out,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )  # fmt: skip
    assert done.returncode == 0
    size = os.path.getsize(tmp_path / "out")
    assert size > 2 * limit
    with (tmp_path / "out").open("rb") as out:
        assert out.read(2) == b"[{"
        out.seek(size - 3)
        assert out.read() == b"}]\n"


def test_a_table_of_many_rows_takes_little_memory(tmp_path):
    binding = {"service": "http", "protocol": "tcp", "prefix": "192.0.2.0/24", "ports": "80", "source": None,
               "interface": None, "when_absent": "refuse", "file": "/etc/sockbroker/conf.d/a.conf", "line": 3}
    record = rows(binding) * (60000 // len(rows(binding)))
    records = 300_000 // record.count("\n")
    limit = 24 << 20
    Peer(tmp_path, lambda _: (record if i < records else OK for i in range(records + 1)))
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.run(
            [CTL, "bindings", "--runtime-dir", tmp_path], stdout=out,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
        )  # fmt: skip
    lines = (tmp_path / "out").read_text().splitlines()
    assert done.returncode == 0 and len(lines) == records * record.count("\n") + 3
    assert lines[0] == "SERVICE PROTOCOL PREFIX       PORTS SOURCE INTERFACE WHEN-ABSENT FILE"
    assert lines[1] == lines[-3] == ("http    tcp      192.0.2.0/24 80    any    any       refuse      "
                                     "/etc/sockbroker/conf.d/a.conf:3")
    assert lines[-1] == f"{len(lines) - 3} bindings listed."


def test_an_answer_that_breaks_off_is_no_valid_json(tmp_path):
    Peer(tmp_path, lambda _: [rows(ROW), None])
    done = ctl("list", "--json=short", "--runtime-dir", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("sockbrokerctl: ")
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)


def test_output_that_cannot_be_written_is_a_failure(tmp_path):
    Peer(tmp_path, lambda _: [rows(ROW), OK])
    with open("/dev/full", "wb") as full:
        done = subprocess.run([CTL, "list", "--runtime-dir", tmp_path], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (
        1,
        "sockbrokerctl: cannot write to standard output: No space left on device\n",
    )


def on_terminal(arguments, env):
    """Runs the tool with a terminal as standard output; returns what the terminal was sent."""
    master, slave = pty.openpty()
    unset = ("NO_COLOR", "SUDO_UID", "PAGER", "SYSTEMD_PAGER", "LESS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.Popen([CTL, *map(str, arguments)], stdout=slave, env={**environment, "TERM": "xterm", **env})
    os.close(slave)
    output = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: no writer is left
            data = b""
        if not data:
            break
        output += data
    os.close(master)
    assert done.wait() == 0
    return output.decode().replace("\r\n", "\n")


def test_on_a_terminal_the_header_is_bold_and_the_pager_runs(tmp_path):
    Peer(tmp_path, lambda _: [rows(ROW), OK])
    output = on_terminal(["list", "--runtime-dir", tmp_path], {"SYSTEMD_PAGER": "sed s/^/paged:/"})
    assert output.startswith("paged:\x1b[1mSERVICE ")
    assert "paged:dns " in output


@pytest.mark.parametrize(
    "arguments, env, expected",
    [
        (["--no-pager"], {"SYSTEMD_PAGER": "sed s/^/paged:/"}, "\x1b[1mSERVICE "),
        ([], {"SYSTEMD_PAGER": "cat"}, "\x1b[1mSERVICE "),
        ([], {"SYSTEMD_PAGER": "", "PAGER": "sed s/^/paged:/"}, "\x1b[1mSERVICE "),
        ([], {"PAGER": "sed s/^/paged:/"}, "paged:\x1b[1mSERVICE "),
        ([], {"PAGER": "/nonexistent/pager 2>/dev/null"}, "\x1b[1mSERVICE "),
        (["--no-pager"], {"NO_COLOR": "1"}, "SERVICE "),
        (["--no-pager"], {"TERM": "dumb"}, "SERVICE "),
        (["--no-pager"], {"SYSTEMD_COLORS": "0"}, "SERVICE "),
        (["--no-pager"], {"SYSTEMD_COLORS": "256", "NO_COLOR": "1"}, "\x1b[1mSERVICE "),
        (["--no-pager"], {"SYSTEMD_COLORS": "auto-16", "NO_COLOR": "1"}, "SERVICE "),
    ],
)
def test_pager_and_colours_can_be_turned_off(arguments, env, expected, tmp_path):
    Peer(tmp_path, lambda _: [rows(ROW), OK])
    assert on_terminal(["list", "--runtime-dir", tmp_path, *arguments], env).startswith(expected)


@pytest.fixture(name="peer")
def _peer(tmp_path):
    """peer(records...): a directory whose control socket gives that answer, once."""
    made = []

    def make(*records):
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Peer(folder, lambda _: records))
        return folder

    return make


@pytest.mark.parametrize("option", ["-l", "--full"])
def test_a_table_is_cut_to_the_terminal_unless_it_is_wanted_whole(option, peer):
    narrow = {"COLUMNS": "70", "SYSTEMD_COLORS": "no"}
    cut = on_terminal(["--no-pager", "list", "--runtime-dir", peer(rows(ROW), OK)], narrow)
    whole = on_terminal(["--no-pager", "list", "--runtime-dir", peer(rows(ROW), OK), option], narrow)
    assert "…" in cut and "…" not in whole and len(whole.splitlines()[1]) > len(cut.splitlines()[1])
    assert ctl("list", "--runtime-dir", peer(rows(ROW), OK), env=narrow).stdout == whole, "only on a terminal"


def test_quiet_leaves_out_legends_and_what_was_done(peer):
    quiet = ctl("list", "-q", "--runtime-dir", peer(rows(ROW), OK)).stdout
    assert quiet == ctl("list", "--no-legend", "--runtime-dir", peer(rows(ROW), OK)).stdout != ""
    for option, text in (("--quiet", True), ("--json=off", False)):
        done = ctl("hold", "web", "--timeout=1s", option, "--runtime-dir", peer("RESULT=ok\nERRNO=0\nMESSAGE=held\n"))
        assert done.returncode == 0 and (done.stdout == "") is text


def test_modes_of_json_are_listed():
    done = ctl("--json=help")
    assert (done.returncode, done.stdout) == (0, "short\npretty\noff\n")


# status


STATUS = {
    "version": "0.1.0", "state": "degraded", "reason": "policy refused, 2 errors", "since": 1709500000000000,
    "degraded_since": 1709528767654321,
    "policy": {"files": 1, "services": 1, "bindings": 2, "since": 1709528767654321},
    "sockets": {"live": 1, "draining": 0, "held": 2},
    "capacity": {"bindings": 65536, "services": 1024, "sockets": 4096}, "refused": 3, "journal_lost": 7,
}  # fmt: skip
SERVICE = {
    "service": "dns", "sockets": 1, "lookups": 10, "assigned": 6, "no_socket": 1,
    "errors": {"protocol": 1, "family": 0, "state": 2, "exists": 0, "other": 0},
}  # fmt: skip


def test_status_tells_what_is_wrong_and_counts(tmp_path):
    Peer(tmp_path, lambda _: [rows(STATUS, SERVICE), OK])
    done = ctl("status", "--runtime-dir", tmp_path, env={"TZ": "UTC"})
    assert (done.returncode, done.stderr) == (1, ""), "degraded"
    assert done.stdout == (
        "● sockbrokerd 0.1.0\n"
        "     State: degraded since " + SINCE + "\n"
        "    Reason: policy refused, 2 errors\n"
        "    Policy: 1 file, 1 service, 2 bindings; applied " + SINCE + "\n"
        "   Sockets: 1 live, 2 held, 0 draining\n"
        "  Capacity: 65536 bindings, 1024 services, 4096 sockets\n"
        "   Refused: 3 requests\n"
        "   Journal: 7 entries lost\n"
        "\n"
        "SERVICE SOCKETS LOOKUPS ASSIGNED NO-SOCKET ERRORS\n"
        "dns           1      10        6         1      3\n"
        "\n"
        "1 service listed.\n"
    )


def test_status_as_json_is_one_object(tmp_path):
    Peer(tmp_path, lambda _: [rows(STATUS, SERVICE), OK])
    done = ctl("status", "--json=short", "--runtime-dir", tmp_path)
    assert done.stdout == rows({**STATUS, "services": [SERVICE]})


@pytest.mark.parametrize("arguments, status", [
    ([], 0), (["dns"], 0), (["web"], 3), (["dns", "web"], 3), (["*"], 3), (["d*"], 0), (["none"], 4),
    (["dns", "none"], 4), (["x*"], 4)])
def test_status_of_services_exits_as_they_serve(arguments, status, tmp_path):
    services = [{**SERVICE, "live": 1}, {**SERVICE, "service": "web", "sockets": 2, "live": 0, "held": 2}]
    Peer(tmp_path, lambda _: [rows({**STATUS, "state": "running"}, *services), OK])
    done = ctl("status", *arguments, "--json=short", "--runtime-dir", tmp_path)
    assert done.returncode == status
    named = {one["service"] for one in json.loads(done.stdout)["services"]}
    expected = {name for name in ("dns", "web") if not arguments or {name, "*", f"{name[0]}*"} & set(arguments)}
    assert named == expected


@pytest.mark.parametrize("arguments, lines", [
    ([], {1, 2, 3, 4}), (["dns"], {1, 2}), (["h*"], {4}), (["1.0.0.7"], {1, 4}), (["1.0.0.0/8"], {1, 4}),
    (["2606:4700::1"], {2, 4}), (["[2606::]/16"], {2, 4}), (["9.9.9.9", "web"], {3, 4})])
def test_bindings_of_services_and_of_addresses(arguments, lines, tmp_path):
    def binding(line, service, prefix):
        return {"service": service, "protocol": "tcp", "prefix": prefix, "ports": "53", "source": None,
                "interface": None, "when_absent": "refuse", "file": "a.conf", "line": line}

    Peer(tmp_path, lambda _: [rows(binding(1, "dns", "1.0.0.0/24"), binding(2, "dns", "2606:4700::/32"),
                                   binding(3, "web", "10.0.0.0/8"), binding(4, "http", None)), OK])
    done = ctl("bindings", *arguments, "--json=short", "--runtime-dir", tmp_path)
    assert done.returncode == 0 and {row["line"] for row in json.loads(done.stdout)} == lines


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
        assert time.monotonic() - begun < 3
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
        assert 4.5 < time.monotonic() - begun < 6


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


# register and unregister


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
