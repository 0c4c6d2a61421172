# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is installed beside the programs agrees with them: manual pages, completion, message catalog."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CTL = os.environ["SOCKBROKERCTL"]
PAGES = sorted((ROOT / "docs/man").iterdir())
COMPLETION = ROOT / "docs/bash-completion/sockbrokerctl"

HELP = subprocess.run([CTL, "--help"], capture_output=True, text=True, check=True).stdout
VERBS = re.findall(r"^  ([a-z]+) ", HELP.partition("Verbs:")[2].partition("Options:")[0], re.M)
OPTIONS = re.findall(r"--[a-z-]+", HELP.partition("Options:")[2])


def manual(name):
    page = (ROOT / "docs/man" / name).read_text()
    return page.replace("\\-", "-").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "")


def complete(*words, env=None):
    """What bash offers for the last word; words are cut at "=" as readline does."""
    script = (
        f'source {COMPLETION}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sockbrokerctl; '
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", "sockbrokerctl", *words], capture_output=True, text=True, check=True, env=env
    )
    return done.stdout.split()


def test_help_fits_a_terminal_and_lists_verbs_and_options():
    assert len(VERBS) >= 9 and len(OPTIONS) >= 9
    assert max(map(len, HELP.splitlines())) <= 80


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_manual_pages_format_without_warnings(page):
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFSEQ": ""}
    done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", page], capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "NAME" in done.stdout and "SEE ALSO" in done.stdout


def test_documents_units_and_messages_are_spelled_right():
    if shutil.which("codespell") is None:
        pytest.skip("codespell is not installed")
    # Requests of roff (.TE, bu), kNo of C++, and fro, which is a word.
    done = subprocess.run(["codespell", "--ignore-words-list=bu,te,fro,kno", "--skip=*.svg", *ROOT.glob("*.md"),
                           *(ROOT / name for name in ("bpf", "broker", "conf.d", "docs", "sandbox", "units"))],
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("document", [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))],
                         ids=lambda path: path.name)
def test_links_of_documents_lead_somewhere(document):
    def anchors(path):
        titles = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    for target in LINK.findall(re.sub(r"```.*?```", "", document.read_text(), flags=re.S)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pytest.mark.parametrize("verb", VERBS)
def test_the_manual_describes_each_verb(verb):
    assert re.search(rf"^\.(B|BI|BR) \"?{verb}\b", manual("sockbrokerctl.1").partition(".SH VERBS")[2], re.M)


@pytest.mark.parametrize("option", OPTIONS)
def test_the_manual_describes_each_option(option):
    assert option in manual("sockbrokerctl.1").partition(".SH OPTIONS")[2].partition(".SH JSON")[0]


RUN_HELP = subprocess.run([os.environ["SOCKBROKER_RUN"], "--help"], capture_output=True, text=True, check=True).stdout
RUN_OPTIONS = sorted(re.findall(r"--[a-z-]+", RUN_HELP.partition("Sockets:")[2]))


def test_the_help_of_sockbroker_run_fits_a_terminal():
    assert len(RUN_OPTIONS) == 15 and max(map(len, RUN_HELP.splitlines())) <= 80


@pytest.mark.parametrize("option", RUN_OPTIONS)
def test_the_manual_of_sockbroker_run_describes_each_option(option):
    assert option in manual("sockbroker-run.1").partition(".SH OPTIONS")[2].partition(".SH PROFILES")[0]


@pytest.mark.parametrize("program", ["sockbrokerd", "sockbroker-routes", "sockbroker-exporter"])
def test_the_manual_of_a_daemon_describes_the_options_of_its_help_and_no_other(program):
    shown = subprocess.run([pathlib.Path(CTL).parent / program, "--help"], capture_output=True, text=True, check=True)
    section = manual(f"{program}.8").partition(".SH OPTIONS\n")[2].partition("\n.SH ")[0]
    described = re.findall(r"--[a-z-]+", "\n".join(re.findall(r"^\.B.*$", section, re.M)))
    assert set(described) == set(re.findall(r"--[a-z-]+", shown.stdout))
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_the_manual_of_sockbroker_run_lists_each_exit_status():
    source = (ROOT / "sandbox/run/options.h").read_text()
    statuses = re.findall(r"kExit\w+ = (\d+);", source)
    assert len(statuses) == 7
    section = manual("sockbroker-run.1").partition(".SH EXIT STATUS")[2].partition(".SH EXAMPLES")[0]
    assert re.findall(r"^\.B (\d+)$", section, re.M) == statuses


def complete_run(*words, env=None):
    script = (
        f'source {ROOT}/docs/bash-completion/sockbroker-run; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_sockbroker_run; '
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", "sockbroker-run", *words], capture_output=True, text=True, check=True, env=env
    )
    return done.stdout.split()


def test_completion_of_sockbroker_run_offers_options_then_programs():
    assert sorted(complete_run("--")) == RUN_OPTIONS
    assert "setpriv" in complete_run("--profile", "=", "strict", "setpr")
    assert complete_run("setpriv", "--reu") == []
    assert complete_run("--runtime-dir", "=", str(ROOT / "docs/ma")) == [str(ROOT / "docs/man")]
    profile = str(ROOT / "sandbox/profiles/strict.profile")
    assert complete_run("--profile", "=", profile.removesuffix(".profile")) == [profile], "a path, which no name begins"


def test_the_manual_lists_every_message_id_with_its_action():
    source = (ROOT / "broker/audit/action.cc").read_text()
    table = re.findall(r'Row\{Action::\w+, "([a-z-]+)", "([0-9a-f]{32})"\}', source)
    assert table
    assert re.findall(r"^([a-z-]+)\t([0-9a-f]{32})\t", manual("sockbrokerd.8"), re.M) == table


def test_the_manual_lists_every_field_of_the_journal():
    fields = set(re.findall(r'"(SOCKBROKER_\w+|OBJECT_PID)[="]', (ROOT / "broker/audit/format.cc").read_text()))
    assert len(fields) == 14
    for field in fields:
        assert field + "=" in manual("sockbrokerd.8")


def test_the_manual_lists_every_result():
    results = re.findall(r'"([a-z]+(?:-[a-z]+)*)"', (ROOT / "broker/protocol/result_code.cc").read_text())
    assert len(results) >= 15
    section = manual("sockbrokerd.8").partition(".SH RESULTS")[2].partition(".SH JOURNAL")[0]
    for result in results:
        assert f".B {result}\n" in section


def test_completion_offers_every_verb_and_option():
    assert complete("") == VERBS
    assert sorted(complete("--")) == sorted(OPTIONS)
    assert complete("--no-pager", "un") == ["unregister", "undrain", "unload"]


def test_completion_knows_values_of_options():
    assert complete("list", "--json", "=", "p") == ["pretty"]
    assert complete("--json", "=") == ["short", "pretty", "off", "help"]
    assert complete("--json", "") == ["short", "pretty", "off", "help"]
    assert complete("--config-dir", "=", str(ROOT / "docs/ma")) == [str(ROOT / "docs/man")]
    assert complete("wait", "web", "--for", "=", "") == ["live", "drained"]
    # The value of an option is no verb.
    assert complete("--runtime-dir", "list", "relo") == ["reload"]
    assert complete("--runtime-dir", "=", "list", "relo") == ["reload"]
    assert complete("list", "") == []


def test_completion_asks_the_broker_for_services(tmp_path):
    tool = tmp_path / "sockbrokerctl"
    status = '{"state":"running","services":[{"service":"web","sockets":1},{"service":"dns","sockets":0}]}'
    tool.write_text(f'#!/bin/sh\ntest "$1 $2" = "--runtime-dir /r" || exit 3\necho \'{status}\'\n')
    tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert complete("--runtime-dir", "=", "/r", "unregister", "", env=env) == ["dns", "web"]
    assert complete("unregister", "", env=env) == []
    tool.write_text(f"#!/bin/sh\ncase $* in *--json=short*) echo '{status}' ;; *) echo '● sockbrokerd 1.0' ;; esac\n")
    assert complete_run("--service", "=", "", env=env) == ["dns", "web"]


def test_systemd_takes_the_catalog(tmp_path):
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(ROOT / "units/sockbroker.catalog", folder)
    done = subprocess.run(
        ["journalctl", "--update-catalog", f"--root={tmp_path}"], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    database = (tmp_path / "var/lib/systemd/catalog/database").read_bytes()
    for subject in re.findall(r"^Subject: .*$", (ROOT / "units/sockbroker.catalog").read_text(), re.M):
        assert subject.encode() in database


def test_the_libraries_that_a_machine_needs_are_those_the_programs_are_linked_to():
    """By Debian's packages; libc6, libgcc-s1 and what those of the list bring are everywhere."""
    linked = set()
    beside = [pathlib.Path(CTL).parent / name for name in ("sockbrokerd", "sockbroker-routes", "sockbroker-exporter")]
    for program in CTL, os.environ["SOCKBROKER_RUN"], *beside:
        header = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
        linked |= set(re.findall(r"\(NEEDED\).*\[(.*)\]", header))
    owners = subprocess.run(["dpkg-query", "--search", *(f"*-linux-gnu/{name}" for name in linked)],
                            capture_output=True, text=True)
    packages = {line.partition(":")[0] for line in owners.stdout.splitlines()}
    listed = re.search(r"^apt-get install (lib.*)$", (ROOT / "docs/install.md").read_text(), re.M)[1].split()
    # The text names the other one; t64 provides the name without.
    other = {"libfmt9": "libfmt10", "libfmt10": "libfmt9", "libmicrohttpd12": "libmicrohttpd12t64"}
    assert {other.get(name, name) if name not in packages else name
            for name in listed} == packages - {"libc6", "libgcc-s1"}


@pytest.mark.skipif("SOCKBROKER_LONG" not in os.environ and not os.path.exists("/usr/aarch64-linux-gnu/include/asm"),
                    reason="linux-libc-dev-arm64-cross is not installed, and only SOCKBROKER_LONG unpacks it")
def test_the_bpf_programs_are_the_same_bytes_for_arm64(tmp_path):
    """As docs/install.md says: with the kernel's headers of arm64 instead of this machine's."""
    top = pathlib.Path("/")
    if not os.path.exists("/usr/aarch64-linux-gnu/include/asm"):
        top = pathlib.Path(subprocess.run([ROOT / "tests/servers/unpack", "linux-libc-dev-arm64-cross"],
                                          stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
    build = pathlib.Path(os.environ["SOCKBROKER_BUILD"])
    programs = sorted((build / "bpf").glob("*.bpf.o"))
    assert len(programs) == 4
    for program in programs:
        target = program.relative_to(build)
        command = subprocess.run(["ninja", "-C", build, "-t", "commands", target], capture_output=True, text=True,
                                 check=True).stdout.splitlines()[-1]
        other = re.sub(r"/usr/include/\S+-linux-gnu", f"{top}/usr/aarch64-linux-gnu/include", command)
        assert other != command
        subprocess.run(other.replace(f"-o {target}", f"-o {tmp_path}/other.o"), shell=True, cwd=build, check=True)
        assert (tmp_path / "other.o").read_bytes() == program.read_bytes(), program.name


INLINE = [(document.name, words) for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
          for words in re.findall(r"`([^`\n]+)`", document.read_text())]


@pytest.mark.parametrize("program, verbs, options",
                         [("sockbrokerctl", VERBS, OPTIONS), ("sockbroker-run", None, RUN_OPTIONS)])
def test_commands_that_stand_in_a_sentence_have_verbs_and_options_that_exist(program, verbs, options):
    """Blocks are run, by tests/system/test_documents.py; these are not."""
    seen = 0
    for document, words in INLINE:
        if called := re.search(rf"(?:^|[ /]){program} (.+)", words):
            seen += 1
            given = called[1].split()
            named = [word.partition("=")[0] for word in given if re.match("--[a-z]", word)]
            assert set(named) <= {*options, "--help", "--version"}, f"{document}: {words}"
            if verbs is not None:
                verb = next((word for word in given if not word.startswith("-")), None)
                assert verb is None or verb in verbs, f"{document}: {words}"
    assert seen >= 2
