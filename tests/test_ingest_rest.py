"""What Flink says about a failure is brought down to the line that a person needs."""

from __future__ import annotations

import socket

import pytest

from ingest.client import jobs
from ingest.rest import innermost
from schemas.problems import ConfigError
from schemas.settings import load_settings


def test_the_innermost_cause_is_told() -> None:
    trace = (
        "org.apache.flink.util.FlinkException: task failed\n"
        "\tat org.apache.flink.A.b(A.java:1)\n"
        "Caused by: java.io.IOException: store gone\n"
        "\tat org.apache.flink.A.b(A.java:1)\n"
        "\t... 7 more\n"
        "Caused by: java.net.ConnectException: Connection refused\n"
        "\tat java.base/C.d(C.java:1)\n"
        "\t... 9 more\n"
    )
    assert innermost(trace) == "java.net.ConnectException: Connection refused"


def test_of_a_python_failure_its_last_line_is_told() -> None:
    trace = (
        "java.lang.RuntimeException: bundle failed\n"
        "\tat org.apache.flink.A.b(A.java:1)\n"
        "Caused by: java.lang.RuntimeException: Error received from SDK harness: "
        "Traceback (most recent call last):\n"
        '  File "/worker.py", line 3, in flat_map\n'
        "    raise DependencyFault('disk is full')\n"
        "processors.errors.DependencyFault: disk is full\n"
        "\n"
        "\tat org.apache.beam.B.c(B.java:1)\n"
    )
    assert innermost(trace) == "processors.errors.DependencyFault: disk is full"


def test_nothing_is_told_of_no_failure() -> None:
    assert innermost("") is None


def test_a_cluster_that_does_not_answer_is_one_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        settings = load_settings(None, flink={"rest_port": port})
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} does not answer"):
            jobs(settings)
