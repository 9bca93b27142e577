"""Which environment variables an operator of DataJuicer sees: those that are named here.

Its operators read keys of model servers, stores and mail from the environment, and a recipe names
the server that they ask. So they see none of the workers' secrets but one that is meant for them.
Runs in both environments, and needs nothing but Python.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from schemas.datajuicer import SERVER_KEY

_ITS_NAME_THERE = "OPENAI_API_KEY"

_NAMES = frozenset(
    {
        *("HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TEMP", "TMP", "TMPDIR", "TZ"),
        *("USER", "LD_LIBRARY_PATH", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"),
        "SSL_CERT_FILE",
        # Only a proxy gets what stands there.
        *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
        # Where models and data are looked for.
        *("CACHE_HOME", "DATA_JUICER_ASSETS_CACHE", "DATA_JUICER_CACHE_HOME"),
        *("DATA_JUICER_EXTERNAL_MODELS_HOME", "DATA_JUICER_MODELS_CACHE", "MODELSCOPE_CACHE"),
        *("NLTK_DATA", "USE_HUB_KERNELS"),
    }
)
_PREFIXES = (
    *("CUDA_", "HF_", "KMP_", "LC_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PYTHON"),
    *("PYTORCH_", "RAY_", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_", "XDG_"),
)
"""``HF_TOKEN`` is among them: the hub's client sends it to the hub and to nobody else."""


def allowed(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that operators may see, with their server's key by the name they look for."""
    seen = {
        name: value
        for name, value in environment.items()
        if name.upper() in _NAMES or name.startswith(_PREFIXES) or name == SERVER_KEY
    }
    if key := seen.get(SERVER_KEY):
        seen[_ITS_NAME_THERE] = key
    return seen


def restrict_environment() -> None:
    """From here on this process, and what it starts, sees no other variables."""
    seen = allowed(os.environ)
    for name in set(os.environ) - set(seen):
        del os.environ[name]
    os.environ.update(seen)
