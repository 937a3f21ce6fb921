"""Settings: environment over file, typed, secrets masked, handed on to child processes."""

from pathlib import Path

import pytest

from jobs.settings import Settings
from schemas.errors import SpecError


def test_the_environment_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "nightshift.toml"
    file.write_text('lease_s = 30\nsweep_s = 2\nallowed_models = ["distilbert/*"]\n')
    monkeypatch.setenv("NIGHTSHIFT_SETTINGS", str(file))
    monkeypatch.setenv("NIGHTSHIFT_LEASE_S", "7")
    settings = Settings.read()
    assert (settings.lease_s, settings.sweep_s, settings.allowed_models) == (7, 2, ["distilbert/*"])


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_LEASE_S", "soon")
    with pytest.raises(SpecError, match=r"NIGHTSHIFT_LEASE_S: .*number"):
        Settings.read()


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_SETTINGS", "/nowhere/x.toml")
    with pytest.raises(SpecError, match=r"/nowhere/x\.toml"):
        Settings.read()


def test_secrets_are_masked() -> None:
    settings = Settings(redis_url="redis://:hunter2@host/0")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())


def test_a_child_process_reads_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(
        redis_url="redis://:pw@host/0",
        home=tmp_path,
        lease_s=5,
        allow_files=False,
        allowed_inputs=["s3://a/", "s3://b/"],
    )
    for name, value in settings.environment({}).items():
        monkeypatch.setenv(name, value)
    assert Settings.read() == settings


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("REDIS_URL", "foo", "not a Redis URL"),
        ("REDIS_URL", "http://x", "not a Redis URL"),
        ("REDIS_URL", "redis://:[hunter2]@host", "not a Redis URL"),
        ("REDIS_URL", "redis://:hunter2\u2100@host", "not a Redis URL"),
        ("REDIS_URL", "redis://x:abc", "not a Redis URL"),
        ("ALLOWED_INPUTS", "s3://raw/", "write a list as"),
        ("HOME", "", "names no folder"),
    ],
)
def test_values_that_mean_nothing(name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    with pytest.raises(SpecError, match=says):
        Settings.read()


def test_an_empty_redis_url_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSHIFT_REDIS_URL", "")
    assert Settings.read().redis_url is None


def test_a_file_that_is_no_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.toml").write_text("lease_s: 3")
    monkeypatch.setenv("NIGHTSHIFT_SETTINGS", str(tmp_path / "x.toml"))
    with pytest.raises(SpecError, match="is no TOML"):
        Settings.read()


def test_the_settings_to_start_from_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(__file__).parents[2] / "deploy" / "nightshift.toml"
    monkeypatch.setenv("NIGHTSHIFT_SETTINGS", str(file))
    monkeypatch.delenv("NIGHTSHIFT_HOME")
    settings = Settings.read()
    assert (settings.allow_files, settings.allowed_inputs) == (False, ["s3://raw/"])
    assert settings.catalog_uri == "s3://annotated/_nightshift"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REDIS_URL", "http://host", "NIGHTSHIFT_REDIS_URL: not a Redis URL; write redis://"),
        (
            "ALLOWED_INPUTS",
            "s3://raw/",
            "NIGHTSHIFT_ALLOWED_INPUTS: not JSON: Expecting value: line 1 column 1 (char 0); ",
        ),
        ("LEASE_S", "soon", "NIGHTSHIFT_LEASE_S: Input should be a valid number"),
    ],
)
def test_an_error_names_the_variable(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"NIGHTSHIFT_{name}", value)
    with pytest.raises(SpecError) as error:
        Settings.read()
    assert error.value.message.startswith(said)
