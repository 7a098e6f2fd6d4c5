"""`mmcat cache-writer`: the view writer alone; `consumer.cache_writer` does it."""

import typer

from mmcat.cli.options import Bootstrap, Config, View, load_settings
from mmcat.cli.texts import new_app

app = new_app()


@app.command()
def cache_writer(config: Config = None, bootstrap: Bootstrap = None, view: View = None) -> None:
    """Keep Redis in step with the output topic, and do nothing else, until SIGTERM.

    For services that run with MMCAT_VIEW__ENABLED=false. Several may run: each record is ranked before it is written.
    Health and metrics are at http.port, as the service has them.

    \b
    Example:
      mmcat cache-writer --view redis://127.0.0.1:6379/0
    """
    settings = load_settings(config, {"kafka.bootstrap_servers": bootstrap, "view.url": view})
    from consumer.cache_writer import run_view_writer

    raise typer.Exit(run_view_writer(settings))
