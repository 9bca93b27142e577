"""The keys at the top of DataJuicer's recipes that mean nothing in a stream, each with the reason.

They are read so that a recipe need not be edited, and named in a warning; the few whose effect
somebody would miss are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_INPUT = "videos come from the Kafka topic"
_OUTPUT = "what comes of a clip is written to the lake's tables"
_WORKERS = "how many work, and on what, is in the settings (pool, flink)"
_FIELDS = "a clip's columns have fixed names"
_RESUMED = "where the work is, is kept in the lake; nothing is cached between operators"
_OBSERVED = "every clip's row says what became of it; see `cliplake status`"
_TUNED = "a clip is decoded once for all operators, and each takes its batches by itself"
_ANALYSIS = "the analysis is a query over enriched_clips"

WITHOUT_EFFECT: dict[str, str] = {
    **dict.fromkeys(
        (
            "dataset", "dataset_path", "generated_dataset_config", "load_dataset_kwargs",
            "load_jsonl_lenient", "read_options", "suffixes", "validators",
        ),
        _INPUT,
    ),
    **dict.fromkeys(
        (
            "export_extra_args", "export_in_parallel", "export_path", "export_shard_size",
            "export_type", "keep_hashes_in_res_ds", "keep_stats_in_res_ds",
        ),
        _OUTPUT,
    ),
    **dict.fromkeys(
        (
            "auto_op_parallelism", "executor_type", "np", "override_num_blocks", "partition",
            "partition_dir", "partition_size", "ray_address", "use_dag",
        ),
        _WORKERS,
    ),
    **dict.fromkeys(
        (
            "audio_key", "audio_special_token", "eoc_special_token", "image_bytes_key",
            "image_key", "image_special_token", "text_keys", "video_key", "video_special_token",
        ),
        _FIELDS,
    ),
    **dict.fromkeys(
        (
            "cache_compress", "checkpoint", "checkpoint_dir", "ds_cache_dir", "job_id", "resume",
            "temp_dir", "use_cache", "use_checkpoint", "work_dir",
        ),
        _RESUMED,
    ),
    **dict.fromkeys(
        (
            "debug", "event_log_dir", "event_logging", "op_list_to_trace", "open_monitor",
            "open_tracer", "trace_keys", "trace_num",
        ),
        _OBSERVED,
    ),
    **dict.fromkeys(
        (
            "adaptive_batch_size", "conflict_resolve_strategy",
            "elastic_juicer_adaptive_batching", "elastic_juicer_profile_seed", "fusion_strategy",
            "mapper_fusion", "mapper_fusion_vram_limit", "min_common_dep_num_to_combine",
            "op_fusion", "strict_preflight", "turbo",
        ),
        _TUNED,
    ),
    **dict.fromkeys(
        (
            "auto", "auto_num", "data_probe_algo", "data_probe_ratio", "export_original_dataset",
            "hpo_config", "op_list_to_mine", "open_insight_mining", "percentiles",
            "save_stats_in_one_file",
        ),
        _ANALYSIS,
    ),
}  # fmt: skip

_SAID_NOTHING: dict[str, Any] = {
    "video_key": "videos",
    "image_key": "images",
    "audio_key": "audios",
    "text_keys": "text",
}
"""Values that say what is so anyway: not worth a warning."""

REFUSED: dict[str, str] = {
    "skip_op_error": (
        "would drop clips without a word; leave it out: a clip that fails becomes a dead letter "
        "of its own here"
    ),
    "decrypt_after_reading": "no video is decrypted here; have the store or a proxy do it",
    "encrypt_before_export": (
        "nothing would be encrypted; set the encryption of the lake's store instead"
    ),
    "encryption_key_path": "nothing is encrypted or decrypted here",
    "export_aws_credentials": (
        "credentials do not belong into a recipe; the lake's store is in the settings (catalog)"
    ),
    "custom_operator_paths": ("name a class of yours in process instead, like my_stage.py:MyStage"),
    "config": "one file is one recipe",
}
"""Keys that may only be empty or false."""


def refusal(document: Mapping[Any, Any]) -> str | None:
    """Why a recipe with these keys is refused; None if it isn't."""
    for key, reason in REFUSED.items():
        value = document.get(key)
        if value not in (None, False, "", [], {}):
            shown = f"{key}: true" if value is True else key
            return f"{shown} {reason}" if key == "skip_op_error" else f"{shown}: {reason}"
    return None


def warnings(document: Mapping[Any, Any]) -> list[str]:
    """A sentence for each key that is there and has no effect."""
    return [
        f"{key} has no effect: {reason}"
        for key, reason in WITHOUT_EFFECT.items()
        if key in document and document[key] != _SAID_NOTHING.get(key, _NEVER)
    ]


_NEVER = object()
