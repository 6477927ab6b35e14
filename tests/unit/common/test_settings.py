"""Settings come from flags, the environment, a file, a running ``up`` and defaults, in that
order.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepstream.common import endpoints
from stepstream.common.process import identity_of
from stepstream.common.settings import (
    SettingsError,
    default_state_dir,
    load,
    require_clickhouse,
    require_kafka,
    resolve,
    to_environment,
)
from stepstream.schemas.settings import SECRETS, Settings, environment_name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and a configuration folder with nothing in them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environ(home: Path, **variables: str) -> dict[str, str]:
    """An environment whose folders all lie in ``home``."""
    return {
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_STATE_HOME": str(home / "state"),
        **variables,
    }


def running_here(
    home: Path, *, kafka: str = "127.0.0.1:1111", clickhouse: str = "http://127.0.0.1:2222"
) -> Path:
    """The state folder of an ``up`` that is this very process."""
    folder = home / "state" / "stepstream"
    known = identity_of(os.getpid())
    began = known.began if known else ""
    endpoints.write(folder, endpoints.Endpoints(kafka, clickhouse, os.getpid(), began))
    return folder


def test_the_first_source_that_names_a_setting_wins(home: Path) -> None:
    """Flags come before the environment, that before the file, that before defaults.

    Each setting on its own.
    """
    (home / "stepstream.toml").write_text('project = "file"\nagent = "file"\n')
    variables = environ(
        home,
        STEPSTREAM_PROJECT="environment",
        STEPSTREAM_AGENT="environment",
        STEPSTREAM_ENVIRONMENT="prod",
    )
    resolved = resolve(environ=variables, flags={"project": "flag", "agent": None})
    assert (resolved.settings.project, resolved.settings.agent) == ("flag", "environment")
    assert resolved.sources["project"] == "argument project"
    assert resolved.sources["agent"] == "STEPSTREAM_AGENT"
    assert resolved.sources["partitions"] == "default"
    assert load(environ=environ(home)).project == "file"


def test_the_file_is_looked_for_in_a_fixed_order(home: Path) -> None:
    """The one given, the one that STEPSTREAM_SETTINGS names, the working directory's, the
    user's.
    """
    places = [
        home / "given.toml",
        home / "named.toml",
        home / "stepstream.toml",
        home / "config" / "stepstream" / "settings.toml",
    ]
    places[3].parent.mkdir(parents=True)
    for place in places:
        place.write_text(f'project = "{place.stem}"')
    named = environ(home, STEPSTREAM_SETTINGS=str(places[1]))
    found = [load(file=places[0], environ=named), load(environ=named), load(environ=environ(home))]
    places[2].unlink()
    found.append(load(environ=environ(home)))
    assert [settings.project for settings in found] == ["given", "named", "stepstream", "settings"]


def test_nothing_is_read_where_the_named_file_is_the_null_device(home: Path) -> None:
    """A child process gets its settings whole, whatever files lie around."""
    (home / "stepstream.toml").write_text('project = "file"')
    assert load(environ=environ(home, STEPSTREAM_SETTINGS=os.devnull)).project == "default"


def test_every_problem_is_reported_with_setting_source_and_reason(home: Path) -> None:
    """One error names all that is wrong, so that all of it can be corrected at once."""
    (home / "stepstream.toml").write_text('partitons = 3\nsink_batch_rows = "many"\n')
    variables = environ(
        home, STEPSTREAM_PARTITIONS="0", STEPSTREAM_KAFKA_BROKRES="x", STEPSTREAM_CLOSE_AFTER="soon"
    )
    with pytest.raises(SettingsError) as caught:
        load(environ=variables, compression="brotli", agnet="a")
    text = str(caught.value)
    assert "argument agnet is not a setting; did you mean agent?" in text
    assert (
        "STEPSTREAM_KAFKA_BROKRES is not a setting; did you mean STEPSTREAM_KAFKA_BROKERS?" in text
    )
    assert "partitons in stepstream.toml is not a setting; did you mean partitions?" in text
    assert "partitions from STEPSTREAM_PARTITIONS must be more than 0, not '0'" in text
    assert "sink_batch_rows from stepstream.toml" in text
    assert "close_after from STEPSTREAM_CLOSE_AFTER: not a duration" in text
    assert "compression from argument compression" in text
    # Seven mistakes in file, environment and arguments, so none hides another.
    assert len(caught.value.problems) == 7


def test_a_variable_of_another_version_is_only_a_warning_in_the_sdk(home: Path) -> None:
    """A newer worker's setting in a shared environment must not stop an older agent.

    A wrong value is still an error.
    """
    (home / "stepstream.toml").write_text("partitons = 3\n")
    variables = environ(home, STEPSTREAM_PROJCT="shop", STEPSTREAM_ENVIRONMENT="prod")
    found = resolve(environ=variables, lenient=True)
    assert found.settings.environment == "prod"
    assert found.unknown == (
        "STEPSTREAM_PROJCT is not a setting; did you mean STEPSTREAM_PROJECT?",
        "partitons in stepstream.toml is not a setting; did you mean partitions?",
    )
    with pytest.raises(SettingsError, match="STEPSTREAM_PROJCT"):
        resolve(environ=variables)
    with pytest.raises(SettingsError, match="partitions from STEPSTREAM_PARTITIONS"):
        resolve(environ=environ(home, STEPSTREAM_PARTITIONS="0"), lenient=True)


@pytest.mark.parametrize(
    ("content", "words"), [("project = ", "cannot be read"), (None, "does not exist")]
)
def test_a_named_file_that_cannot_be_read_is_an_error(
    home: Path, content: str | None, words: str
) -> None:
    """Someone who names a file means it."""
    file = home / "mine.toml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError, match=words):
        load(file=file, environ=environ(home))


def test_an_empty_variable_counts_as_not_set(home: Path) -> None:
    """Compose files hand on variables that are not set as empty ones."""
    (home / "stepstream.toml").write_text("partitions = 8")
    assert (
        load(environ=environ(home, STEPSTREAM_PARTITIONS="", STEPSTREAM_SETTINGS="")).partitions
        == 8
    )


def test_variables_of_a_kubernetes_service_are_no_settings(home: Path) -> None:
    """A service named stepstream, or stepstream-kafka, puts its address into the environment of
    every pod.
    """
    links = {
        "STEPSTREAM_SERVICE_HOST": "10.0.0.1",
        "STEPSTREAM_SERVICE_PORT": "9092",
        "STEPSTREAM_SERVICE_PORT_KAFKA": "9092",
        "STEPSTREAM_PORT": "tcp://10.0.0.1:9092",
        "STEPSTREAM_PORT_9092_TCP": "tcp://10.0.0.1:9092",
        "STEPSTREAM_PORT_9092_TCP_ADDR": "10.0.0.1",
        "STEPSTREAM_KAFKA_PORT": "tcp://10.0.0.1:9092",
    }
    assert load(environ=environ(home, **links)).kafka_port == 0


def test_the_data_variable_of_tests_is_tolerated(home: Path) -> None:
    """STEPSTREAM_DATA is read by others than the settings."""
    load(environ=environ(home, STEPSTREAM_DATA="/anywhere"))


def test_a_secret_may_be_a_file(home: Path) -> None:
    """By its own variable, or by a value that begins with file:.

    The line's end does not belong to it.
    """
    (home / "secret").write_text("s3cret \n")
    by_variable = load(
        environ=environ(home, STEPSTREAM_KAFKA_SASL_PASSWORD_FILE=str(home / "secret"))
    )
    by_value = load(environ=environ(home), clickhouse_password=f"file:{home / 'secret'}")
    assert by_variable.kafka_sasl_password.get_secret_value() == "s3cret "
    assert by_value.clickhouse_password.get_secret_value() == "s3cret "


def test_a_secret_that_cannot_be_read_is_an_error(home: Path) -> None:
    """Without a password the error would come later, with a less helpful message."""
    with pytest.raises(
        SettingsError,
        match=r"clickhouse_password from STEPSTREAM_CLICKHOUSE_PASSWORD_FILE: "
        r"the file .* cannot be read",
    ):
        load(environ=environ(home, STEPSTREAM_CLICKHOUSE_PASSWORD_FILE=str(home / "none")))


def test_a_secret_given_twice_is_an_error(home: Path) -> None:
    """It would be ambiguous which one is meant."""
    (home / "secret").write_text("a")
    variables = environ(
        home,
        STEPSTREAM_CLICKHOUSE_PASSWORD="b",
        STEPSTREAM_CLICKHOUSE_PASSWORD_FILE=str(home / "secret"),
    )
    with pytest.raises(SettingsError, match="both set"):
        load(environ=variables)


def test_a_misspelt_secret_file_is_an_error(home: Path) -> None:
    """Only secrets have a variable that ends in _FILE, besides settings that are files
    themselves.
    """
    with pytest.raises(SettingsError, match="did you mean STEPSTREAM_CLICKHOUSE_PASSWORD_FILE"):
        load(environ=environ(home, STEPSTREAM_CLICKHOUSE_PASWORD_FILE="/x"))
    assert (
        load(environ=environ(home, STEPSTREAM_KAFKA_CA_FILE="/ca.pem")).kafka_ca_file == "/ca.pem"
    )


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_no_error_shows_a_secret(home: Path, name: str) -> None:
    """A wrong value of a secret is reported without the value."""
    with pytest.raises(SettingsError) as caught:
        resolve(environ=environ(home), flags={name: ["hunter2"]})
    assert name in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "brokers"),
    [
        ("kafka://broker", "broker:9092"),
        ("kafka://broker:1234/", "broker:1234"),
        ("kafka://a:1,b,10.0.0.3:3", "a:1,b:9092,10.0.0.3:3"),
        ("kafka://[::1]:9094", "[::1]:9094"),
    ],
)
def test_an_endpoint_names_the_brokers(home: Path, endpoint: str, brokers: str) -> None:
    """kafka://host[:port][,host[:port]] sets kafka_brokers.

    The port is Kafka's usual one where it is left out.
    """
    assert load(environ=environ(home), endpoint=endpoint).kafka_brokers == brokers


@pytest.mark.parametrize(
    "endpoint",
    [
        "broker:9092",
        "ftp://gateway:4318",
        "kafka://",
        "kafka://user:pw@host:1",
        "kafka://a b",
        "kafka://a/topic",
    ],
)
def test_an_endpoint_that_is_none_is_an_error(home: Path, endpoint: str) -> None:
    """The message explains what to write and contains no password."""
    with pytest.raises(SettingsError, match=r"write kafka://host:port") as caught:
        load(environ=environ(home), endpoint=endpoint)
    # A login in an endpoint is refused, and must not be in the error either.
    assert "pw" not in str(caught.value)


def test_endpoint_and_brokers_follow_the_order_of_sources(home: Path) -> None:
    """The one from the earlier source holds; two that differ in one source are an error."""
    variables = environ(home, STEPSTREAM_ENDPOINT="kafka://e:1")
    assert load(environ=variables, kafka_brokers="k:2").kafka_brokers == "k:2"
    assert (
        load(
            environ=environ(home, STEPSTREAM_KAFKA_BROKERS="k:2"), endpoint="kafka://e:1"
        ).kafka_brokers
        == "e:1"
    )
    with pytest.raises(SettingsError, match="name different brokers"):
        load(environ=variables | {"STEPSTREAM_KAFKA_BROKERS": "k:2"})
    assert load(environ=variables | {"STEPSTREAM_KAFKA_BROKERS": "e:1"}).kafka_brokers == "e:1"


def test_a_running_up_is_found_by_itself(home: Path) -> None:
    """Where nothing names Kafka or ClickHouse, both are those of the running ``up``."""
    running_here(home)
    resolved = resolve(environ=environ(home))
    assert resolved.settings.kafka_brokers == "127.0.0.1:1111"
    assert resolved.settings.clickhouse_url == "http://127.0.0.1:2222"
    assert resolved.sources["kafka_brokers"] == "stepstream up"


def test_kafka_and_clickhouse_of_two_installations_are_not_mixed(home: Path) -> None:
    """Steps sent to another Kafka are not in the store of the local ``up``.

    Its own address is no other one.
    """
    running_here(home)
    assert load(environ=environ(home), kafka_brokers="prod:9092").clickhouse_url == ""
    assert load(environ=environ(home), clickhouse_url="http://prod:8123").kafka_brokers == ""
    assert (
        load(environ=environ(home), endpoint="kafka://localhost:1111").clickhouse_url
        == "http://127.0.0.1:2222"
    )


def test_an_address_missing_next_to_a_running_up_is_reported_with_the_reason(home: Path) -> None:
    """With one address set elsewhere the error asks for the other one, not for a running ``up``."""
    running_here(home)
    with pytest.raises(
        SettingsError, match="kafka_brokers is not that of the running `stepstream up`"
    ):
        require_clickhouse(load(environ=environ(home), kafka_brokers="prod:9092"))
    with pytest.raises(
        SettingsError, match="clickhouse_url is not that of the running `stepstream up`"
    ):
        require_kafka(load(environ=environ(home), clickhouse_url="http://prod:8123"))


def test_what_a_dead_up_left_behind_does_not_count(home: Path) -> None:
    """After a power cut the file is still there, and its pid may belong to another process."""
    folder = home / "state" / "stepstream"
    # A pid that existed and is free now.
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    endpoints.write(folder, endpoints.Endpoints("a:1", "http://b:2", ended.pid, "then"))
    assert load(environ=environ(home)).kafka_brokers == ""
    # A living process with the pid, started at another time: the pid was reused.
    endpoints.write(folder, endpoints.Endpoints("a:1", "http://b:2", os.getpid(), "another time"))
    assert load(environ=environ(home)).kafka_brokers == ""


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"kafka": 1}', "\x00"])
def test_a_damaged_endpoints_file_is_no_running_up(home: Path, content: str) -> None:
    """It is only a hint: nothing may fail because of it."""
    folder = home / "state" / "stepstream"
    folder.mkdir(parents=True)
    (folder / endpoints.FILE_NAME).write_text(content)
    assert load(environ=environ(home)).kafka_brokers == ""


def test_the_endpoints_file_is_for_its_user_alone_and_removed_by_its_owner_alone(
    home: Path,
) -> None:
    """Others find the pipeline by it; a second process must not remove the first one's."""
    folder = running_here(home)
    if os.name == "posix":
        assert (folder / endpoints.FILE_NAME).stat().st_mode & 0o777 == 0o600
    # As a second `up` that ended would do.
    endpoints.remove(folder, os.getpid() + 1)
    assert endpoints.read(folder) is not None
    endpoints.remove(folder, os.getpid())
    assert endpoints.read(folder) is None
    assert list(folder.iterdir()) == []


def test_folders_are_always_filled_and_absolute(home: Path) -> None:
    """Settings contain the resolved folders of state and data."""
    settings = load(environ=environ(home))
    assert settings.state_dir == str(default_state_dir(environ(home)))
    assert settings.data_dir == str(Path(settings.state_dir) / "data")
    moved = load(environ=environ(home), state_dir="here")
    assert (moved.state_dir, moved.data_dir) == (str(home / "here"), str(home / "here" / "data"))


def test_a_bare_number_is_seconds_wherever_it_is_written(home: Path) -> None:
    """In the environment everything is text; 90 means there what it means in a file."""
    # A number in the file, a text in the environment.
    (home / "stepstream.toml").write_text("stuck_after = 90")
    settings = load(environ=environ(home, STEPSTREAM_CLOSE_AFTER="1.5"))
    assert (settings.close_after, settings.stuck_after) == (1_500_000, 90_000_000)


def test_the_environment_of_a_child_gives_the_same_settings(home: Path) -> None:
    """Every value survives the way through the environment, secrets and durations too."""
    given = Settings(
        project="p q", kafka_sasl_password="a'b\"c$d", close_after="1500ms", kafka_tls=True,
        partitions=7, kafka_brokers="x:1",
        state_dir=str(home), data_dir=str(home / "d"),
    )  # fmt: skip
    (home / "stepstream.toml").write_text('agent = "from the file"')
    assert load(environ=to_environment(given)) == given


def test_every_setting_is_known_by_its_variable(home: Path) -> None:
    """The name of a variable follows from the setting's name alone.

    Defaults written out are the defaults.
    """
    defaults = Settings().model_dump(mode="json")
    given = {
        name: str(value) for name, value in defaults.items() if value not in ("", "**********")
    }
    resolved = resolve(
        environ=environ(home, **{environment_name(name): text for name, text in given.items()})
    )
    assert len(given) > 30
    assert {name: resolved.sources[name] for name in given} == {
        name: environment_name(name) for name in given
    }
    assert resolved.settings.model_copy(update={"state_dir": "", "data_dir": ""}) == Settings()


def test_a_missing_address_is_reported_with_a_remedy() -> None:
    """A command without Kafka or ClickHouse explains how to get one."""
    with pytest.raises(
        SettingsError,
        match=r"no Kafka is known: start `stepstream up`.*STEPSTREAM_KAFKA_BROKERS=host:port",
    ):
        require_kafka(Settings())
    with pytest.raises(SettingsError, match=r"no ClickHouse is known: .*STEPSTREAM_CLICKHOUSE_URL"):
        require_clickhouse(Settings())


def test_loading_settings_is_light() -> None:
    """The SDK loads settings: neither Kafka's client nor anything of the worker or the store comes
    with them.
    """
    program = (
        "import sys, stepstream.common.settings\n"
        "large = {'confluent_kafka', 'faust', 'clickhouse_connect', 'chdb', 'rich', 'typer',"
        " 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported: {large}' if large else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
