"""Settings: one typed object, read once at each entry point and handed down. Nothing else reads the environment.

Each setting is an environment variable `NIGHTSHIFT_<NAME>`, or a key of the TOML file that `NIGHTSHIFT_SETTINGS`
names; the environment wins. S3 credentials, region and endpoint come from AWS's own chain instead.
"""

import os
import re
import socket
import tomllib
from collections.abc import Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from schemas.errors import Problem, SpecError
from schemas.layout import Layout


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="NIGHTSHIFT_", frozen=True, extra="forbid")

    redis_url: SecretStr | None = Field(None, description="The Redis of a deployment; none runs everything here.")
    home: Path = Field(
        Path("~/.nightshift"), description="Logs, cached models and, by default, the catalog.", validate_default=True
    )
    catalog: str | None = Field(None, description="Where a pointer to each job is kept; by default under `home`.")

    allowed_inputs: list[str] = Field(["*"], description="Prefixes of inputs; `*` allows all.")
    allowed_outputs: list[str] = Field(["*"], description="Prefixes of outputs; `*` allows all.")
    allowed_models: list[str] = Field(["*"], description="Models by glob pattern, such as `distilbert/*`.")
    iceberg_catalogs: list[str] = Field(
        [], description="Catalogs of pyiceberg's own configuration that jobs may commit to, by glob pattern."
    )
    allow_files: bool = Field(True, description="Whether local paths are allowed at all.")

    tokens_file: Path | None = Field(None, description="The API's tokens, as hashes; `tokens.json` under `home`.")
    max_request_kb: int = Field(1024, ge=1, description="Largest body of a request to the API, in KiB.")
    max_connections: int = Field(1000, ge=1, description="Connections to the API at once; more get a 503.")
    requests_per_s: float = Field(100, gt=0, description="Requests a second that the API answers to one tenant.")
    notify_secret: SecretStr | None = Field(None, description="What webhooks are signed with; none sends none.")
    notify_hosts: list[str] = Field(["*"], description="Hosts that get webhooks, by glob pattern.")
    notify_networks: list[str] = Field([], description="Networks, not public, that may get webhooks: `10.0.0.0/8`.")
    notify_tries: int = Field(8, ge=1, description="How often a webhook is sent at most.")
    notify_backoff_s: float = Field(
        10, gt=0, description="Seconds to a webhook's second try; each next is 3 times that."
    )
    notify_timeout_s: float = Field(10, gt=0, description="Seconds that the receiver of a webhook has to answer.")

    lease_s: float = Field(60, gt=0, description="Seconds after which a silent worker's shard is released.")
    renew_s: float = Field(1, gt=0, description="Seconds between renewals of a lease; they carry progress.")
    sweep_s: float = Field(5, gt=0, description="Seconds between two sweeps.")
    grace_s: float = Field(30, gt=0, description="Seconds a stopping worker has to put its shard back.")
    max_lost: int = Field(4, ge=1, description="How often a shard may lose its worker over no record in particular.")
    max_killers: int = Field(8, ge=1, description="Records of a shard that may end its worker, each an error row.")
    max_lost_shards: int = Field(
        5, ge=1, description="Shards given up in a row for lost workers, none done in between, that fail their job."
    )
    record_timeout_s: float = Field(300, gt=0, description="Seconds of a step on one record; four times that on many.")
    load_timeout_s: float = Field(1800, gt=0, description="Seconds that a model may take to load, once it is fetched.")
    io_timeout_s: float = Field(
        900,
        gt=0,
        description="Seconds that reading, fetching a model or writing a part may go without a byte.",
    )
    process_memory_gb: float | None = Field(
        None, gt=0, description="Resident size of a worker process at most; by default an equal share of 90% of memory."
    )
    control_processes: int = Field(2, ge=1, description="Processes of a worker that plan and finish jobs.")
    flat_output: bool = Field(
        False, description="Whether the parts of new jobs lie beside `_job.json`, as earlier versions need it."
    )
    max_shards: int = Field(1_000_000, ge=1, description="Largest plan of a job, in shards.")
    rebuild: bool = Field(True, description="Whether a worker that finds a new Redis enters the catalog's jobs.")
    schedules: bool = Field(True, description="Whether a worker fires the schedules of the catalog.")
    max_transient: int = Field(12, ge=1, description="How often a shard is retried for a fault that should pass.")
    keep_state_s: int = Field(7 * 86400, ge=60, description="Seconds that Redis remembers an ended job.")

    host: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        max_length=255,
        description="This machine's name: a fault that only one machine sees is its own; by default its host name.",
    )
    model_memory_gb: float = Field(8, gt=0, description="Models of at most this size in all stay loaded.")
    batch_tokens: int | None = Field(None, ge=1, description="Padded tokens a batch; by default by the device.")
    max_footer_mb: int = Field(64, ge=1, description="Largest Parquet footer read, in MiB.")
    max_cell_mb: int = Field(16, ge=1, description="Largest text of one record, in MiB; a larger one is an error row.")
    max_object_mb: int = Field(1024, ge=1, description="Largest picture or sound as stored, in MiB.")
    max_pixels: int = Field(89_478_485, ge=1, description="Pixels of a picture at most; Pillow warns above as many.")
    max_seconds: float = Field(4 * 3600, gt=0, description="Seconds of a sound at most.")

    worker: str = Field("", description="Set by a supervisor for its processes: its name.")
    slot: int = Field(0, description="Set by a supervisor for its processes: which of them it is.")
    serves: list[str] = Field([], description="Set by a supervisor for its processes: the tasks they run.")
    stop_file: Path | None = Field(None, description="Set by a supervisor for its processes: appears when to stop.")
    work_folder: Path | None = Field(None, description="Set by a supervisor for its processes: what they do.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        if url is None or not url.get_secret_value():
            return None
        try:  # what these raise quotes the URL
            parts = urlsplit(url.get_secret_value())
            right = parts.scheme in ("redis", "rediss", "unix") and (parts.port is None or parts.port > 0)
        except ValueError:
            right = False
        if not right:
            raise ValueError("not a Redis URL; write redis://HOST:6379/0, rediss://… or unix:///PATH")
        return url

    @field_validator("home")
    @classmethod
    def _is_named(cls, home: Path) -> Path:
        if home == Path():
            raise ValueError("names no folder")
        return home.expanduser().absolute()

    @field_validator("tokens_file")
    @classmethod
    def _is_absolute(cls, file: Path | None) -> Path | None:
        """Child processes run in a folder of their own."""
        return file and file.expanduser().absolute()

    @field_validator("catalog")
    @classmethod
    def _is_whole(cls, catalog: str | None) -> str | None:
        if not catalog or "://" in catalog:
            return catalog
        return str(Path(catalog).expanduser().absolute())

    @field_validator("notify_secret")
    @classmethod
    def _is_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        return secret if secret and secret.get_secret_value() else None

    @field_validator("notify_networks")
    @classmethod
    def _are_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            ip_network(network)  # raises ValueError
        return networks

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get("NIGHTSHIFT_SETTINGS")
        toml = (TomlConfigSettingsSource(settings_cls, Path(file)),) if file else ()
        return (init_settings, env_settings, *toml)

    @classmethod
    def read(cls, **overrides: Any) -> "Settings":
        """The settings of this process. Raises SpecError naming the variable at fault."""
        file = os.environ.get("NIGHTSHIFT_SETTINGS")
        if file and not Path(file).is_file():
            raise SpecError.of("NIGHTSHIFT_SETTINGS", f"there is no file {file!r}")
        try:
            return cls(**overrides)
        except SettingsError as error:  # a list that is no JSON
            name = re.search(r'field "(\w+)"', str(error))
            variable = f"NIGHTSHIFT_{name[1].upper()}" if name else "settings"
            raise SpecError.of(variable, f'not JSON: {error.__cause__}; write a list as ["a", "b"]') from None
        except tomllib.TOMLDecodeError as error:
            raise SpecError.of("NIGHTSHIFT_SETTINGS", f"{file!r} is no TOML: {error}") from None
        except ValidationError as error:
            problems = [
                Problem(
                    "NIGHTSHIFT_" + "_".join(map(str, item["loc"])).upper(), item["msg"].removeprefix("Value error, ")
                )
                for item in error.errors(include_url=False, include_input=False)
            ]
            raise SpecError(problems) from None

    @property
    def catalog_uri(self) -> str:
        return self.catalog or str(self.home / "catalog")

    @property
    def layout(self) -> Layout:
        """Where the parts of a new job lie."""
        return Layout.FLAT if self.flat_output else Layout.DATA

    @property
    def tokens_path(self) -> Path:
        return self.tokens_file or self.home / "tokens.json"

    @property
    def losses(self) -> tuple[int, int, int]:
        """How often a shard may lose its worker: over no record in particular, and over records that it had named; and
        how many shards in a row a job may lose so."""
        return self.max_lost, 2 * self.max_killers, self.max_lost_shards

    @property
    def silence_s(self) -> float:
        """Seconds that code may let no other thread of its process run: its lease would run out soon."""
        return max(20.0, 0.8 * self.lease_s)

    def check_allowed(self, uri: str, allowed: list[str], field: str) -> None:
        """Raises SpecError, naming `field`, where these settings don't allow this URI."""
        if not uri.startswith("s3://"):
            self.check_path(uri, field)
        if not _within(uri, allowed):
            raise SpecError.of(field, f"{uri!r} is outside of what is allowed here: {', '.join(allowed)}")

    def check_path(self, path: str, field: str) -> None:
        """Raise SpecError, naming `field`, if these settings allow no local paths."""
        if not self.allow_files:
            raise SpecError.of(field, f"{path!r}: local paths are not allowed here; use s3://")

    def narrowed(self, inputs: Iterable[str] | None, outputs: Iterable[str] | None = None) -> "Settings":
        """These settings, with only the prefixes that they and these lists allow both; None narrows nothing."""
        narrower = {"allowed_inputs": inputs, "allowed_outputs": outputs}
        return self.model_copy(
            update={name: _both(getattr(self, name), list(own)) for name, own in narrower.items() if own is not None}
        )

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` with these settings in it, for a process that this one starts, under Python's own warning filters."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        shown = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in given.items()
            if value is not None
        }
        # PYTHONWARNINGS=error would end a process while it still imports, before `logs.configure`.
        env = {k: v for k, v in base.items() if k not in ("NIGHTSHIFT_SETTINGS", "PYTHONWARNINGS")}
        return env | {f"NIGHTSHIFT_{name.upper()}": _to_text(value) for name, value in shown.items()}


def _within(uri: str, prefixes: Iterable[str]) -> bool:
    return any(prefix == "*" or uri.startswith(prefix) for prefix in prefixes)


def _both(one: list[str], other: list[str]) -> list[str]:
    """The prefixes that two lists of them allow both."""
    if "*" in one:
        return other
    if "*" in other:
        return one
    longer = [a for a in one if _within(a, other)] + [b for b in other if _within(b, one)]
    return list(dict.fromkeys(longer))


def _to_text(value: Any) -> str:
    if isinstance(value, list):
        import json

        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
