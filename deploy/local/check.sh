#!/bin/bash
# Says what this machine lacks before anything is downloaded. Usage: check.sh PYTHON
set -u
python=${1:-}
missing=0

lacks() {
    echo "cliplake needs $1" >&2
    missing=1
}

found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
if [ "$found" != 3.11 ]; then
    lacks "Python 3.11 (found: ${found:-none}). Name one with: make PYTHON=/path/to/python3.11 ..."
elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    lacks "Python's venv and ensurepip modules (Debian, Ubuntu: the package python3.11-venv)"
fi

java=${JAVA_HOME:+$JAVA_HOME/bin/}java
found=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
if [ "${found:-0}" -lt 17 ]; then
    lacks "Java 17 or newer (found: ${found:-none} as $java). Set JAVA_HOME or PATH to one"
fi

command -v mvn >/dev/null || lacks "Maven (mvn on the PATH), to bring the Kafka and Flink jars"
exit $missing
