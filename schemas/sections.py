"""The sections of the settings: one model each, with every key, its default and its unit.

How a file and the environment become these is in `schemas.settings`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Seconds = Annotated[float, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]

_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """The topic, and the client by the Java client's own dotted names (``security.protocol`` …)."""

    topic: str = "video-uploads"
    """Topic of the references."""
    partitions: Annotated[int, Field(ge=1)] | None = None
    """Partitions of a topic that has to be made. By default as many as the broker gives one by
    itself (its ``num.partitions``)."""
    replication_factor: Annotated[int, Field(ge=1)] | None = None
    """Replicas of each of them. By default as many as the broker gives one by itself (its
    ``default.replication.factor``)."""
    group_id: str = "cliplake-arrivals"
    """Consumer group under which the arrivals job commits its offsets, for those who watch lag."""
    dead_letter_topic: str = ""
    """Topic to which every dead letter goes besides, with Kafka Connect's headers; made if it is
    missing. Empty: none."""
    client: dict[str, str] = {"bootstrap.servers": "127.0.0.1:9092"}
    """Options of every Kafka client here, by the Java client's names, TLS and SASL included.
    Certificates are PEM files (``ssl.truststore.type: PEM``, ``ssl.truststore.location``; a
    client's own with its key in one file as ``ssl.keystore.location``). ``sasl.jaas.config`` may
    name PLAIN's and SCRAM's login modules, by their usual names; give it by a variable."""

    @property
    def bootstrap_servers(self) -> str:
        return self.client["bootstrap.servers"]

    @field_validator("topic", "dead_letter_topic")
    @classmethod
    def _is_a_topic(cls, value: str, info: ValidationInfo) -> str:
        if not (_TOPIC.fullmatch(value) or (not value and info.field_name == "dead_letter_topic")):
            raise ValueError("a topic's name has 1 to 249 of the characters A-Z a-z 0-9 . _ -")
        return value

    @model_validator(mode="after")
    def _letters_go_elsewhere(self) -> KafkaSettings:
        if self.dead_letter_topic == self.topic:
            raise ValueError(
                f"dead_letter_topic is {self.topic}, as topic is: every dead letter would be read "
                "as a message, and be one more"
            )
        return self

    @field_validator("client")
    @classmethod
    def _has_servers(cls, value: dict[str, str]) -> dict[str, str]:
        if not value.get("bootstrap.servers"):
            raise ValueError("bootstrap.servers is missing: host:port of a broker")
        return value


class CatalogSettings(_Section):
    """The lake: Paimon catalog options by their own names, passed through."""

    database: str = "cliplake"
    """Database of the catalog that holds the tables."""
    options: dict[str, str] = {}
    """``warehouse``, ``metastore``, ``uri``, ``s3.endpoint`` …; by default one on this disk."""
    single_writer: bool = False
    """Accept a catalog whose commits another process can undo, such as S3 without a REST catalog:
    then nothing else may write to the tables, and one driver runs over all machines."""


class FlinkSettings(_Section):
    """The Flink cluster and the two jobs."""

    rest_address: str = "127.0.0.1"
    """Host of the JobManager's REST interface."""
    rest_port: Port = 8081
    """Its port."""
    parallelism: Annotated[int, Field(ge=1)] = 2
    """Tasks of one operator of the split that run side by side."""
    arrivals_parallelism: Annotated[int, Field(ge=1)] = 1
    """Tasks that read the topic, validate and write side by side; of use up to its partitions."""
    task_managers: Annotated[int, Field(ge=1)] = 1
    """TaskManagers that ``up`` starts; the tasks are spread evenly over them."""
    task_slots: Annotated[int, Field(ge=1)] = 6
    """Slots of one of them; both jobs share the slots of all."""
    checkpoint_interval_s: Seconds = 3.0
    """Rows appear in the lake with a checkpoint: about how late they are at most."""
    checkpoint_dir: str = ""
    """URI of a folder all Flink processes reach; by default under ``local.state_dir``."""
    repeat_memory_days: Annotated[float, Field(gt=0)] = 30.0
    """A reference is a repeat if its video was last named within this time."""
    python: str = ""
    """Interpreter of the ``flink`` environment, here and on the TaskManagers."""
    jars: str = ""
    """Folder with the connector jars."""
    options: dict[str, str] = {}
    """Further Flink options by their own names."""


class FetchSettings(_Section):
    """What may be read, from where, and how much; everything else is refused."""

    file_roots: tuple[str, ...] = ()
    """Folders under which ``file:`` URIs may point, after symbolic links are resolved; relative
    ones are from the working folder."""
    https_hosts: tuple[str, ...] = ()
    """Hosts of ``https:`` URIs; ``*.example.org`` takes in its subdomains, ``:8443`` at the end one
    port only. Name those that you depend on without a star: an outage is waited for only there."""
    allow_http: bool = False
    """Whether ``http:`` is let through for the same hosts."""
    allow_private_addresses: bool = False
    """Whether those hosts may resolve to private, loopback or link-local addresses."""
    s3_buckets: tuple[str, ...] = ()
    """Buckets of `s3:` URIs that may be read."""
    s3_endpoint: str = ""
    """Endpoint of an S3-compatible store; empty for AWS's."""
    max_bytes: Annotated[int, Field(gt=0)] = 20 * 2**30
    """Size of the largest object that is fetched."""
    connect_timeout_s: Seconds = 10.0
    """Time for one connection."""
    read_timeout_s: Seconds = 30.0
    """Time without a byte before an attempt is given up."""
    deadline_s: Seconds = 600.0
    """Total time for one object, all attempts together."""
    attempts: Annotated[int, Field(ge=1)] = 3
    """Attempts at one object, with growing pauses."""
    at_once: Annotated[int, Field(ge=1)] = 4
    """Videos of one store (bucket, host or folder) that the split fetches and probes at a time; of
    all stores together four times as many."""
    outage_s: Seconds = 3600.0
    """A store that is out for longer costs its videos and clips, until it answers again."""
    cache_bytes: Annotated[int, Field(ge=0)] = 20 * 2**30
    """Most bytes of fetched objects that a machine keeps for an hour for further clips of theirs;
    never more than half of the room on the scratch folder's disk. 0: none."""
    scratch_dir: str = ""
    """Folder for fetched bytes; by default under ``local.state_dir``. On a node of a Ray cluster
    that has this as a variable, that one holds there."""


class DecodeSettings(_Section):
    """Limits of the child processes in which libav runs."""

    segment_s: Seconds = 20.0
    """Length of video that one element of the split decodes. A checkpoint waits for two of them."""
    memory_bytes: Annotated[int, Field(ge=64 * 2**20)] = 2 * 2**30
    """Address space of a child beyond what its libraries take."""
    max_pixels: Annotated[int, Field(gt=0)] = 8192 * 8192
    """Pixels of the largest frame that is decoded."""
    clip_files_bytes: Annotated[int, Field(gt=0)] = 4 * 2**30
    """Most bytes of the files that are written of one clip, for stages that open files; a
    micro-batch never holds twice as much at a time."""
    deadline_base_s: Seconds = 20.0
    """See deadline_per_video_second_s."""
    deadline_per_video_second_s: Seconds = 2.0
    """A task may take base + this x seconds of video before its process is killed."""


class PoolSettings(_Section):
    """The Ray pool and the driver that feeds it."""

    ray_address: str = ""
    """``host:port`` of a Ray cluster; empty: the one that ``up`` starts."""
    min_actors: Annotated[int, Field(ge=1)] = 1
    """Ray actors that there always are, each with its own models and decoders."""
    max_actors: Annotated[int, Field(ge=1)] | None = None
    """Most actors while clips wait for one; null: as many as min_actors."""
    grow_after_s: Seconds = 5.0
    """Actors are doubled once clips have waited so long for a free one."""
    shrink_after_s: Seconds = 120.0
    """One actor is given up once the others would have sufficed for so long."""
    cpus_per_actor: Annotated[float, Field(ge=0)] = 1.0
    """CPUs that Ray reserves for one."""
    gpus_per_actor: Annotated[float, Field(ge=0)] | None = None
    """GPUs that Ray reserves for one; null: one where the recipe's models and the cluster have
    use for it, else none."""
    decoders_per_actor: Annotated[int, Field(ge=1)] = 1
    """Decoding processes of one actor; more feed a GPU that waits for frames."""
    micro_batch_clips: Annotated[int, Field(ge=1)] = 32
    """Most clips in one call of an actor."""
    calls_in_flight: Annotated[int, Field(ge=1)] = 2
    """Micro-batches handed out and not yet finished, an actor. They run side by side in it, and
    the models' batches are filled from all of them."""
    plan_rows: Annotated[int, Field(ge=1)] = 20_000
    """Most clips read ahead of what is dispatched."""
    poll_interval_s: Seconds = 0.3
    """Pause between looks for a new snapshot."""
    commit_interval_s: Seconds = 1.0
    """Finished rows are committed this often."""
    attempts: Annotated[int, Field(ge=1)] = 2
    """Times a clip is tried before it is failed."""
    stages_deadline_s: Seconds = 120.0
    """Time for one clip's stages after decoding, beside limits of their own like `timeout_s` of a
    captioner; an actor that takes longer is taken for stuck."""
    actor_start_timeout_s: Seconds = 600.0
    """Time for an actor to load its models, and to fetch them the first time."""
    drain_timeout_s: Seconds = 30.0
    """Time that what is in flight gets when the driver is told to stop."""
    datajuicer_python: str = ""
    """Interpreter of DataJuicer's environment on the workers (``make setup-datajuicer``). On a
    node of a Ray cluster that has this as a variable, that one holds there."""
    operator_timeout_s: Seconds = 120.0
    """Time that an operator of DataJuicer may take for one clip before its process is ended."""

    @field_validator("cpus_per_actor", "gpus_per_actor")
    @classmethod
    def _can_be_reserved(cls, value: float | None) -> float | None:
        # Ray's rule, which it tells only when an actor is made.
        if value is not None and value > 1 and value != int(value):
            raise ValueError("above 1, Ray reserves whole ones alone")
        return value

    @property
    def actor_limit(self) -> int:
        """The most actors that there may be."""
        return self.max_actors or self.min_actors

    @model_validator(mode="after")
    def _has_room(self) -> PoolSettings:
        if self.actor_limit < self.min_actors:
            raise ValueError(
                f"max_actors is {self.max_actors}, and min_actors is {self.min_actors}: "
                "the most cannot be fewer than the least"
            )
        return self


class MaintenanceSettings(_Section):
    """Compaction and clean-up of the tables that the pool's driver writes; Flink's jobs do theirs.

    Flink's environment on the driver's machine does it (``flink.python``).
    """

    every_commits: Annotated[int, Field(ge=0)] = 300
    """The driver maintains its tables after so many commits; 0: only on `cliplake maintain`."""
    keep_snapshots_h: Annotated[float, Field(gt=0)] = 1.0
    """Hours that a snapshot stays readable after a newer one."""
    keep_orphans_h: Annotated[float, Field(ge=1)] = 24.0
    """Hours after which a file that no snapshot names is taken for left over."""
    timeout_s: Seconds = 600.0
    """Time for one maintenance; commits wait meanwhile, and go on when it is over."""


class MetricsSettings(_Section):
    """The Prometheus pages of the pool's driver and of what publishes dead letters."""

    host: str = "127.0.0.1"
    """Address that the pages listen on."""
    port: Port = 0
    """Port of the driver's page; 0 switches it off."""
    letters_port: Port = 0
    """Port of the page of what publishes dead letters; 0 switches it off."""


class ModelSettings(_Section):
    """Where model files are; Hugging Face's own variables are honoured beside it."""

    dir: str = ""
    """Folder of model files; by default ``.cache/models`` of the checkout (``make setup``). On a
    node of a Ray cluster that has this as a variable, that one holds there."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where models of a hub compute; ``auto``: on a GPU where the process sees one."""
    frames_per_batch: Annotated[int, Field(ge=1)] = 64
    """Most frames in one pass of a vision model; halved by itself if they do not fit."""
    clips_per_batch: Annotated[int, Field(ge=1)] = 32
    """Most clips that are captioned in one pass; halved by itself if they do not fit."""
    batch_wait_s: Annotated[float, Field(ge=0)] = 0.5
    """How long a batch that is not full waits for clips of other micro-batches."""


class LocalSettings(_Section):
    """What ``cliplake up`` starts on this machine, and where it keeps it."""

    state_dir: str = ".cliplake"
    """Folder of everything that is kept here: lake, topic, checkpoints, logs."""
    start_kafka: bool = True
    """Whether to start a broker, or use kafka.client."""
    start_flink: bool = True
    """Whether to start a Flink cluster, or use flink.rest_address."""
    start_ray: bool = True
    """Whether to start Ray, or use pool.ray_address."""
    start_pool: bool = True
    """Whether to run the pool's driver."""
    kafka_port: Port = 9092
    """Port of the broker."""
    kafka_controller_port: Port = 9093
    """Port of its KRaft controller."""
    ray_port: Port = 6399
    """Port of the Ray head."""
    ray_dashboard: bool = False
    """Whether Ray's dashboard is started."""
    flink_jobmanager_rpc_port: Port = 6123
    """Port between JobManager and TaskManager."""
    max_restarts: Annotated[int, Field(ge=0)] = 5
    """Restarts of one process within ten minutes before ``up`` gives up on it."""
    max_restart_delay_s: Seconds = 30.0
    """Pauses before restarts grow from half a second to this."""
