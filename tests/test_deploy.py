"""What is in ``deploy/``: that it parses, and that it speaks of options and metrics that exist."""

import configparser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from leekfanout.cli import build_parser
from leekfanout.configuration import config
from leekfanout.metrics.collector import families
from leekfanout.status.stats import Condition
from leekfanout.supervision.lifecycle import State
from tests.agent import ROOT
from tests.test_metrics import NOW, status

DEPLOY = ROOT / "deploy"
DRAIN_S = config.Settings(Path()).drain_timeout_s
KILL_MARGIN_S = 1.0
METRIC = re.compile(r"\bleekfanout_[a-z_]+\b")
VARIABLE = re.compile(r"\bLEEK[A-Z_]*\b")


def metrics() -> set[str]:
    """Return the names of all samples that an agent may serve."""
    gauges = {"broker_backlog": 1.0, "last_event_at": 1.0}
    told = status()
    told["gauges"] |= gauges
    names = {sample.name for family in families([told], NOW) for sample in family.samples}
    return names | {"leekfanout_up", "leekfanout_build_info"}


def variables() -> set[str]:
    """Return the variables that the commands' help, Leek and the code know of."""
    text = "".join(path.read_text() for path in (ROOT / "leekfanout").rglob("*.py"))
    return set(VARIABLE.findall(text)) | {
        config.variable_of(key.name) for key in config.SETTINGS_KEYS
    }


def documents(path: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def expressions() -> Iterator[str]:
    """Yield every PromQL expression of the dashboard and the alerts."""
    dashboard = json.loads((DEPLOY / "grafana" / "leekfanout.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable.get("definition", "")
    (alerts,) = documents(DEPLOY / "prometheus" / "alerts.yml")
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / "leekfanout.service")
    return parser


def test_dashboard_and_alerts_ask_for_metrics_and_labels_that_exist() -> None:
    words = {
        "condition": {word.name.lower() for word in Condition},
        "state": {word.name.lower() for word in State},
        "answer": {"2xx", "3xx", "4xx", "5xx", "none"},
    }
    asked = list(expressions())
    assert len(asked) > 25
    for expression in asked:
        assert set(METRIC.findall(expression)) <= metrics(), expression
        for label, value in re.findall(r'(\w+)="([^"]*)"', expression):
            assert value in words[label], expression


def test_rates_are_taken_of_counters_and_of_nothing_else() -> None:
    rated = re.compile(r"\b(?:rate|increase)\((leekfanout_\w+)")
    counters = re.compile(r"_(?:total|bucket|count|sum)$")
    asked = list(expressions())
    assert sum(len(rated.findall(expression)) for expression in asked) > 10
    for expression in asked:
        for name in METRIC.findall(rated.sub("", expression)):
            assert not counters.search(name), expression
        for name in rated.findall(expression):
            assert counters.search(name), expression


def test_every_alert_says_what_to_do() -> None:
    (alerts,) = documents(DEPLOY / "prometheus" / "alerts.yml")
    for rule in alerts["groups"][0]["rules"]:
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_alerts_fire_when_they_should() -> None:
    for command in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]):
        done = subprocess.run(
            ["promtool", *command],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_variables_are_the_agents() -> None:
    for path in (
        *(DEPLOY / "systemd").iterdir(),
        *(DEPLOY / "docker").iterdir(),
        *(DEPLOY / "kubernetes").iterdir(),
    ):
        # LEEK_APP_KEY is the examples' own: the subscription refers to it.
        assert set(VARIABLE.findall(path.read_text())) <= variables() | {"LEEK_APP_KEY"}, path


def test_arguments_are_the_command_lines() -> None:
    (standalone,) = documents(DEPLOY / "docker" / "standalone.yml")
    (demo,) = documents(DEPLOY / "docker" / "demo.yml")
    (stateful,) = (
        document
        for document in documents(DEPLOY / "kubernetes" / "leekfanout.yaml")
        if document["kind"] == "StatefulSet"
    )
    commands = [stateful["spec"]["template"]["spec"]["containers"][0]["args"]]
    commands += [
        service["command"]
        for each in (standalone, demo)
        for service in each["services"].values()
        if str(service.get("image", "")).startswith("leekfanout") and "command" in service
    ]
    commands.append(unit()["Service"]["ExecStart"].split()[1:])
    section = configparser.ConfigParser(interpolation=None)
    section.read(DEPLOY / "supervisord-agent.conf")
    commands.append(section["program:agent"]["command"].split()[1:])
    assert len(commands) == 5
    for command in commands:
        build_parser(only=command[0]).parse_args(command)


def test_subscriptions_of_the_examples_are_valid() -> None:
    environ = {"RABBITMQ_PASSWORD": "p@ss", "LEEK_APP_KEY": "key"}
    text = (DEPLOY / "subscriptions.example.json").read_text()
    assert config.subscriptions_of(config.parse_entries(text, "example"), environ)
    (demo,) = documents(DEPLOY / "docker" / "demo.yml")
    written = demo["services"]["agent"]["environment"]["LEEK_AGENT_SUBSCRIPTIONS"]
    assert len(config.subscriptions_of(config.parse_entries(written, "demo"), {})) == 2


def test_the_secret_of_kubernetes_is_a_valid_configuration(tmp_path: Path) -> None:
    secret = documents(DEPLOY / "kubernetes" / "leekfanout.yaml")[0]["stringData"]
    for name, content in secret.items():
        (tmp_path / name).write_text(content)
    text = secret["subscriptions.json"].replace("/etc/leekfanout", str(tmp_path))
    (subscription,) = config.subscriptions_of(config.parse_entries(text, "secret"), {})
    assert subscription.app_key == secret["app_key"]
    assert subscription.broker == ("amqp://leek:change-me@rabbitmq:5672/",)


def test_everything_waits_for_the_drain() -> None:
    needed = DRAIN_S + KILL_MARGIN_S
    assert float(unit()["Service"]["TimeoutStopSec"]) > needed
    (standalone,) = documents(DEPLOY / "docker" / "standalone.yml")
    assert float(standalone["services"]["agent"]["stop_grace_period"].rstrip("s")) > needed
    stateful = documents(DEPLOY / "kubernetes" / "leekfanout.yaml")[2]
    assert stateful["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > needed


def test_the_pod_runs_with_as_little_as_it_needs() -> None:
    spec = documents(DEPLOY / "kubernetes" / "leekfanout.yaml")[2]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert "/var/lib/leekfanout" in mounts
    assert {"requests", "limits"} <= set(container["resources"])


def test_the_scaler_follows_the_queue_that_the_secret_names() -> None:
    (scaled,) = (
        document
        for document in documents(DEPLOY / "kubernetes" / "keda.yaml")
        if document["kind"] == "ScaledObject"
    )
    assert scaled["spec"]["scaleTargetRef"]["name"] == "leekfanout"
    (trigger,) = scaled["spec"]["triggers"]
    assert (
        trigger["metadata"]["queueName"]
        == config.Subscription.__dataclass_fields__["queue"].default
    )


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    file = DEPLOY / "systemd" / "leekfanout.service"
    copy = tmp_path / file.name
    copy.write_text(file.read_text().replace("/opt/leekfanout/bin/leekfanout", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, file.name in done.stderr) == (0, False), done.stderr
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:]
