# SPDX-License-Identifier: LGPL-2.1-or-later
"""Alert rules and dashboard in docs/monitoring: of metrics that there are, and what they say."""

import json
import re

from harness import broker as broker_module
from harness import promtool
from words import everywhere, section

FOLDER = broker_module.TOP / "docs/monitoring"
RULES = FOLDER / "sockbroker.rules.yml"
DASHBOARD = json.loads((FOLDER / "sockbroker.dashboard.json").read_text(encoding="utf-8"))
METRIC = re.compile(r"\bsockbroker_\w+")


def expressions():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    yield from re.findall(r"^ +expr: (.+)$", RULES.read_text(encoding="utf-8"), re.M)


def test_only_metrics_that_there_are_and_their_labels(broker):
    broker.policy(section("web", 61001, everywhere(), "Accounting=binding")).start()
    status, text = broker.ctl("metrics")
    assert status == 0
    kinds = dict(re.findall(r"^# TYPE (sockbroker_\w+) (\w+)$", text, re.M))
    there = {name + ("_total" if kind == "counter" else "") for name, kind in kinds.items()}
    used = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert used and used <= there, used - there


def test_the_dashboard_has_panels_of_its_own_that_do_not_overlap():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels) >= 10
    taken = [(x, y) for panel in panels for place in [panel["gridPos"]]
             for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"]


@promtool.needed
def test_the_alerts_fire_when_they_are_meant_to():
    for command in ["check", "rules", RULES.name], ["test", "rules", "sockbroker.rules.test.yml"]:
        status, said = promtool.run(*command, folder=FOLDER)
        assert status == 0, said
