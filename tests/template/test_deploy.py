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


@pytest.mark.parametrize("scheduler", ["cron", "kubernetes"])
def test_prometheus(scheduler: str, bake: Bake) -> None:
    """Its alert rules load, and name the collector's metric as it is written."""
    import yaml

    project = bake(**scheduled(scheduler))
    (path,) = project.path.glob("deploy/prometheus/*.yml")
    (group,) = yaml.safe_load(path.read_text())["groups"]
    silent, *nothing_new, unknown = (rule["expr"] for rule in group["rules"])
    metric = {
        "cron": f'n6_collector_last_success_timestamp_seconds{{collector="{class_name(project.name)}"}}',
        "kubernetes": "kube_cronjob_status_last_successful_time"
        f'{{cronjob="n6-{project.name.replace("_", "-")}"}}',
    }[scheduler]
    assert (silent, unknown) == (f"time() - {metric} > 7200", f"absent({metric})")
    new_data = metric.replace("last_success", "last_new_data")
    assert nothing_new == ([] if scheduler == "kubernetes" else [f"time() - {new_data} > 604800"])


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's package prometheus")
def test_alerts(bake: Bake, tmp_path: Path) -> None:
    """Prometheus itself raises them over what a run has written: two hours after the last good run, a week
    after the last new data, and where there is nothing."""
    import yaml

    project = bake(**scheduled("cron"))
    (rules,) = project.path.glob("deploy/prometheus/*.yml")
    good = RunRecord(start=590.0, end=600.0, exit_code=0, messages=5, error="")
    metrics.write(tmp_path, ("feed.lines", class_name(project.name)), [good], None)
    (written,) = tmp_path.glob("*.prom")
    samples = [line.rsplit(" ", 1) for line in written.read_text().splitlines() if line[0] != "#"]
    series = [{"series": name, "values": f"{float(value):g}x10200"} for name, value in samples]
    (group,) = yaml.safe_load(rules.read_text())["groups"]
    silent, nothing_new, unknown = group["rules"]

    def expected(eval_time: str, rule: dict[str, Any], labels: dict[str, str] | None) -> dict[str, Any]:
        alerts = [] if labels is None else [{"exp_labels": labels, "exp_annotations": rule["annotations"]}]
        return {"eval_time": eval_time, "alertname": rule["alert"], "exp_alerts": alerts}

    ours = {"severity": "warning", "source": "feed.lines", "collector": class_name(project.name)}
    tests = tmp_path / "tests.yml"
    tests.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(rules)],
                "evaluation_interval": "1m",
                "tests": [
                    {
                        "interval": "1m",
                        "input_series": series,
                        "alert_rule_test": [
                            expected("2h10m", silent, None),
                            expected("2h21m", silent, ours),
                            expected("2h21m", unknown, None),
                            expected("168h10m", nothing_new, None),
                            expected("168h21m", nothing_new, ours),
                        ],
                    },
                    {
                        "interval": "1m",
                        "input_series": [],
                        "alert_rule_test": [
                            expected("59m", unknown, None),
                            expected("61m", unknown, {key: ours[key] for key in ("severity", "collector")}),
                        ],
                    },
                ],
            }
        )
    )
    do("promtool", "check", "rules", rules, cwd=project.path)
    do("promtool", "test", "rules", tests, cwd=project.path)


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
