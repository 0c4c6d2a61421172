# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a reload would do, what it does on trial, and what is on disk: diff, reload --confirm= and --keep, cat,
verify."""

import json
import re
import subprocess

import pytest

from harness import broker as broker_module
from harness import client, namespace
from harness.until import until
from words import ADDRESS, PORT, add_routes, everywhere, handed_over, listen, section


def told(broker, *arguments):
    done = subprocess.run([broker_module.BUILD / "sockbrokerctl", "--runtime-dir", broker.runtime, "--config-dir",
                           broker.config, "--json=short", *arguments], capture_output=True, text=True, timeout=30,
                          check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_diff_says_what_a_reload_would_do_and_does_nothing(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere(), "HoldSec=10s")
                  + section("dns", 61002, listen("udp", "10.0.0.0/8", 53)))
    broker.start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    assert told(broker, "diff") == (0, [])
    assert broker.ctl("diff") == (0, "A reload would change nothing.\n")
    before = broker.snapshot(), broker.status()[0]["policy"]
    broker.policy(section("web", 61009, listen("tcp", "192.0.2.0/24"), listen("tcp", "192.0.3.0/24"), "HoldSec=1min") +
                  section("other", 61002, listen("udp", "10.0.0.0/8", 53)))
    status, rows = told(broker, "diff")
    assert status == 1
    bindings = {(row["change"], row["service"], row["protocol"], row["prefix"], row["from"])
                for row in rows if row["kind"] == "binding"}
    assert bindings == {("removed", "web", "udp", "192.0.2.0/24", None),
                        ("removed", "web", "udp", "2001:db8::/64", None),
                        ("removed", "web", "tcp", "2001:db8::/64", None), ("added", "web", "tcp", "192.0.3.0/24", None),
                        ("moved", "other", "udp", "10.0.0.0/8", "dns")}
    assert [row["settings"] for row in rows if row["kind"] == "settings"] == [["User", "HoldSec"]]
    gone = [row for row in rows if row["kind"] == "socket"]
    assert len(gone) == 1 and gone[0]["service"] == "web" and gone[0]["why"] == "policy does not admit it any more"
    text = broker.ctl("diff")[1]
    assert "+ web tcp 192.0.3.0/24 port 7000" in text and "~ other udp 10.0.0.0/8 port 53, now of dns" in text
    assert "! web loses the tcp socket" in text and "~ web has other User= HoldSec=" in text
    assert (broker.snapshot(), broker.status()[0]["policy"]) == before
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"
    assert broker.reload()[0] == 0
    assert told(broker, "diff") == (0, []) and broker.list() == []


def test_diff_of_a_policy_that_would_be_refused_names_the_errors(broker):
    broker.policy("").start()
    broker.policy("[Service web]\nFrob=1\n")
    status, text = broker.ctl("diff")
    assert status == 1 and "50-test.conf:2: unknown key Frob=" in text and "a reload would refuse the policy" in text
    assert broker.status()[0]["state"] == "running", "nothing was refused but the question"
    assert told(broker, "diff")[1]["result"] == "malformed"


def test_only_root_may_compare(broker, spawn):
    broker.policy("").start()
    one = spawn("web", 61001)
    for verb in ("diff", "keep"):
        assert one.control(f"VERB={verb}").result == "not-root"


def test_a_reload_on_trial_comes_back_and_one_that_is_kept_stays(broker, spawn):
    add_routes()
    namespace.add_local_routes("10.0.0.0/8")
    first = section("web", 61001, everywhere())
    second = first + section("dns", 61002, listen("udp", "10.0.0.0/8", 53))
    broker.policy(first).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4")
    copy = next(broker.state.iterdir())
    digest = broker.status()[0]["policy"]["digest"]
    broker.policy(second)
    assert told(broker, "reload", "--confirm=2s") == (0, [])
    status = broker.status()[0]
    assert status["policy"]["services"] == 2 and status["policy"]["trial_until"] > status["policy"]["since"]
    assert b"dns" not in copy.read_bytes(), "a restart does not begin with what was never kept"
    until("the policy before comes back", lambda: broker.status()[0]["policy"]["services"] == 1)
    status = broker.status()[0]
    assert status["policy"]["digest"] == digest and status["policy"]["trial_until"] is None
    assert status["state"] == "degraded" and "was not kept in time" in status["reason"]
    assert status["refused_policy"]["digest"] != digest
    assert broker.ctl("reload", "--keep")[0] == 1, "too late"
    assert client.ask("tcp", ADDRESS["ipv4"], PORT).name == "web"

    assert told(broker, "reload", "--confirm=1min") == (0, [])
    assert "sockbrokerctl reload --keep" in broker.ctl("status")[1]
    assert broker.ctl("reload", "--keep")[0] == 0
    status = broker.status()[0]
    assert status["policy"]["trial_until"] is None and status["state"] == "running"
    assert b"dns" in copy.read_bytes()
    assert broker.ctl("reload", "--keep")[0] == 1, "nothing is on trial any more"


def test_a_trial_whose_policy_has_left_the_disk_degrades_nothing_by_its_end(broker):
    add_routes()
    namespace.add_local_routes("10.0.0.0/8")
    first = section("web", 61001, everywhere())
    broker.policy(first).start()
    digest = broker.status()[0]["policy"]["digest"]
    broker.policy(first + section("dns", 61002, listen("udp", "10.0.0.0/8", 53)))
    assert told(broker, "reload", "--confirm=2s") == (0, [])
    broker.policy(first)
    assert broker.status()[0]["policy"]["digest"] != digest
    until("the policy before comes back", lambda: broker.status()[0]["policy"]["digest"] == digest)
    status = broker.status()[0]
    assert (status["state"], status["reason"]) == ("running", None)
    broker.wait_log("the policy on trial was not kept in time .* the one before it is in force again, as it is on disk")


def test_a_plain_reload_ends_a_trial(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    assert broker.ctl("reload", "--confirm=1h")[0] == 0
    assert broker.reload()[0] == 0
    assert broker.status()[0]["policy"]["trial_until"] is None


def test_the_digest_is_of_the_text(broker):
    text = section("web", 61001, everywhere())
    broker.policy(text).start()
    first = broker.status()[0]["policy"]["digest"]
    broker.policy(text + "# another\n")
    assert broker.reload()[0] == 0
    assert broker.status()[0]["policy"]["digest"] not in ("", first)
    broker.policy("Frob\n")
    assert broker.reload()[0] == 1
    broker.policy(text)
    refused = broker.status()[0]["refused_policy"]
    assert broker.reload()[0] == 0
    assert broker.status()[0]["policy"]["digest"] == first and broker.status()[0]["refused_policy"] == refused


def test_cat_shows_the_files_of_services(broker):
    broker.policy("[Service web]\nUser=1\n", "10-web.conf")
    broker.policy("[Service dns]\nUser=1\n# \x1b[2J", "20-dns.conf")
    web, dns = (broker.config / "conf.d" / name for name in ("10-web.conf", "20-dns.conf"))
    def cat(*words):
        return broker.ctl("cat", "--config-dir", str(broker.config), *words)
    assert cat() == (0, f"# {web}\n[Service web]\nUser=1\n\n# {dns}\n[Service dns]\nUser=1\n# \\x1b[2J\n")
    assert cat("w*") == (0, f"# {web}\n[Service web]\nUser=1\n")
    assert cat("none") == (1, "sockbrokerctl: no policy file has a section [Service none]\n")
    assert told(broker, "cat", "web") == (0, [{"file": str(web), "text": "[Service web]\nUser=1\n"}])


@pytest.mark.parametrize("words, status",
                         [([], 0), (["--offline"], 0), (["--strict"], 1), (["--strict", "--offline"], 0)])
def test_verify_offline_and_strict(broker, words, status):
    broker.policy("[Service web]\nUser=no-such-user\nInterface=no-such-0\nListenStream=80\n")
    assert broker.ctl("verify", "--config-dir", str(broker.config), *words)[0] == status


def test_verify_of_files_and_of_another_root(broker, tmp_path):
    good, bad = tmp_path / "good.conf", tmp_path / "bad.conf"
    good.write_text("[Service web]\nUser=0\nListenStream=80\n")
    bad.write_text("[Service web]\nFrob=1\n")
    broker.policy("Nonsense\n")
    assert broker.ctl("verify", str(good))[0] == 0
    status, text = broker.ctl("verify", str(good), str(bad))
    assert status == 1 and text.startswith(f"{bad}:2: unknown key Frob=")
    status, text = broker.ctl("verify", str(tmp_path / "none.conf"))
    assert status == 1 and "none.conf" in text
    folder = tmp_path / "etc/sockbroker/conf.d"
    folder.mkdir(parents=True)
    (folder / "a.conf").write_text("[Service web]\nFrob=1\n")
    status, text = broker.ctl("verify", f"--root={tmp_path}")
    assert status == 1 and text.startswith(f"{folder}/a.conf:2: ")
    assert broker.ctl("cat", f"--root={tmp_path}")[1].startswith(f"# {folder}/a.conf\n")


def test_reload_prints_the_sockets_that_it_took_away_and_explain_how_to_get_one_back(broker, spawn):
    add_routes()
    broker.policy(section("web", 61001, everywhere())).start()
    one = spawn("web", 61001)
    handed_over(one, "tcp", "ipv4")
    handed_over(one, "udp", "ipv4")
    broker.policy("[Service web]\nUnit=web.service\nUser=61002\n" + everywhere())
    status, text = broker.reload()
    assert status == 0
    assert "! web loses the tcp socket 127.0.0.1:" in text
    assert f"! web loses the udp socket 127.0.0.1:{PORT} of no unit" in text
    assert text.count("policy does not admit it any more") == 2 and "does not come back by itself" in text
    rows = told(broker, "explain", "tcp", ADDRESS["ipv4"], str(PORT))[1]
    assert rows["verdict"] == "refused"
    notes = " ".join(rows["notes"])
    assert "the last socket of web went" in notes and "policy does not admit it any more" in notes
    assert ("whoever policy admits (Unit=web.service and User=61002) registers a socket, as at: systemctl restart "
            "web.service") in notes
    assert broker.reload() == (0, ""), "nothing more is lost"


def test_reload_counts_the_sockets_beyond_the_first_ten(broker, spawn):
    broker.policy(section("web", 61001, "ListenStream=80", "Handover=share")).start()
    one = spawn("web", 61001)
    for i in range(13):
        handed_over(one, "tcp", "ipv4", f"s{i}")
    broker.policy(section("other", 61001, "ListenStream=80"))
    text = broker.reload()[1]
    assert text.count("! web loses") == 10 and "! 3 more sockets were taken away" in text
    assert broker.ctl("reload", "-q")[1] == ""


def test_a_trial_says_until_when_it_lasts_and_how_to_keep_it(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    status, text = broker.ctl("reload", "--confirm=1h")
    assert status == 0 and re.search(r"On trial: the policy before comes back \w{3} [0-9-]+ [0-9:]+ .*, unless: "
                                     r"sockbrokerctl reload --keep", text)
    assert broker.ctl("reload", "--keep") == (0, "")


def test_degraded_names_the_first_error_and_no_refusal_that_a_good_reload_has_followed(broker):
    broker.policy(section("web", 61001, everywhere())).start()
    broker.policy("[Service web]\nUser=61001\nListenSteam=80\nFrob=1\n")
    status, text = broker.reload()
    file = f"{broker.config}/conf.d/50-test.conf"
    assert status == 1 and f"{file}:3: unknown key ListenSteam=, did you mean ListenStream=?" in text
    assert text.splitlines()[-1] == "sockbrokerctl: policy refused, 2 errors, the running policy stays", \
        "no word of the protocol"
    assert told(broker, "reload")[0] == 1
    reason = broker.status()[0]["reason"]
    assert reason == (f"policy refused, 2 errors, the running policy stays (the first: {file}:3: unknown key "
                      "ListenSteam=, "
                      "did you mean ListenStream=?)")
    assert "Rejected" in broker.ctl("status")[1]
    broker.policy(section("web", 61001, everywhere()))
    assert broker.reload()[0] == 0
    assert "Rejected" not in broker.ctl("status")[1]
    assert broker.status()[0]["refused_policy"]["digest"], "programs may still ask"


def test_diff_shows_bare_ports_once_and_names_a_family_that_changed_alone(broker):
    broker.policy(section("web", 61001, "ListenStream=80")).start()
    broker.policy(section("web", 61001, "ListenStream=443", "Interface=lo", "Interface=lo2"))
    assert broker.ctl("diff")[1].splitlines()[:3] == [
        f"- web tcp any port 80  # {broker.config}/conf.d/50-test.conf:3",
        f"+ web tcp any port 443 on lo  # {broker.config}/conf.d/50-test.conf:3",
        f"+ web tcp any port 443 on lo2  # {broker.config}/conf.d/50-test.conf:3"]
    broker.policy(section("web", 61001, "ListenStream=0.0.0.0/0:80"))
    assert broker.ctl("diff")[1].splitlines() == [f"- web tcp ::/0 port 80  # {broker.config}/conf.d/50-test.conf:3"]


def test_a_binding_of_ports_alone_has_the_fields_in_diff_that_bindings_has(broker):
    """With Source= it is one row for each source in both."""
    broker.policy(section("web", 61001, "ListenStream=80")).start()
    broker.policy(section("web", 61001, "ListenStream=443", "Source=192.0.2.0/24 198.51.100.0/24 2001:db8::/32") +
                  section("dns", 61001, "ListenStream=53"))
    told_by_diff = [row for row in told(broker, "diff")[1] if row["kind"] == "binding" and row["change"] == "added"]
    assert broker.reload()[0] == 0
    for row in told_by_diff:
        for key in ("kind", "change", "from"):
            del row[key]
    in_force = [{key: row[key] for key in row if key not in ("lookups", "no_socket")}
                for row in told(broker, "bindings")[1]]
    assert sorted(told_by_diff, key=str) == sorted(in_force, key=str) and len(in_force) == 4


def test_names_that_no_policy_has_are_an_error_for_list_and_bindings_too(broker, spawn):
    broker.policy(section("web", 61001, everywhere()) + section("idle", 61001, "ListenStream=80")).start()
    handed_over(spawn("web", 61001), "tcp", "ipv4", service="web")
    for verb in ("list", "bindings"):
        status, text = broker.ctl(verb, "web", "nosuch")
        assert status == 4 and "no policy names a service \"nosuch\"" in text and "web" in text
        assert broker.ctl(verb, "idle")[0] == 0, "one without a socket"
        assert broker.ctl(verb, "none*")[0] == 4 and broker.ctl(verb, "i*")[0] == 0
        status, failure = told(broker, verb, "nosuch")
        assert status == 4 and failure["result"] == "unknown-service"
        status, rows = told(broker, verb, "web", "nosuch")
        assert status == 4 and {row["service"] for row in rows} == {"web"}
    assert broker.ctl("bindings", "203.0.113.7")[0] == 0, "an address that nobody has is no mistake"
    broker.stop()
    assert broker.ctl("list", "nosuch", "--bpffs", str(broker.bpffs))[0] == 4
    assert broker.ctl("list", "web", "--bpffs", str(broker.bpffs))[0] == 0
