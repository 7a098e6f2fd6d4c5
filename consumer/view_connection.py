"""One connection to Redis or Valkey: who we are, whom we believe, how long we wait. Before view.py, which says things.

Nothing reconnects by itself and nothing is tried twice: any error closes the connection, so that no command follows one
that was lost. Whoever calls decides when to `open` again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import redis
from pydantic import SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from consumer.errors import ConfigError, ConsumerError, ViewError

CONNECT_S: Final = 2.0
ANSWER_S: Final = 5.0

Command = tuple[str | int | bytes, ...]


class ViewAwayError(ConsumerError):
    """The view does not answer, or refuses what it is asked, at the moment: try again later."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to get in, beside the URL; what is given here wins over what the URL says.

    Args:
        username: of an ACL user; None is the URL's, else the default user.
        password: None is the URL's.
        ca_file: certificates (PEM) that a `rediss://` server's is checked against; None: the system's.
    """

    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None


class Connection:
    """Opened, asked, closed. Not thread-safe: one per thread.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: longest wait for an answer, and for a connection if that is less than `CONNECT_S`.

    Raises:
        ConfigError: the URL or the CA file cannot be read. Neither URL nor password is ever shown.
    """

    def __init__(self, url: str, access: Access, timeout_s: float) -> None:
        password = access.password.get_secret_value() if access.password else None
        given: dict[str, Any] = {"username": access.username, "password": password}
        given = {name: value for name, value in given.items() if value is not None}
        if (secure := urlsplit(url).scheme == "rediss") and "ssl_check_hostname" not in parse_qs(urlsplit(url).query):
            given["ssl_check_hostname"] = True  # older versions of the client do not look at the name by themselves
        if access.ca_file is not None:
            if not secure:
                raise ConfigError("view.ca_file is set, but view.url is not rediss://: nothing would be encrypted")
            if not access.ca_file.is_file():
                raise ConfigError(f"view.ca_file {access.ca_file} is not a file: name the CA's certificate, as PEM")
            given["ssl_ca_certs"] = str(access.ca_file)
        # What the URL says would win over arguments in `from_url`: so the URL is read alone, and ours put above it.
        try:
            pool = redis.ConnectionPool.from_url(
                url,
                protocol=2,
                socket_connect_timeout=min(CONNECT_S, timeout_s),
                socket_timeout=timeout_s,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),  # one try: whoever calls decides how long to wait
            )
        except (ValueError, TypeError):
            raise ConfigError("view.url is not an address of Redis: expected redis://HOST:PORT/DATABASE") from None
        pool.connection_kwargs.update(given)
        # One for good: the pool counts what it made, not what is open. Its class differs between TCP, TLS and files.
        self._connection: Any = pool.make_connection()
        self._open = False

    def open(self, greeting: Sequence[Command]) -> list[Any]:
        """Connect anew, and ask the first things.

        Raises:
            ViewAwayError: it does not answer.
            ViewError: it answers, and refuses to let us in.
        """
        self.close()
        self._open = True
        try:
            return self.ask(greeting)
        except ViewAwayError as error:
            if isinstance(error.__cause__, redis.AuthenticationError | redis.exceptions.NoPermissionError):
                raise ViewError(
                    f"the view refuses our user or password, or what it may do: {error.__cause__}"
                ) from None
            raise

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, then read all answers. Any error closes the connection, so that nothing follows a gap.

        Raises:
            ViewAwayError: some may have been carried out.
        """
        if not self._open:
            raise ViewAwayError("the view is not connected")
        try:
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            return [self._connection.read_response() for _ in commands]
        except (redis.RedisError, OSError) as error:
            self.close()
            raise ViewAwayError(f"the view does not answer as it should: {error}") from error

    def close(self) -> None:
        """Close it; `open` opens another."""
        self._open = False
        self._connection.disconnect()
