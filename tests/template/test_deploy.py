"""What is generated for a scheduler and for CI: linters find nothing, and it delivers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from examples.feed_server import FeedServer
from n6_stateful_template import class_name, schedule
from tests.template.conftest import ROOT, Bake, Project, blocks_in, do, run

HARD = {
    "collector_name": "urlhaus2_collector",
    "shape": "rows",
    "url": "https://feed.example/a%20b/'$(x)';#c?q=%3C&d=!",
    "_author": 'Zoë "O\'Neil" \\ <CSIRT> {{ %(x)s $(x) <<y>>',
    "license": "MIT",
}
SYSTEMD = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
YAMLLINT = """
extends: default
rules: {document-start: disable, line-length: {max: 110}, truthy: {check-keys: false}}
"""
BROKER = os.environ.get("N6_STATEFUL_BROKER", "amqp://guest:guest@127.0.0.1:5672/")
ORDINARY_USER = 65534


def tool(name: str) -> Path:
    """A linter, from the environment of these tests."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"needs {name}")
    return path


def commands_in(text: str) -> list[str]:
    """The shell commands of a Markdown text: its fenced blocks, and what is in backticks with arguments."""
    inline = re.findall(r"(?<!`)`([^`\n]+)`", text)
    return [*blocks_in(text), *(command for command in inline if re.match(r"[a-z]\S* [^=]", command))]


def cron_command(path: Path) -> str:
    """The command of a file in /etc/cron.d."""
    (line,) = (line for line in path.read_text().splitlines() if not line.startswith("#"))
    *when, user, command = line.split(None, 6)
    assert (len(when), user) == (5, "n6")
    assert "%" not in command  # a newline, for cron
    return command


class TestLinters:
    """What linters find: nothing."""

    @pytest.mark.sweep
    @pytest.mark.parametrize("scheduler", ["cron", "systemd", "kubernetes", "none"])
    def test_project(self, scheduler: str, baked: Bake, tmp_path: Path) -> None:
        """shellcheck, yamllint, zizmor, pre-commit and Kubernetes' schema find nothing in a project."""
        project = baked(**HARD, scheduler=scheduler)
        path, files = project.path, sorted(project.files())
        yaml_files = [name for name in files if name.endswith((".yml", ".yaml"))]
        assert len(yaml_files) == (6 if scheduler == "kubernetes" else 5)
        do(tool("yamllint"), "--strict", "-d", YAMLLINT, *yaml_files, cwd=path)
        shell = ["set -e", *commands_in(project.read("README.md"))]
        for ci in (".gitlab-ci.yml", ".github/workflows/ci.yml"):
            shell += re.findall(r"^ +- (?:run: )?((?:python|tox) .*)", project.read(ci), re.MULTILINE)
        shell += [line.strip() for line in project.output.splitlines() if line.startswith("  ")]
        shell += [cron_command(cron) for cron in path.glob("deploy/cron/*")]
        for containerfile in path.glob("deploy/kubernetes/Containerfile"):
            shell += re.findall(r"^RUN (.*)", containerfile.read_text(), re.MULTILINE)
        assert len(shell) > 10
        (tmp_path / "all.sh").write_text("\n".join(shell) + "\n")
        do(tool("shellcheck"), "--shell=bash", "--severity=info", tmp_path / "all.sh", cwd=path)
        do(tool("zizmor"), "--offline", "--quiet", "--pedantic", path, cwd=path)
        for manifest in path.glob("deploy/kubernetes/cronjob.yaml"):
            do(tool("kubernetes-validate"), "--strict", manifest, cwd=path)
        do(tool("pre-commit"), "validate-config", ".pre-commit-config.yaml", cwd=path)
        do(tool("trailing-whitespace-fixer"), *files, cwd=path)
        do(tool("end-of-file-fixer"), *files, cwd=path)
        do(tool("check-yaml"), "--allow-multiple-documents", *yaml_files, cwd=path)

    @pytest.mark.sweep
    def test_repository(self) -> None:
        """They find nothing in this repository."""
        workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
        assert len(workflows) >= 2
        do(tool("yamllint"), "--strict", "-d", YAMLLINT, *workflows, cwd=ROOT)
        do(tool("zizmor"), "--offline", "--quiet", "--pedantic", *workflows, cwd=ROOT)
        do(tool("shellcheck"), ROOT / ".ci/run", cwd=ROOT)


class TestCron:
    """The cron line."""

    def test_quiet(self, baked: Bake) -> None:
        """`--quiet-repeats` decides what cron mails."""
        command = cron_command(baked().path / "deploy/cron/my_feed.cron")
        assert command.endswith("n6collector_myfeed --log-level warning run --quiet-repeats >/dev/null")

    def test_minutes(self) -> None:
        """It runs every ten minutes; different collectors have different minutes."""
        names = [{"source_provider": "p", "source_channel": "c", "collector_name": str(n)} for n in range(50)]
        assert {schedule(name) for name in names} == {f"{minute}-59/10 * * * *" for minute in range(10)}


@SYSTEMD
class TestSystemd:
    """The units."""

    def test_unit(self, bake: Bake) -> None:
        """systemd finds nothing wrong, and little exposed; the timer starts a run every ten minutes."""
        project = bake(**HARD, scheduler="systemd")
        failed, service = sorted(project.path.glob("deploy/systemd/*.service"))
        text = service.read_text()
        (exposure,) = re.findall(r"security`: ([\d.]+) of 10 \(OK\)", text)
        service.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
        timer = service.with_suffix(".timer")
        (calendar,) = re.findall(r"^OnCalendar=(.*)", timer.read_text(), re.MULTILINE)
        times = do("systemd-analyze", "calendar", "--iterations=2", calendar, cwd=project.path)
        assert len(re.findall(r"\d:\d0:00 UTC", times)) >= 2
        units = (service, failed, timer)
        done = run("systemd-analyze", "verify", *units, cwd=project.path)
        assert (done.returncode, done.stderr) == (0, "")
        done = run("systemd-analyze", "security", "--offline=true", "--no-pager", service, cwd=project.path)
        if "unrecognized option" in done.stderr:
            pytest.skip("this systemd-analyze has no --offline")
        assert f"exposure level for {service.name}: {exposure} OK" in done.stdout


class TestKubernetes:
    """The CronJob."""

    def test_manifest(self, baked: Bake) -> None:
        """No volume outlives a pod: the journal is in a database, whose URL comes from a secret."""
        project = baked(**HARD, scheduler="kubernetes")
        manifest = project.path / "deploy/kubernetes/cronjob.yaml"
        job = yaml.safe_load(manifest.read_text())
        name = f"n6-{project.name.replace('_', '-')}"
        assert (job["metadata"]["name"], job["spec"]["concurrencyPolicy"]) == (name, "Forbid")
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        kinds = {volume["name"]: set(volume) - {"name"} for volume in pod["volumes"]}
        assert kinds == {"config": {"secret"}, "journal": {"secret"}, "tmp": {"emptyDir"}}
        (container,) = pod["containers"]
        places = {volume["name"]: volume["mountPath"] for volume in container["volumeMounts"]}
        config = project.read("deploy/kubernetes/70_kubernetes.conf")
        assert f"cache_dir = {places['tmp']}\n" in config
        assert f"[journal]\nurl_file = {places['journal']}/uri\n" in config
        assert container["args"][:2] == ["--config", places["config"]]
        for line in re.findall(
            r"^COPY (.*) \S+$", project.read("deploy/kubernetes/Containerfile"), re.MULTILINE
        ):
            assert all((project.path / copied).exists() for copied in line.split())


class TestPrometheus:
    """The alert rules."""

    def test_metrics(self, baked: Bake, bake: Bake, tmp_path: Path, feed: FeedServer) -> None:
        """They ask for metrics that a run writes, and for the collector by its name."""
        project = bake(download="http", url=feed.url)
        (project.path / "etc/95_metrics.conf").write_text(f"[monitoring]\ntextfile_dir = {tmp_path}\n")
        project.run()
        (file,) = tmp_path.glob("*.prom")
        written = set(re.findall(r"^# TYPE (\w+)", file.read_text(), re.MULTILINE))
        asked = self.asked(project)
        assert {label for _, label in asked} == {f'{{collector="{class_name(project.name)}"}}'}
        assert {name for name, _ in asked} <= written
        kubernetes = self.asked(baked(**HARD, scheduler="kubernetes"))
        assert {label for _, label in kubernetes} == {'{cronjob="n6-urlhaus2-collector"}'}

    def asked(self, project: Project) -> set[tuple[str, str]]:
        """The metrics and labels in the rules of a project."""
        rules = rules_of(project)
        return {
            match for rule in rules.values() for match in re.findall(r"([a-z]\w+_\w+)(\{.*?\})", rule["expr"])
        }

    @pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
    @pytest.mark.sweep
    @pytest.mark.parametrize("scheduler", ["cron", "kubernetes"])
    def test_alerts(self, scheduler: str, baked: Bake, tmp_path: Path) -> None:
        """They fire two hours after the last good run, a week after the last new data, for messages that
        wait, for what needs attention, for a clock that was set back, and where there is nothing."""
        project = baked(**HARD, scheduler=scheduler)
        silent = {"Silent": "2h21m", "NothingNew": "168h21m"}
        name, cases = "n6_collector_{}", [
            ({"first_run": 600}, silent),
            ({"first_run": 600, "last_success": 600, "last_new_data": 600}, silent),
            ({"first_run": 600, "failed_runs": 1}, {**silent, "Failing": "0h30m"}),
            ({"first_run": 600, "outbox_oldest": 1200}, {**silent, "MessagesWait": "2h31m"}),
            ({"first_run": 600, "outbox_refused_messages": 1}, {**silent, "NeedsAttention": "0h10m"}),
            ({"first_run": 600, "broken_journals": 1}, {**silent, "NeedsAttention": "0h10m"}),
            ({"first_run": 600, "last_success": 600_000, "last_new_data": 600_000}, {"Clock": "0h10m"}),
            ({}, {"Unknown": "1h0m"}),
        ]  # fmt: skip
        labels = {"collector": class_name(project.name)}
        if scheduler == "kubernetes":
            labels, name = {"cronjob": "n6-urlhaus2-collector"}, "kube_cronjob_{}"
            cases = [({"created": 600}, {"Silent": "2h21m"}), ({}, {"Unknown": "1h0m"})]
            cases.append(({"created": 600, "status_last_successful_time": 1200}, {"Silent": "2h31m"}))
        label = ",".join(f'{key}="{value}"' for key, value in labels.items())
        tests = []
        for values, fired in cases:
            series = [
                {"series": f"{name.format(metric(key))}{{{label}}}", "values": f"{value}x10200"}
                for key, value in values.items()
            ]
            tests.append(
                {"interval": "1m", "input_series": series, "alert_rule_test": checks(project, fired, labels)}
            )
        (rules,) = project.path.glob("deploy/prometheus/*.yml")
        file = tmp_path / "tests.yml"
        file.write_text(
            yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": tests})
        )
        do("promtool", "check", "rules", rules, cwd=tmp_path)
        do("promtool", "test", "rules", file, cwd=tmp_path)


def metric(name: str) -> str:
    is_time = name in ("last_success", "last_new_data", "first_run", "outbox_oldest")
    return f"{name}_timestamp_seconds" if is_time else name


def rules_of(project: Project) -> dict[str, dict[str, Any]]:
    """Its alert rules, by their names without what all begin with."""
    (path,) = project.path.glob("deploy/prometheus/*.yml")
    (group,) = yaml.safe_load(path.read_text())["groups"]
    return {rule["alert"].removeprefix("N6Collector"): rule for rule in group["rules"]}


def checks(project: Project, fired: dict[str, str], labels: dict[str, str]) -> list[dict[str, Any]]:
    """These alerts fire so long after the epoch, and not a minute before; no others fire within a day."""
    expected = []
    for name, rule in rules_of(project).items():
        alert = {"exp_labels": {"severity": "warning", **labels}, "exp_annotations": rule["annotations"]}
        hours, minutes = map(int, re.findall(r"\d+", fired.get(name, "24h0m")))
        times = {f"{60 * hours + minutes - 1}m": [], f"{hours}h{minutes}m": [alert] if name in fired else []}
        expected += [
            {"eval_time": time, "alertname": rule["alert"], "exp_alerts": alerts}
            for time, alerts in times.items()
        ]
    return expected


@pytest.fixture
def channel() -> Iterator[Any]:
    """A channel of the broker."""
    import pika

    try:
        connection = pika.BlockingConnection(pika.URLParameters(BROKER))
    except pika.exceptions.AMQPError as exc:
        if os.environ.get("N6_STATEFUL_REQUIRE_BROKER"):
            raise
        pytest.skip(f"RabbitMQ does not answer: {exc!r}")
    yield connection.channel()
    connection.close()


def as_ordinary_user(*argv: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run it as nobody, with no other environment than `env`."""
    user = ("--reuid", str(ORDINARY_USER), "--regid", str(ORDINARY_USER), "--clear-groups", "--no-new-privs")
    return subprocess.run(
        ["setpriv", *user, "env", *map(str, argv)],  # setpriv itself could still read what only root can
        env=env, cwd="/", capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def find_public_python() -> Path:
    """A Python that an ordinary user may run."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can write to /opt and become another user")
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for path in (Path(sys.executable).resolve(), Path("/usr/local/bin/python3"), Path("/usr/bin/python3")):
        if path.exists() and as_ordinary_user(path, "-c", check, env={}).returncode == 0:
            return path
    pytest.skip("there is no Python >= 3.11 that an ordinary user may run")


@pytest.mark.sweep
def test_tox_rabbitmq(channel: Any, bake: Bake) -> None:
    """The tox environment for RabbitMQ runs against the broker."""
    project = bake(shape="list")
    project.fill_in()
    assert "1 passed" in project.tox("-e", "rabbitmq", RABBITMQ_URL=BROKER)


@pytest.mark.sweep
@pytest.mark.parametrize("scheduler", ["cron", "systemd"])
def test_delivers(scheduler: str, channel: Any, bake: Bake, feed: FeedServer) -> None:
    """Installed as the README says, as an ordinary user with an almost empty environment, the cron line and
    the command of the systemd unit deliver to RabbitMQ; cron mails what goes wrong, once."""
    python = find_public_python()
    name = f"trial_{uuid.uuid4().hex[:8]}"
    dashed = name.replace("_", "-")
    project = bake(
        collector_name=name,
        source_provider=dashed,
        source_channel="trial",
        scheduler=scheduler,
        download="http",
        url=feed.url,
    )
    opt, home, state = Path("/opt", name), Path("/var/tmp", name), Path(f"/var/lib/n6-{dashed}")
    channel.exchange_declare("raw", "topic", durable=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "raw", f"{dashed}.trial")
    broker = urlsplit(BROKER)
    try:
        # The commands of its README, by a root whose files nobody else may read.
        _, install, _ = blocks_in(project.read("README.md"))
        env = {"PATH": f"{python.parent}:/usr/bin:/bin"}
        do("bash", "-euc", f"umask 077\n{install}", cwd=project.path, env=env)
        for directory in (home, home / ".n6", state):
            directory.mkdir(mode=0o700)
        shutil.copy(project.path / f"etc/60_{name}.conf", home / ".n6")
        (home / ".n6/09_rabbitmq.conf").write_text(
            f"[rabbitmq]\nhost = {broker.hostname}\nport = {broker.port or 5672}\nssl = false\n"
            f"heartbeat_interval = 60\npassword_auth = true\nusername = {broker.username or 'guest'}\n"
            f"password = {broker.password or 'guest'}\n"
        )
        for path in (state, home, *home.rglob("*")):
            os.chown(path, ORDINARY_USER, ORDINARY_USER)
        if scheduler == "cron":
            command = ["/bin/sh", "-c", cron_command(project.path / f"deploy/cron/{name}.cron")]
        else:
            service = project.read(f"deploy/systemd/n6-{name}.service")
            (start,) = re.findall(r"^ExecStart=(.*)", service, re.MULTILINE)
            command = shlex.split(start)
        env = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        first = as_ordinary_user(*command, env=env)
        assert first.returncode == 0, first.stderr
        assert channel.basic_get(queue, auto_ack=True)[2] == b"2026-01-01 00:00:00,one row\n"
        second = as_ordinary_user(*command, env=env)
        assert (second.returncode, second.stderr) == (0, "")
        assert channel.basic_get(queue, auto_ack=True)[0] is None
        feed.file.unlink()
        third, fourth = (as_ordinary_user(*command, env=env) for _ in range(2))
        assert third.returncode == fourth.returncode == 66
        assert len(third.stderr.splitlines()) == 1
        assert (fourth.stderr == "") == (scheduler == "cron")
    finally:
        for path in (opt, state, home):
            shutil.rmtree(path, ignore_errors=True)
