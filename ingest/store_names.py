"""What a video is fetched from, as the settings name it: whose limit it counts against."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from processors.allowed_hosts import PORTS, AllowedHost, host_of, port_of
from schemas.settings import FetchSettings


class StoreNames:
    """Names of stores by URI; asks nobody, and is no judgement whether a URI may be read."""

    def __init__(self, settings: FetchSettings) -> None:
        self._hosts = [AllowedHost.of(entry) for entry in settings.https_hosts]
        self._roots = [Path(root).expanduser() for root in settings.file_roots]

    def of(self, uri: str) -> str:
        """The bucket, the entry of `fetch.https_hosts`, or the folder of `fetch.file_roots`.

        All that a star takes in is one: who writes references could name hosts without end that
        do not answer. So is all that the settings do not name, which is refused without asking.
        """
        try:
            scheme = urlsplit(uri).scheme
            if scheme == "s3":
                return f"s3://{urlsplit(uri).netloc}"
            if scheme == "file":
                return self._root(unquote(urlsplit(uri).path))
            return self._host(uri) if scheme in PORTS else ""
        except (ValueError, LocationParseError):
            return ""

    def _host(self, uri: str) -> str:
        url = parse_url(uri)
        host, port = host_of(url), port_of(url)
        return next((entry.entry for entry in self._hosts if entry.matches(host, port)), "")

    def _root(self, path: str) -> str:
        # Links are not resolved: a file server that is away would not answer.
        return next((str(root) for root in self._roots if Path(path).is_relative_to(root)), "")
