# SPDX-License-Identifier: LGPL-2.1-or-later
"""What sockbrokerctl prints of what a broker answers: tables, JSON, on a terminal, and however much there is."""

import json
import os
import pty
import resource
import subprocess

import pytest

from support.tool import CTL, OK, ROW, SINCE, Peer, ctl, rows


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
        ([], {"SYSTEMD_PAGER": "echo $LESS", "LESS": "R"}, "R\n"),
        ([], {"SYSTEMD_PAGER": "echo $LESS", "LESS": "R", "SYSTEMD_LESS": "RX"}, "RX\n"),
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
