"""Prometheus' own programs take what the server gives them; the dashboard asks for what is there."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner
from edgeml_devices.operator.grafana_cli import grafana
from edgeml_devices.server.alerts.check_cli import check
from edgeml_devices.server.alerts.expressions import METRICS
from edgeml_devices.server.alerts.rules import read_rules
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import REPOSITORY, require
from tests.integration.server_process import ServerProcess

EXAMPLES = REPOSITORY / "examples" / "alerts"
MISSING = "needs promtool and prometheus: apt-get install prometheus"


def need_prometheus() -> None:
    require(shutil.which("promtool") and shutil.which("prometheus"), MISSING)


def scrape(server: ServerProcess) -> str:
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    request = Request(f"{server.url}/metrics", headers=headers)  # noqa: S310 - of this test
    with urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        text: str = answer.read().decode()
    return text


# --- the server's metrics


def test_promtool_accepts_the_metrics(served: ServerProcess) -> None:
    need_prometheus()
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape(served), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_stock_prometheus_scrapes_and_answers(served: ServerProcess, tmp_path: Path) -> None:
    need_prometheus()
    (tmp_path / "token").write_text(served.admin_token)
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(
        f"""
scrape_configs:
  - job_name: edgeml
    scrape_interval: 1s
    authorization: {{credentials_file: {tmp_path}/token}}
    static_configs: [{{targets: ["{served.url.removeprefix("http://")}"]}}]
"""
    )
    command = [
        "prometheus",
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/tsdb",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        calls = ask(port, 'sum by (release) (edgeml_inferences_total{model="kws"})')
        assert {one["metric"]["release"]: one["value"][1] for one in calls} == {"7": "600", "8": "600"}
        shares = ask(port, "sum(edgeml_inference_errors_total) / sum(edgeml_inferences_total)")
        assert shares[0]["value"][1] == "0.05"
        (p95,) = ask(
            port,
            'histogram_quantile(0.95, sum by (le) (edgeml_inference_duration_seconds_bucket{release="7"}))',
        )
        assert 0.03 < float(p95["value"][1]) < 0.125
    finally:
        process.terminate()
        process.wait(30)


def ask(port: int, query: str, timeout_s: float = 120.0) -> list[dict[str, Any]]:
    """Ask Prometheus until it has an answer."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}", timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except URLError:
            found = []
        if found:
            return found
        assert time.monotonic() < deadline, f"no answer to {query}"
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


# --- the examples of alerts


def test_promtool_and_edgeml_take_the_examples_of_rules() -> None:
    need_prometheus()
    rules = EXAMPLES / "rules.yml"
    done = subprocess.run(
        ["promtool", "check", "rules", str(rules)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    checked = CliRunner().invoke(check, [str(rules), str(EXAMPLES / "receivers.toml")])
    assert checked.exit_code == 0, checked.output
    assert "on-call, mail, log" in checked.output


def test_the_examples_show_every_metric_of_rules_and_each_has_a_receiver() -> None:
    rules = read_rules(EXAMPLES / "rules.yml")
    assert {one.expression.metric for one in rules} == set(METRICS)
    assert {one.labels["severity"] for one in rules} == {"page", "ticket"}


# --- the dashboard


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    printed = CliRunner().invoke(grafana)
    assert printed.exit_code == 0
    found: dict[str, Any] = json.loads(printed.output)
    return found


def test_the_dashboard_has_what_grafana_needs(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 36
    assert dashboard["id"] is None
    assert dashboard["uid"]
    assert dashboard["title"]
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 10
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, panel["title"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & taken, f"{panel['title']} covers another panel"
        taken |= own
        assert panel["type"] in {"stat", "timeseries", "heatmap"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert [one["refId"] for one in panel["targets"]] == sorted(
            {one["refId"] for one in panel["targets"]}
        )
    first, *variables = dashboard["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert {one["name"] for one in variables} == {"model", "release", "target"}


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"][1:]:
        yield variable["definition"]


def test_the_dashboard_asks_for_metrics_and_labels_that_are_there(
    served: ServerProcess, dashboard: dict[str, Any]
) -> None:
    exposed: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(scrape(served)):
        exposed.setdefault(family.name, set())
        if family.type == "counter":
            exposed.setdefault(f"{family.name}_total", set())
        for sample in family.samples:
            exposed.setdefault(sample.name, set()).update(sample.labels)
    # no rule is watched on this server: an alert has these labels
    exposed["edgeml_alerts"] |= {"alertname", "state"}
    used: set[str] = set()
    for text in expressions(dashboard):
        names = set(re.findall(r"\bedgeml_\w+", text))
        assert names, text
        assert names <= set(exposed), f"{names - set(exposed)} of {text}"
        labels = set(re.findall(r'(\w+)\s*(?:=~|!=|!~|=)\s*"', text))
        for grouped in re.findall(r"\bby \(([^)]*)\)", text):
            labels |= {one.strip() for one in grouped.split(",")}
        for asked in re.findall(r"label_values\(.*, (\w+)\)", text):
            labels.add(asked)
        for name in names:
            assert labels <= exposed[name], f"{labels - exposed[name]} of {name} in {text}"
        used |= {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in names}
    families = {family.name for family in text_string_to_metric_families(scrape(served))}
    assert used == {one for one in families if one.startswith("edgeml_")}


def test_promtool_reads_every_expression(dashboard: dict[str, Any], tmp_path: Path) -> None:
    """As recording rules; Grafana fills its variables in first."""
    need_prometheus()
    found = [
        text.replace("$__rate_interval", "5m")
        for panel in dashboard["panels"]
        for text in (target["expr"] for target in panel["targets"])
    ]
    rules = [{"record": f"panel:{place}", "expr": text} for place, text in enumerate(found)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
