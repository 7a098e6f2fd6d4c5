"""`mmcat resume`: tells a running service to let partitions go on that its guard holds back."""

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Annotated

import typer

from mmcat.cli.options import Config, load_settings
from mmcat.cli.texts import CommandError, new_app, print_json

if TYPE_CHECKING:
    from consumer.settings import HttpSettings

app = new_app()
ANSWER_S = 10.0


@app.command()
def resume(
    partitions: Annotated[list[int] | None, typer.Argument(min=0, help="Which; default: all of this service.")] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Default: this machine, http.port.")] = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Let partitions go on that the guard paused because they brought mostly dead letters. Each is judged anew.

    The service takes this from its own machine (in a container: `docker exec … mmcat resume`), or with the token of
    http.token from anywhere. /readyz says which partitions are held back; each service holds back its own.

    \b
    Examples:
      mmcat resume
      mmcat resume 3 --url http://10.0.0.7:9464
    """
    http = load_settings(config).http
    resumed = _post(url or f"http://127.0.0.1:{http.port}", http, {"partitions": partitions or None})
    if as_json:
        print_json({"resumed": resumed})
    else:
        print(f"partitions {', '.join(map(str, resumed))} go on" if resumed else "none was held back")


def _post(url: str, http: "HttpSettings", asked: dict[str, object]) -> list[int]:
    if not url.startswith(("http://", "https://")):
        raise CommandError(f"{url} is not an address of a service: http://HOST:PORT")
    headers = {"Content-Type": "application/json"}
    if http.token is not None:
        headers["Authorization"] = f"Bearer {http.token.get_secret_value()}"
    request = urllib.request.Request(f"{url.rstrip('/')}/resume", json.dumps(asked).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:  # noqa: S310 (http or https, checked above)
            resumed: list[int] = json.loads(answer.read())["resumed"]
            return resumed
    except urllib.error.HTTPError as error:
        with error:
            why = error.read(1_000).decode("utf-8", "replace").strip()
        raise CommandError(f"the service at {url} refuses ({error.code}): {why}") from None
    except (OSError, ValueError, KeyError) as error:
        raise CommandError(f"no service answers at {url}: {getattr(error, 'reason', error)}") from None
