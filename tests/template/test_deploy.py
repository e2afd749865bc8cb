"""What is generated for a scheduler and for CI: nothing that a linter knows is wrong, and it delivers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from n6_stateful.output.spool import Backlog
from n6_stateful.record import metrics
from n6_stateful.record.run import RunRecord
from n6_stateful_template import class_name, schedule
from tests.template.conftest import ROOT, Bake, Project, blocks_in, do, run
from tests.template.feed import Feed
from tests.template.pairs import pairwise

SYSTEMD = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
YAMLLINT = """
extends: default
rules: {document-start: disable, line-length: {max: 110}, truthy: {check-keys: false}}
"""
BROKER = os.environ.get("N6_STATEFUL_BROKER", "amqp://guest:guest@127.0.0.1:5672/")
ORDINARY_USER = 65534


def tool(name: str) -> Path:
    """A linter, from the environment of these tests."""
    return Path(sys.executable).parent / name


def scheduled(scheduler: str) -> dict[str, str]:
    """Answers with hostile values, for one scheduler."""
    return next(
        each
        for each in pairwise()
        if each["scheduler"] == scheduler and each["_author"] and each["shape"] != "email"
    )


def commands_in(text: str) -> list[str]:
    """The shell commands of a Markdown text: its fenced blocks, and what is in backticks with arguments."""
    inline = re.findall(r"(?<!`)`([^`\n]+)`", text)
    return [*blocks_in(text), *(each for each in inline if re.match(r"[a-z]\S* [^=]", each))]


@pytest.mark.parametrize("scheduler", ["cron", "systemd", "kubernetes", "none"])
def test_linters(scheduler: str, bake: Bake, tmp_path: Path) -> None:
    """shellcheck, yamllint and zizmor find nothing."""
    project = bake(**scheduled(scheduler))
    path = project.path
    yaml = [path / name for name in sorted(project.files()) if name.endswith((".yml", ".yaml"))]
    assert len(yaml) == (6 if scheduler == "kubernetes" else 5)
    do(tool("yamllint"), "--strict", "-d", YAMLLINT, *yaml, cwd=path)
    do(tool("zizmor"), "--offline", "--quiet", "--pedantic", path, cwd=path)
    shell = ["set -e", *commands_in((path / "README.md").read_text())]
    for ci in (path / ".gitlab-ci.yml", path / ".github/workflows/ci.yml"):
        shell += re.findall(r"^ +- (?:run: )?((?:python|tox) .*)", ci.read_text(), re.MULTILINE)
    shell += [line.strip() for line in project.said.splitlines() if line.startswith("  ")]
    for cron in path.glob("deploy/cron/*"):
        shell.append(cron_command(cron))
    for containerfile in path.glob("deploy/kubernetes/Containerfile"):
        shell += re.findall(r"^RUN (.*)", containerfile.read_text(), re.MULTILINE)
    assert len(shell) > 10
    script = tmp_path / "all.sh"
    script.write_text("\n".join(shell) + "\n")
    do(tool("shellcheck"), "--shell=bash", "--severity=info", script, cwd=path)


def test_linters_here() -> None:
    """The same linters find nothing in this repository."""
    workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert len(workflows) >= 2
    do(tool("yamllint"), "--strict", "-d", YAMLLINT, *workflows, cwd=ROOT)
    do(tool("zizmor"), "--offline", "--quiet", "--pedantic", *workflows, cwd=ROOT)
    do(tool("shellcheck"), ROOT / ".ci/run", cwd=ROOT)


def test_pre_commit(bake: Bake) -> None:
    """Its configuration is one, and what it runs finds nothing in a new project."""
    project = bake(**scheduled("kubernetes"))
    do(tool("pre-commit"), "validate-config", ".pre-commit-config.yaml", cwd=project.path)
    files = sorted(project.files())
    do(tool("trailing-whitespace-fixer"), *files, cwd=project.path)
    do(tool("end-of-file-fixer"), *files, cwd=project.path)
    yaml = [name for name in files if name.endswith((".yml", ".yaml"))]
    do(tool("check-yaml"), "--allow-multiple-documents", *yaml, cwd=project.path)


def rules_of(project: Project) -> dict[str, dict[str, Any]]:
    """Its alert rules, by their names without what all begin with."""
    import yaml

    (path,) = project.path.glob("deploy/prometheus/*.yml")
    (group,) = yaml.safe_load(path.read_text())["groups"]
    return {rule["alert"].removeprefix("N6Collector"): rule for rule in group["rules"]}


@pytest.mark.parametrize("scheduler", ["cron", "kubernetes"])
def test_prometheus(scheduler: str, bake: Bake) -> None:
    """Its alert rules ask for metrics as they are written, and for the collector by its name."""
    project = bake(**scheduled(scheduler))
    rules = rules_of(project)
    label = {
        "cron": f'{{collector="{class_name(project.name)}"}}',
        "kubernetes": f'{{cronjob="n6-{project.name.replace("_", "-")}"}}',
    }[scheduler]
    asked = {
        found for rule in rules.values() for found in re.findall(r"([a-z]\w+_\w+)(\{.*?\})", rule["expr"])
    }
    assert {found for _, found in asked} == {label}
    names = {name for name, _ in asked}
    if scheduler == "kubernetes":
        assert names == {"kube_cronjob_status_last_successful_time", "kube_cronjob_created"}
        told = []
    else:
        assert names <= {f"n6_collector_{name}" for name in metrics.ABOUT}
        told = ["NothingNew", "Failing", "MessagesWait", "NeedsYou", "Clock"]
    assert list(rules) == ["Silent", *told, "Unknown"]
    page = (ROOT / "docs/monitoring.md").read_text()
    assert {f"N6Collector{name}" for name in rules} <= set(
        re.findall(r"^\| `(N6\w+)` \|", page, re.MULTILINE)
    )


class Alerts:
    """What Prometheus makes of the rules of a project, one set of series after the other.

    Args:
        project: the project.
        directory: where its metrics and the tests for promtool go.
    """

    def __init__(self, project: Project, directory: Path) -> None:
        self.collector = class_name(project.name)
        self._project, self._directory = project, directory
        self._rules = rules_of(project)
        self._tests: list[dict[str, Any]] = []

    def written(
        self, *records: RunRecord, backlog: Backlog | None = None, broken: int = 0
    ) -> dict[str, float]:
        """The series that a run has written."""
        metrics.write(self._directory, ("feed.lines", self.collector), records, backlog, broken)
        (file,) = self._directory.glob("*.prom")
        samples = [line.rsplit(" ", 1) for line in file.read_text().splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in samples}

    def expect(self, series: dict[str, float], labels: dict[str, str], **fired: str) -> None:
        """Expect, with these series that do not change, these alerts: each so long after the epoch, as
        Prometheus writes lengths of time, and none of them a minute before; and no other within a day."""
        checks = []
        for name, rule in self._rules.items():
            alert = {"exp_labels": {"severity": "warning", **labels}, "exp_annotations": rule["annotations"]}
            hours, minutes = map(int, re.findall(r"\d+", fired.get(name, "24h0m")))
            times = [(f"{hours}h{minutes}m", [alert] if name in fired else [])]
            times.append((f"{60 * hours + minutes - 1}m", []))
            checks += [{"eval_time": at, "alertname": rule["alert"], "exp_alerts": all} for at, all in times]
        values = [{"series": name, "values": f"{value:g}x10200"} for name, value in series.items()]
        self._tests.append({"interval": "1m", "input_series": values, "alert_rule_test": checks})

    def judge(self) -> None:
        """Have Prometheus itself say whether it is so."""
        import yaml

        (rules,) = self._project.path.glob("deploy/prometheus/*.yml")
        file = self._directory / "tests.yml"
        tests = {"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": self._tests}
        file.write_text(yaml.safe_dump(tests))
        do("promtool", "check", "rules", rules, cwd=self._project.path)
        do("promtool", "test", "rules", file, cwd=self._project.path)


PROMTOOL = pytest.mark.skipif(
    not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus"
)


def ended(second: float, exit_code: int = 0, messages: int = 0) -> RunRecord:
    """The record of a run that ended then."""
    return RunRecord(second - 10, second, exit_code, messages, error="" if exit_code == 0 else "no broker")


@PROMTOOL
def test_alerts(bake: Bake, tmp_path: Path) -> None:
    """Prometheus raises them over what a run has written: two hours after the last good run, and a week after
    the last new data, both counted from the first run where there was none; of messages that wait, of
    what waits for a person, of a clock that was set back, and where there is nothing."""
    alerts = Alerts(bake(**scheduled("cron")), tmp_path)
    ours = {"source": "feed.lines", "collector": alerts.collector}
    good = ended(600, messages=5)
    alerts.expect(alerts.written(good), ours, Silent="2h21m", NothingNew="168h21m")
    alerts.expect(alerts.written(ended(600)), ours, Silent="2h21m", NothingNew="168h21m")
    silent = {"Silent": "2h21m", "NothingNew": "168h21m"}
    alerts.expect(alerts.written(ended(600, 69)), ours, **silent, Failing="0h30m")
    alerts.expect(alerts.written(good, backlog=Backlog(1, 0, 1200.0)), ours, **silent, MessagesWait="2h31m")
    alerts.expect(alerts.written(good, backlog=Backlog(1, 1, 600_000.0)), ours, **silent, NeedsYou="0h10m")
    alerts.expect(alerts.written(good, broken=1), ours, **silent, NeedsYou="0h10m")
    alerts.expect(alerts.written(ended(600_000, messages=5)), ours, Clock="0h10m")
    alerts.expect({}, {"collector": alerts.collector}, Unknown="1h0m")
    alerts.judge()


@PROMTOOL
def test_alerts_in_kubernetes(bake: Bake, tmp_path: Path) -> None:
    """Of a CronJob Prometheus knows the last success, or, before there is one, when it was made."""
    project = bake(**scheduled("kubernetes"))
    alerts = Alerts(project, tmp_path)
    cronjob = f"n6-{project.name.replace('_', '-')}"
    labels = f'{{namespace="n6",cronjob="{cronjob}"}}'
    made, good = f"kube_cronjob_created{labels}", f"kube_cronjob_status_last_successful_time{labels}"
    ours = {"namespace": "n6", "cronjob": cronjob}
    alerts.expect({made: 600}, ours, Silent="2h21m")
    alerts.expect({made: 600, good: 1200}, ours, Silent="2h31m")
    alerts.expect({}, {"cronjob": cronjob}, Unknown="1h0m")
    alerts.judge()


def test_manifest(bake: Bake) -> None:
    """No volume outlives a pod: the state's URL comes from a secret, where the configuration says."""
    import yaml

    project = bake(**scheduled("kubernetes"))
    manifest = project.path / "deploy/kubernetes/cronjob.yaml"
    do(tool("kubernetes-validate"), "--strict", manifest, cwd=project.path)
    job = yaml.safe_load(manifest.read_text())
    name = f"n6-{project.name.replace('_', '-')}"
    assert (job["metadata"]["name"], job["spec"]["concurrencyPolicy"]) == (name, "Forbid")
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    secrets = {each["name"]: each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}
    assert secrets == {"config": name, "state": f"{name}-state"}
    assert [each["name"] for each in pod["volumes"] if "secret" not in each] == ["tmp"]
    (container,) = pod["containers"]
    places = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    config = (project.path / "deploy/kubernetes/70_kubernetes.conf").read_text()
    assert f"cache_dir = {places['tmp']}\n" in config
    assert f"url_file = {places['state']}/uri\n" in config
    assert "--from-file=uri=" in manifest.read_text()
    assert container["args"][:2] == ["--config", places["config"]]


def test_containerfile(bake: Bake) -> None:
    """The Containerfile copies what there is, and starts the command."""
    project = bake(scheduler="kubernetes", license="MIT")
    text = (project.path / "deploy/kubernetes/Containerfile").read_text()
    for copied in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (project.path / name).exists(), name
    assert text.endswith('ENTRYPOINT ["n6collector_myfeed"]\n')


def test_kubernetes_configuration(bake: Bake, database: str, tmp_path: Path) -> None:
    """Its state is in the database, not in the pod."""
    project = bake(scheduler="kubernetes")
    project.fill_in()
    mounted = tmp_path / "config/..2026_11_24"
    mounted.mkdir(parents=True)
    (tmp_path / "config/..data").symlink_to(mounted.name)
    (tmp_path / "uri").write_text(f"{database}\n")
    shutil.copy(project.path / "etc/60_my_feed.conf", mounted)
    config = (project.path / "deploy/kubernetes/70_kubernetes.conf").read_text()
    config = config.replace("/state/", f"{tmp_path}/").replace("/tmp\n", f"{tmp_path}/nothing\n")
    (mounted / "70_kubernetes.conf").write_text(config)
    (mounted / "99_secrets.conf").write_text(f"[output]\nurl = spool:{tmp_path}/spool\n")
    for path in mounted.iterdir():
        (tmp_path / "config" / path.name).symlink_to(Path("..data", path.name))
    command = (project.install(tmp_path / "venv"), "--config", tmp_path / "config")
    said = do("env", "-i", *command, "check", cwd=tmp_path)
    assert "configuration: ok" in said
    assert "state: ok" in said
    assert "published 1 message" in do("env", "-i", *command, cwd=tmp_path)
    assert "published 0 messages" in do("env", "-i", *command, cwd=tmp_path)
    assert not list((tmp_path / "nothing").glob("*.pickle"))


@SYSTEMD
def test_systemd_unit(bake: Bake) -> None:
    """systemd finds nothing wrong, and little exposed."""
    project = bake(**scheduled("systemd"))
    failed, service = sorted(project.path.glob("deploy/systemd/*.service"))
    text = service.read_text()
    (said,) = re.findall(r"security`: ([\d.]+) of 10 \(OK\)", text)
    service.write_text(re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", text))
    done = run("systemd-analyze", "verify", service, failed, service.with_suffix(".timer"), cwd=project.path)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", service, cwd=project.path)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze knows no --offline")
    assert f"exposure level for {service.name}: {said} OK" in done.stdout


@SYSTEMD
def test_every_ten_minutes(bake: Bake) -> None:
    """The timer and the cron line run it every ten minutes."""
    project = bake(scheduler="systemd")
    (timer,) = project.path.glob("deploy/systemd/*.timer")
    (calendar,) = re.findall(r"^OnCalendar=(.*)", timer.read_text(), re.MULTILINE)
    said = do("systemd-analyze", "calendar", "--iterations=2", calendar, cwd=project.path)
    assert len(re.findall(r"\d:\d0:00 UTC", said)) >= 2


@pytest.mark.parametrize(
    ("script", "mailed"),
    [
        ("echo published", ""),
        ("echo published; echo a warning >&2", "a warning\n"),
        ("echo another run >&2; exit 75", ""),
        ("echo an error >&2; exit 69", "an error\n"),
    ],
)
def test_cron_mails_what_goes_wrong(script: str, mailed: str, bake: Bake, tmp_path: Path) -> None:
    """Warnings and errors, but not a good run, nor that another run is in progress."""
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    command = cron_command(bake().path / "deploy/cron/my_feed.cron")
    command = command.replace("/opt/my_feed/bin/n6collector_myfeed", str(program))
    done = run("/bin/sh", "-c", command, cwd=tmp_path)
    assert done.stdout + done.stderr == mailed


def test_different_minutes() -> None:
    """Every ten minutes, and each from a minute of its own."""
    names = [{"source_provider": "p", "source_channel": "c", "collector_name": str(n)} for n in range(50)]
    assert {schedule(each) for each in names} == {f"{minute}-59/10 * * * *" for minute in range(10)}


@pytest.fixture
def database() -> Iterator[str]:
    """A database of PostgreSQL; the user that may make and drop it is N6_STATEFUL_POSTGRESQL's."""
    psycopg = pytest.importorskip("psycopg")
    server = os.environ.get("N6_STATEFUL_POSTGRESQL", "postgresql://postgres@127.0.0.1:5432/postgres")
    try:
        connection = psycopg.connect(server, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as exc:
        pytest.skip(f"no PostgreSQL answers: {exc}")
    name = f"template_{uuid.uuid4().hex}"
    connection.execute(f"CREATE DATABASE {name}")
    yield server.rpartition("/")[0] + f"/{name}"
    connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    connection.close()


# Deployed, as an ordinary user with an almost empty environment, against RabbitMQ


def cron_command(path: Path) -> str:
    """The command of a file in /etc/cron.d."""
    (line,) = (line for line in path.read_text().splitlines() if not line.startswith("#"))
    *when, user, command = line.split(None, 6)
    assert (len(when), user) == (5, "n6")
    assert "%" not in command  # cron takes it for a newline
    return command


def as_ordinary_user(*argv: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run it as nobody, with no other environment than `env`."""
    user = ("--reuid", str(ORDINARY_USER), "--regid", str(ORDINARY_USER), "--clear-groups", "--no-new-privs")
    return subprocess.run(
        ["setpriv", *user, "env", *map(str, argv)],  # setpriv itself could still read what only root can
        env=env, cwd="/", capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python that an ordinary user may run."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can write to /opt and become another user")
    for path in (Path(sys.executable).resolve(), Path("/usr/local/bin/python3"), Path("/usr/bin/python3")):
        check = "import sys; sys.exit(sys.version_info < (3, 11))"
        if path.exists() and as_ordinary_user(path, "-c", check, env={}).returncode == 0:
            return path
    pytest.skip("there is no Python >= 3.11 that an ordinary user may run")


@pytest.fixture
def channel() -> Iterator[Any]:
    """A channel of the broker."""
    import pika

    try:
        connection = pika.BlockingConnection(pika.URLParameters(BROKER))
    except pika.exceptions.AMQPError as exc:
        problem = f"no broker answers: {exc!r}"
        if os.environ.get("N6_STATEFUL_REQUIRE_BROKER"):
            pytest.fail(problem)
        pytest.skip(problem)
    yield connection.channel()
    connection.close()


@pytest.fixture
def queue(channel: Any, collector_name: str) -> Callable[[], Any]:
    """Takes what was published for the collector's source from a queue."""
    channel.exchange_declare("raw", "topic", durable=True)
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(name, "raw", f"{collector_name.replace('_', '-')}.trial")
    return lambda: channel.basic_get(name, auto_ack=True)


def test_tox_rabbitmq(channel: Any, bake: Bake) -> None:
    """The tox environment for RabbitMQ runs against the broker."""
    said = bake().tox("-e", "rabbitmq", RABBITMQ_URL=BROKER)
    assert "1 passed" in said


@pytest.fixture
def collector_name() -> str:
    """A name whose places in /opt and /var/lib are a test's own."""
    return f"trial_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def deployed(
    request: pytest.FixtureRequest, collector_name: str, bake: Bake, python: Path, feed: Feed
) -> Iterator[tuple[Project, Path]]:
    """A project installed as its README says, and the home of the user who runs it."""
    opt = Path("/opt", collector_name)
    state = Path(f"/var/lib/n6-{collector_name.replace('_', '-')}")
    home = Path("/var/tmp", collector_name)
    project = bake(
        collector_name=collector_name,
        source_provider=collector_name.replace("_", "-"),
        source_channel="trial",
        scheduler=request.param,
        download="http",
        url=feed.url("etag"),
    )
    broker = urlsplit(BROKER)
    try:
        # The commands of its README, by a root whose files nobody else may read.
        _, install, _ = blocks_in((project.path / "README.md").read_text())
        env = {"PATH": f"{python.parent}:/usr/bin:/bin"}
        do("bash", "-euc", f"umask 077\n{install}", cwd=project.path, env=env)
        for directory in (home, home / ".n6", state):
            directory.mkdir(mode=0o700)
        shutil.copy(project.path / f"etc/60_{collector_name}.conf", home / ".n6")
        (home / ".n6/09_rabbitmq.conf").write_text(
            f"[rabbitmq]\nhost = {broker.hostname}\nport = {broker.port or 5672}\nssl = false\n"
            f"heartbeat_interval = 60\npassword_auth = true\nusername = {broker.username or 'guest'}\n"
            f"password = {broker.password or 'guest'}\n"
        )
        for path in (state, home, *home.rglob("*")):
            os.chown(path, ORDINARY_USER, ORDINARY_USER)
        yield project, home
    finally:
        for path in (opt, state, home):
            shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("deployed", ["systemd"], indirect=True)
def test_systemd_delivers(deployed: tuple[Project, Path], queue: Callable[[], Any]) -> None:
    """The command line of the systemd unit delivers to RabbitMQ."""
    project, home = deployed
    service = project.path / f"deploy/systemd/n6-{project.name}.service"
    (command,) = re.findall(r"^ExecStart=(.*)", service.read_text(), re.MULTILINE)
    (state_directory,) = re.findall(r"^StateDirectory=(.*)", service.read_text(), re.MULTILINE)
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "STATE_DIRECTORY": f"/var/lib/{state_directory}"}
    done = as_ordinary_user(*shlex.split(command), env=env)
    assert done.returncode == 0, done.stderr
    assert queue()[2] == b'version "1"'
    assert list(Path("/var/lib", state_directory).glob("*.pickle"))
    assert as_ordinary_user(*shlex.split(command), env=env).returncode == 0
    assert queue()[0] is None


@pytest.mark.parametrize("deployed", ["cron"], indirect=True)
def test_cron_delivers(deployed: tuple[Project, Path], queue: Callable[[], Any], feed: Feed) -> None:
    """The cron line delivers to RabbitMQ, and mails only what goes wrong."""
    project, home = deployed
    command = cron_command(project.path / f"deploy/cron/{project.name}.cron")
    env = {"HOME": str(home), "LOGNAME": "n6", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    first = as_ordinary_user("/bin/sh", "-c", command, env=env)
    (told,) = (first.stdout + first.stderr).splitlines()
    assert "there is no state" in told
    assert queue()[2] == b'version "1"'
    second = as_ordinary_user("/bin/sh", "-c", command, env=env)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert queue()[0] is None
    config = home / f".n6/60_{project.name}.conf"
    config.write_text(config.read_text().replace("/etag", "/missing"))
    third = as_ordinary_user("/bin/sh", "-c", command, env=env)
    assert len((third.stdout + third.stderr).splitlines()) == 1
