"""The one tree of settings, with defaults that run on the local stack: names, types, ranges, what must fit together.

Frozen. The root of the program has it from loading.py; everything else is handed the part it needs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX: Final = "MMCAT_"
DELIMITER: Final = "__"
# librdkafka properties whose values are secrets: shown as stars, and may stand in a file that `<name>.file` names.
SECRET_PROPERTIES: Final = ("password", "passphrase", "secret", "key.pem", "oauthbearer.config")
IN_FILE: Final = ".file"
STARS: Final = "**********"
# What the promises rest on (docs/decisions/0003): refused by name.
FIXED_PROPERTIES: Final = frozenset(
    {
        "acks", "request.required.acks", "auto.offset.reset", "enable.auto.commit", "enable.auto.offset.store",
        "enable.idempotence", "isolation.level", "partitioner", "transactional.id", "group.instance.id",
        "partition.assignment.strategy", "max.in.flight",
        "max.in.flight.requests.per.connection", "enable.partition.eof", "transaction.timeout.ms",
    }
)  # fmt: skip
# What the broker decides in the newer group protocol (KIP-848): the client refuses them there.
CLASSIC_PROPERTIES: Final = ("session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type")
UNITS_S: Final = {"s": 1, "m": 60, "h": 3600}

Seconds = Annotated[float, Field(gt=0, le=3600)]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class Part(BaseModel):
    """A branch of the tree: frozen, unknown names refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(BaseModel):
    """The broker. Every other librdkafka property passes through, written with dots or with underscores."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow")
    bootstrap_servers: str = Field("127.0.0.1:9092", min_length=1, description="host:port, several by commas")
    group_id: str = Field("mmcat", min_length=1, description="consumer group; the view's readers add -view")
    instance_id: str | None = Field(
        None, min_length=1, description="stable name of this instance alone: static membership, exactly once"
    )
    group_protocol: Literal["classic", "consumer"] = Field(
        "classic", description="classic (cooperative-sticky) or consumer (KIP-848)"
    )

    def properties(self) -> dict[str, str]:
        """What passes through to librdkafka, by its own names; secrets are read from the files that hold them.

        Raises:
            ValueError: such a file cannot be read.
        """
        found = {}
        for written, value in (self.model_extra or {}).items():
            name = written.replace("_", ".")
            secret = name.removesuffix(IN_FILE)
            if name != secret and is_secret(secret):
                found[secret] = _secret(name, value)
            else:
                found[name] = _plain(value)
        return found

    @model_validator(mode="after")
    def _refuse_fixed(self) -> Self:
        for name in self.properties():
            if name in FIXED_PROPERTIES:
                raise ValueError(f"{name} is fixed by the service's promises: remove it")
            if name in CLASSIC_PROPERTIES and self.group_protocol == "consumer":
                raise ValueError(f"{name} is the broker's to set with group_protocol consumer: remove one of the two")
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """As pydantic shows it, without the secrets: settings may end in a log or a traceback."""
        for name, value in super().__repr_args__():
            yield name, STARS if is_secret((name or "").replace("_", ".")) else value


class TopicSettings(Part):
    """Names of the topics."""

    input: Topic = Field("products.registered", description="listings as they are registered")
    output: Topic = Field("products.categorized", description="results and tombstones; compacted")
    review: Topic = Field("products.review", description="copies of results that a person should see")
    dead_letter: Topic = Field("products.dead-letter", description="records that cannot be categorized")
    retry_prefix: Topic = Field(
        "products.retry", description="first part of the delay topics' names, before a dot and the delay"
    )

    @model_validator(mode="after")
    def _differ(self) -> Self:
        names = [self.input, self.output, self.review, self.dead_letter]
        if len(set(names)) != len(names):
            raise ValueError("input, output, review and dead_letter must be four different topics")
        return self


class ViewSettings(Part):
    """The Redis or Valkey view of the output topic."""

    enabled: bool = Field(True, description="write the view from this process")
    url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="redis://, rediss:// or unix://")
    username: str | None = Field(None, min_length=1, description="ACL user, if the URL names none")
    password: SecretStr | None = Field(None, description="a secret; wins over one in the URL")
    ca_file: Path | None = Field(None, description="CA certificates (PEM) of a rediss:// server; none: the system's")
    prefix: str = Field("mmcat", pattern=r"^[^{}\s]{1,64}$", description="first part of every key")
    marker_life_s: int = Field(
        777_600, ge=60, le=31_536_000, description="how long a deletion is remembered; at least the input's retention"
    )


class ReuseSettings(Part):
    """Answers that the view holds, given again to events that change nothing."""

    max_age_s: float = Field(
        0.0, ge=0, le=31_536_000, description="how old an answer may be to be given again to an equal event; 0: never"
    )
    timeout_s: float = Field(0.2, gt=0, le=60, description="longest wait for the view, before the model is asked")


class FeatureCacheSettings(Part):
    """What the encoders made of photos and titles, kept, so that it need not be made again."""

    store: Literal["none", "disk", "redis"] = Field("none", description="where it is kept")
    folder: Path | None = Field(None, description="disk: folder of the file; processes of one machine may share it")
    max_bytes: int = Field(4 * 2**30, ge=2**20, le=2**44, description="disk: the least recently used beyond it goes")
    url: SecretStr | None = Field(
        None, description="redis: its address; a server with maxmemory and allkeys-lru, not the view's"
    )
    prefix: str = Field("mmcat:features", pattern=r"^[^\s]{1,64}$", description="redis: first part of every key")
    timeout_s: float = Field(0.2, gt=0, le=60, description="longest wait for the store, before the model is asked")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.store == "disk" and self.folder is None:
            raise ValueError("store disk needs a folder: set MMCAT_FEATURE_CACHE__FOLDER")
        if self.store == "redis" and self.url is None:
            raise ValueError("store redis needs an address: set MMCAT_FEATURE_CACHE__URL")
        return self


class ModelSettings(Part):
    """The bundle and what runs it."""

    bundle: Path | None = Field(None, description="folder of the trained model")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    engine: Literal["auto", "eager", "cpu", "compiled"] = Field(
        "auto",
        description="eager (PyTorch), cpu (OpenVINO), auto: the fastest of the two that answers as eager does; "
        "compiled (torch.compile and CUDA graphs, minutes at the start)",
    )
    precision: Literal["auto", "fp32", "bf16", "int8"] = Field(
        "auto",
        description="auto: bf16 on a GPU that has it; on a CPU, with engine auto, the fastest of int8 (if the bundle "
        "was calibrated), bf16 and fp32 that finds the same paths; else fp32",
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of the engine; none: all cores")
    top_k: int = Field(3, ge=1, le=20, description="the answer and its alternatives")
    evidence: bool = Field(False, description="results say what they rest on: the shares of title and photo")


class ReviewSettings(Part):
    """Accepted results that a person checks all the same."""

    audit_share: float = Field(0.005, ge=0, le=1, description="of accepted results also copied to review, by chance")
    audit_salt: SecretStr = Field(SecretStr(""), description="a secret of yours, so that nobody can tell which")


class PhotoSettings(Part):
    """Fetching and decoding photos."""

    deadline_s: Seconds = Field(3.0, description="longest wait for a photo, from the poll")
    fresh_s: int = Field(
        86_400,
        ge=0,
        le=31_536_000,
        description="younger than this, a listing whose photo is not found (404) is retried",
    )
    connect_timeout_s: Seconds = Field(1.0, description="longest wait for a connection")
    silence_timeout_s: Seconds = Field(2.0, description="longest wait for the first byte, and between two pieces")
    max_bytes: int = Field(10 * 2**20, ge=1024, le=2**28, description="a larger photo is refused")
    concurrency: int = Field(512, ge=1, le=65_536, description="connections at once, those to hosts that hang included")
    per_host: int = Field(16, ge=1, le=4096, description="fetches at once from one host")
    allow: tuple[str, ...] = Field((), description="host suffixes or CIDR that may be private addresses")
    deny: tuple[str, ...] = Field((), description="host suffixes or CIDR never fetched")
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = Field((80, 443), description="ports that may be asked")
    headers: tuple[SecretStr, ...] = Field((), description="ORIGIN NAME: VALUE, sent to that origin and to no other")
    proxy: SecretStr | None = Field(None, description="egress proxy, http://[user:password@]host:port")
    decode_threads: int = Field(2, ge=1, le=256, description="threads that decode photos")


class RetrySettings(Part):
    """Late photos: a fetch that may succeed later is tried again after each delay, out of a topic of its own."""

    delays: tuple[Annotated[str, Field(pattern=r"^[1-9]\d{0,4}[smh]$")], ...] = Field(
        ("30s", "5m", "1h"), description="waits before each further attempt, rising (s, m or h); none: one attempt only"
    )
    share: float = Field(0.2, gt=0, le=1, description="of engine and fetches for retries while live events wait")

    @property
    def delays_s(self) -> dict[str, int]:
        """Each delay as it was written, and in seconds."""
        return {text: int(text[:-1]) * UNITS_S[text[-1]] for text in self.delays}

    @model_validator(mode="after")
    def _rise(self) -> Self:
        waits = list(self.delays_s.values())
        if sorted(set(waits)) != waits or len(waits) != len(self.delays):
            raise ValueError("delays must rise from each to the next")
        return self


class BatchSettings(Part):
    """A batch closes by whichever comes first."""

    max_listings: int = Field(32, ge=1, le=4096, description="listings per model call")
    max_bytes: int = Field(64 * 2**20, ge=2**16, le=2**32, description="records and pixels of a batch")
    max_age_ms: int = Field(50, ge=0, le=10_000, description="age of the oldest listing that is ready")


class LimitSettings(Part):
    """What may be held at once; beyond it the partitions are paused."""

    in_flight_bytes: int = Field(128 * 2**20, ge=2**20, le=2**36, description="records and photos held")
    in_flight_listings: int = Field(2000, ge=1, le=1_000_000, description="records held")
    event_bytes: int = Field(2**20, ge=1024, le=2**26, description="a larger event is a dead letter")
    dead_letter_bytes: int = Field(
        2**20 + 2**16, ge=2**17, le=2**27, description="largest record that the dead-letter topic accepts"
    )

    @property
    def large_photo_bytes(self) -> int:
        """Of photos beyond what each listing is counted for: so much at once, read or not yet decoded."""
        return self.in_flight_bytes // 2


class GuardSettings(Part):
    """When a partition that brings mostly dead letters is held back."""

    share: float = Field(0.5, gt=0, le=1, description="of the last outcomes, dead letters: so many are too many")
    window: int = Field(1000, ge=1, le=1_000_000, description="outcomes of a partition that are looked at")
    hold_s: float = Field(60.0, ge=0, le=86_400, description="how long it must be so before the partition is paused")
    probes_per_minute: int = Field(10, ge=1, le=600, description="events tried while it is paused")


class HttpSettings(Part):
    """/healthz, /readyz and /metrics on one port; and what may be told the service there."""

    host: str = Field("127.0.0.1", description="0.0.0.0 where probes come from outside")
    port: int = Field(9464, ge=0, le=65535, description="0 takes a free one")
    token: SecretStr | None = Field(None, description="commands (mmcat resume) need it; none: only from this machine")


class LogSettings(Part):
    """Log lines go to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="titles are never logged at info")
    format: Literal["auto", "json", "text"] = Field("auto", description="auto: json off a terminal")


class Settings(BaseSettings):
    """The whole tree."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter=DELIMITER, env_ignore_empty=True
    )
    kafka: KafkaSettings = KafkaSettings()
    topics: TopicSettings = TopicSettings()
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once", description="exactly_once: outcomes and offsets in transactions; needs kafka.instance_id"
    )
    order_by: Literal["timestamp", "version"] = Field("timestamp", description="what decides which event is newer")
    view: ViewSettings = ViewSettings()
    reuse: ReuseSettings = ReuseSettings()
    feature_cache: FeatureCacheSettings = FeatureCacheSettings()
    model: ModelSettings = ModelSettings()
    review: ReviewSettings = ReviewSettings()
    photo: PhotoSettings = PhotoSettings()
    retry: RetrySettings = RetrySettings()
    batch: BatchSettings = BatchSettings()
    limits: LimitSettings = LimitSettings()
    guard: GuardSettings = GuardSettings()
    watchdog_s: Seconds = Field(60.0, description="a partition that stands still so long before its end is silent")
    shutdown_s: Seconds = Field(20.0, description="longest time to finish what is in flight")
    revoke_s: Seconds = Field(5.0, description="longest time to finish the work of partitions that are taken away")
    commit_interval_s: Seconds = Field(1.0, description="how often offsets are committed; exactly once 1 s at most")
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` hands over: it reads file and environment itself, to say where a value is from."""
        return (init_settings,)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        poll_s = float(self.kafka.properties().get("max.poll.interval.ms", "300000")) / 1000
        longest = self.photo.deadline_s + self.batch.max_age_ms / 1000 + max(self.shutdown_s, self.revoke_s)
        if longest >= poll_s:
            raise ValueError(
                f"photo.deadline_s + batch.max_age_ms + shutdown_s (or revoke_s) is {longest:g} s and must stay below "
                f"kafka max.poll.interval.ms ({poll_s:g} s), or a revoke could not drain in time"
            )
        return self


def is_secret(name: str) -> bool:
    """Whether the value of a librdkafka property is one."""
    return not name.endswith(IN_FILE) and any(secret in name for secret in SECRET_PROPERTIES)


def _secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text("utf-8").removesuffix("\n")
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from None


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
