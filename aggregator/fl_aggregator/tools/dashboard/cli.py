"""The command ``fl-aggregator dashboard``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import click

from fl_shared.cli import options as shared
from fl_shared.cli import signals
from fl_shared.cli.logging import start_logging
from fl_shared.errors import UserError

if TYPE_CHECKING:
    from fl_aggregator.tools.dashboard.address import WebSocketAddress


def _parse_broker(_ctx: click.Context, _param: click.Parameter, value: str) -> WebSocketAddress:
    from fl_aggregator.tools.dashboard.address import WebSocketAddress

    try:
        return WebSocketAddress.parse(value)
    except UserError as error:
        raise click.BadParameter(str(error)) from None


def _parse_listen(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise click.BadParameter(f"{value!r}; expected host:port, for example 127.0.0.1:8080 or [::1]:8080")
    return host, int(port)


@shared.command()
@click.option(
    "--broker",
    metavar="URL",
    default="ws://localhost:9001/mqtt",
    callback=_parse_broker,
    help="Broker address for browsers: ws://[user@]host:port/mqtt or wss://….",
)
@shared.prefix_option()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="127.0.0.1:8080",
    callback=_parse_listen,
    help="Address to serve the page on; port 0 chooses a free port.",
)
@click.option(
    "--join",
    is_flag=True,
    help="Let visitors take part in runs on handwritten digits with their own device.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser on this machine.")
@click.option(
    "--mosquitto",
    "mosquitto_port",
    metavar="PORT",
    type=click.IntRange(1, 65_535),
    default=None,
    help="Serve nothing; print the configuration that lets Mosquitto serve the page on PORT.",
)
@shared.logging_options
@shared.config_option
def dashboard(
    broker: WebSocketAddress,
    prefix: str,
    listen: tuple[str, int],
    join: bool,
    open_browser: bool,
    mosquitto_port: int | None,
    verbose: int,
    log_format: str,
) -> None:
    """Serve a page that shows a run live. The page connects to the broker over MQTT WebSockets."""
    from fl_aggregator.tools.dashboard.server import STATIC, DashboardServer
    from fl_shared.system.mosquitto import Listener

    if join and mosquitto_port is not None:
        raise UserError("--join cannot be combined with --mosquitto: this command must serve the page")
    if mosquitto_port is not None:
        click.echo("\n".join(Listener(mosquitto_port, websockets=True, http_dir=STATIC).config_lines()))
        return
    start_logging(verbose, log_format)
    stopped = threading.Event()
    with DashboardServer(broker, prefix, listen, join=join) as server:
        # The user asked to serve until Ctrl-C, so that this end is not a failure.
        signals.end_on_signals(lambda _signal: stopped.set())
        click.echo(f"dashboard: {server.url} (broker {broker.url}, prefix {prefix}); stop with Ctrl-C")
        if open_browser:
            import webbrowser

            if not webbrowser.open(server.url):
                click.echo("fl-aggregator: could not start a browser; open the address yourself", err=True)
        stopped.wait()
