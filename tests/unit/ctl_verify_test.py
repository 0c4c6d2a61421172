# SPDX-License-Identifier: LGPL-2.1-or-later
"""sockbrokerctl verify, as an ordinary user and without a broker."""

import json
import os
import pathlib
import subprocess
import tempfile

import pytest

from support.tool import CTL, ctl

GOOD = "[Service dns]\nUser=0\nListenDatagram=1.0.0.0/24:53\nListenStream=53\n"
BAD = "[Service dns]\nUser=0\nListenDatagram=1.0.0.1/24:53\nFrob=1\n"


@pytest.fixture
def policy(tmp_path):
    """Writes conf.d files; returns the directory for --config-dir."""

    def write(folder=tmp_path, **files):
        (folder / "conf.d").mkdir()
        for name, text in files.items():
            (folder / "conf.d" / f"{name}.conf").write_text(text)
        return folder

    return write


def ordinary_user():
    os.setgroups([])
    os.setgid(61001)
    os.setuid(61001)


@pytest.fixture(name="public_policy")
def _public_policy(policy):
    """In a directory of its own, for pytest's are closed to an ordinary user."""
    with tempfile.TemporaryDirectory() as name:
        folder = policy(pathlib.Path(name), good=GOOD)
        folder.chmod(0o755)
        yield folder


def verify_as_ordinary_user(*arguments):
    preexec = ordinary_user if os.geteuid() == 0 else None
    with open(CTL, "rb") as program:  # the build tree is closed to that user too
        return subprocess.run(
            [f"/proc/self/fd/{program.fileno()}", "verify", *arguments],
            pass_fds=[program.fileno()], preexec_fn=preexec, cwd="/", capture_output=True, text=True,
        )  # fmt: skip


def test_verify_needs_no_privilege(public_policy):
    done = verify_as_ordinary_user(f"--config-dir={public_policy}")
    assert (done.returncode, done.stderr) == (0, "")
    # What this machine has of it may be warned of.
    assert done.stdout.endswith("The policy is valid: 1 file, 1 service, 2 bindings.\n")


@pytest.mark.parametrize("of", ["file", "directory", "named file", "offline"])
def test_verify_by_one_who_may_not_read_a_file_says_that_and_not_that_the_broker_may_not(public_policy, of):
    path = public_policy / "conf.d" if of == "directory" else public_policy / "conf.d/good.conf"
    path.chmod(0)
    arguments = {"named file": [path], "offline": [f"--config-dir={public_policy}", "--offline"]}
    done = verify_as_ordinary_user(*arguments.get(of, [f"--config-dir={public_policy}"]))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{path}: you may not read it, and it was not checked: run verify as root"]
    path.chmod(0o755)


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


@pytest.mark.parametrize("verb", [["verify", "--offline"], ["cat"]], ids=" ".join)
@pytest.mark.parametrize("option", ["--config-dir", "--root"])
def test_a_named_directory_that_is_not_there_is_a_slip(verb, option, tmp_path):
    done = ctl(*verb, f"{option}={tmp_path}/nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot read the directory {tmp_path}/nowhere given by {option}" in done.stderr
    assert ctl(*verb, f"{option}={tmp_path}").returncode == 0


def test_a_config_dir_is_looked_for_below_a_root(tmp_path):
    (tmp_path / "srv/conf.d").mkdir(parents=True)
    assert ctl("verify", "--offline", f"--root={tmp_path}", "--config-dir=/srv").returncode == 0


def test_verify_of_a_root_warns_of_links_that_lead_to_this_host(tmp_path):
    (tmp_path / "host.conf").write_text(GOOD)
    folder = tmp_path / "root/etc/sockbroker/conf.d"
    folder.mkdir(parents=True)
    (folder / "real.txt").write_text("")
    for name, target in {"a": tmp_path / "host.conf", "b": "/dev/null", "c": "real.txt"}.items():
        (folder / f"{name}.conf").symlink_to(target)
    done = ctl("verify", f"--root={tmp_path}/root")
    assert done.returncode == 0 and done.stdout.splitlines()[:-1] == [
        f"{folder}/a.conf: warning: is a link to {tmp_path}/host.conf, which was looked for on this host and not below "
        "--root=: make the link relative"]


@pytest.mark.parametrize("link", ["etc/sockbroker", "etc/sockbroker/conf.d"])
def test_verify_of_a_root_warns_of_a_directory_that_is_a_link_to_this_host(tmp_path, link):
    host = tmp_path / "host"
    (host / "conf.d").mkdir(parents=True)
    (host / "conf.d/a.conf").write_text(GOOD)
    path = tmp_path / "root" / link
    path.parent.mkdir(parents=True)
    target = host / "conf.d" if path.name == "conf.d" else host
    path.symlink_to(target)
    done = ctl("verify", f"--root={tmp_path}/root")
    assert (done.returncode, done.stdout.splitlines()[:-1]) == (0, [
        f"{path}: warning: is a link to {target}, which was looked for on this host and not below --root=: make the "
        "link relative"])


def test_verify_reads_what_lies_in_the_state_directory_as_the_broker_does(policy, tmp_path_factory):
    folder, state = policy(), tmp_path_factory.mktemp("state")
    (state / "linked.conf").write_text(GOOD)
    (folder / "conf.d/linked.conf").symlink_to(state / "linked.conf")
    done = ctl("verify", "--config-dir", folder, "--state-dir", state)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    done = ctl("verify", "--config-dir", folder, "--state-dir", "/var/lib/sockbroker")
    assert done.returncode == 1 and f"{folder}/conf.d/linked.conf: cannot read the file" in done.stdout


def test_verify_warns_of_a_policy_without_a_file(tmp_path, policy):
    done = ctl("verify", "--offline", "--strict", f"--root={tmp_path}")
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path}/etc/sockbroker/conf.d: warning: there is no policy file, here or in any")
    assert ctl("verify", "--offline", "--strict", "--config-dir", policy(none="")).returncode == 0, "one says so"


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
