"""Commands to a running service over its health port: from its own machine, or with the token of http.token."""

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from mmcat.cli.texts import CommandError

if TYPE_CHECKING:
    from consumer.settings import HttpSettings

ANSWER_S = 10.0


def command(url: str, http: "HttpSettings", name: str, asked: dict[str, object], told: str) -> Any:
    """What a service answers to a command; blocks for `ANSWER_S` at most.

    Args:
        url: of the service, http://HOST:PORT.
        name: for example "resume".
        told: where in the answer it stands.

    Raises:
        CommandError: nobody answers there, or refuses.
    """
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"{url} is not an address of a service: http://HOST:PORT")
    headers = {"Content-Type": "application/json"}
    if http.token is not None:
        headers["Authorization"] = f"Bearer {http.token.get_secret_value()}"
    request = urllib.request.Request(f"{url.rstrip('/')}/{name}", json.dumps(asked).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 (http or https, checked above)
            return json.loads(answer.read())[told]
    except urllib.error.HTTPError as error:
        with error:
            why = error.read(1_000).decode("utf-8", "replace").strip()
        raise CommandError(f"the service at {url} refuses ({error.code}): {why}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"no service answers at {url}: {getattr(error, 'reason', error)}") from None
