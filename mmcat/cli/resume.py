"""`mmcat resume`: tells a running service to let partitions go on that its guard holds back."""

from typing import Annotated

import typer

from mmcat.cli.options import Config, load_settings
from mmcat.cli.service_port import command
from mmcat.cli.texts import new_app, print_json

app = new_app()


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
    asked: dict[str, object] = {"partitions": partitions or None}
    resumed: list[int] = command(url or f"http://127.0.0.1:{http.port}", http, "resume", asked, "resumed")
    if as_json:
        print_json({"resumed": resumed})
    else:
        print(f"partitions {', '.join(map(str, resumed))} go on" if resumed else "none was held back")
