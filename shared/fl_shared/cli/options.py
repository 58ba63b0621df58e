"""The options that both programs have in common. Imports only click and the standard library.

Every option may also be given as ``FL_<NAME>`` or in the file of ``--config``; the command line takes
precedence over the environment, and that over the file. `main` prints the errors that users can correct in
one line.
"""

from __future__ import annotations

import difflib
import functools
import math
import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from fl_shared.cli.completion import kit_files
from fl_shared.cli.headings import BROKER, EMPTY, OUTPUT, SECURITY, GroupedCommand, option_under
from fl_shared.cli.logging import LOG_FORMATS
from fl_shared.errors import UserError
from fl_shared.protocol.home_assistant import DISCOVERY_PREFIX
from fl_shared.protocol.topics import valid_client, valid_prefix

if TYPE_CHECKING:
    from fl_shared.cli.broker_access import BrokerOptions
    from fl_shared.mqtt.address import BrokerAddress

Command = Callable[..., Any]
Callback = Callable[[click.Context, click.Parameter, Any], Any]

CONTEXT: Final[dict[str, Any]] = {
    "auto_envvar_prefix": "FL",
    "help_option_names": ["-h", "--help"],
    "show_default": True,
    "max_content_width": 110,
}
"""The ``context_settings`` of every command; because of them, ``--per-round`` is also ``FL_PER_ROUND``."""
EPILOG: Final = (
    "Every option can also be set in the environment (FL_KEEPALIVE for --keepalive) or in the TOML file of "
    "--config (keepalive = 10). The broker's password comes from FL_PASSWORD or --password-file."
)


# --- the parts of a command line --------------------------------------------------------------------------


def command(**attributes: Any) -> Callable[[Command], GroupedCommand]:
    """A decorator like `click.command`, with the settings of all our commands."""
    return click.command(cls=GroupedCommand, context_settings=CONTEXT, **{"epilog": EPILOG, **attributes})


class FiniteRange(click.FloatRange):
    """A finite number between two bounds: click lets nan through."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the number, or fails as click's types do."""
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{number} is not a finite number.", param, ctx)


def parsed(parse: Callable[[Any], Any]) -> Callback:
    """Returns a callback of click that reads a value, if there is one. ``parse`` raises ``ValueError``."""

    def callback(_ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


KEY_VALUE: Final = "KEY=VALUE"
"""The metavar of options that `key_values` parses. In a file of ``--config`` they may be a table."""


def key_values(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """Parses an option that may be given several times, each time with ``KEY=VALUE`` (a callback of click)."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise click.BadParameter(f"{text!r}: expected {KEY_VALUE}")
        if key in pairs:
            raise click.BadParameter(f"{text!r}: {key} is given twice, expected each key once")
        pairs[key] = value
    return pairs


def broker_address(_ctx: click.Context, _param: click.Parameter, value: str | None) -> BrokerAddress | None:
    """Parses the value of an option that holds a broker's URL (a callback of click)."""
    from fl_shared.mqtt.address import BrokerAddress

    if value is None:
        return None
    try:
        return BrokerAddress.parse(value)
    except UserError as error:
        raise click.BadParameter(str(error)) from None


def topic_prefix(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Checks the value of ``--prefix`` (a callback of click)."""
    if value is not None and not valid_prefix(value):
        raise click.BadParameter(
            f"{value!r}; expected one to five levels without '+', '#', '$', spaces or empty levels, "
            "for example fl or plant7/fl"
        )
    return value


def prefix_option(default: str | None = "fl") -> Callable[[Command], Command]:
    """Adds ``--prefix``, passed as ``prefix``. ``default`` is None if another option may set it."""
    return option_under(
        BROKER,
        "--prefix",
        metavar="TOPIC",
        default=default,
        show_default="fl",
        callback=topic_prefix,
        help="Prefix of all topics.",
    )


def home_assistant_option(text: str) -> Callable[[Command], Command]:
    """Adds ``--home-assistant [PREFIX]``, passed as ``home_assistant``: null if it is not given."""
    return option_under(
        OUTPUT,
        "--home-assistant",
        metavar="[PREFIX]",
        is_flag=False,
        flag_value=DISCOVERY_PREFIX,
        default=None,
        callback=topic_prefix,
        help=f"{text} Without PREFIX: {DISCOVERY_PREFIX}.",
    )


def broker_options(command: Command) -> Command:
    """Adds the options that say how to reach the broker, passed as ``broker``, a `BrokerOptions`."""
    return _broker_options(command, "mqtt://localhost:1883")


def broker_options_of_simulate(command: Command) -> Command:
    """Adds `broker_options` to a command that starts its own broker if none is given."""
    return _broker_options(command, "its own Mosquitto")


_BROKER_OPTION_NAMES: Final = ("broker", "ca", "cert", "key", "kit", "keys", "prefix", "keepalive")


def _broker_options(command: Command, shown_default: str) -> Command:
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    options: list[Callable[[Command], Command]] = [
        option_under(BROKER, "--broker", metavar="URL", show_default=shown_default, callback=broker_address,
                     help="Broker address: mqtt[s]://[user@]host[:port] or ws[s]://[user@]host[:port][/path]."),
        prefix_option(None),
        option_under(BROKER, "--keepalive", type=click.IntRange(1, 65_535), default=30,
                     help="Keepalive in seconds; a lost connection is noticed within twice this time."),
        option_under(SECURITY, "--kit", type=file, shell_complete=kit_files,
                     help="Kit from fl-aggregator provision: the broker's address and an account."),
        option_under(SECURITY, "--keys", type=file, show_default="next to the kit, with the suffix .keys",
                     help="Private keys for a kit that was requested with request-kit."),
        option_under(SECURITY, "--ca", type=file, show_default="those of this system",
                     help="Authorities to check the broker's certificate with (PEM)."),
        option_under(SECURITY, "--cert", type=file, help="Client certificate, if the broker requires one (PEM)."),
        option_under(SECURITY, "--key", type=file, help="Private key of --cert (PEM, without a password)."),
        option_under(SECURITY, "--password-file", type=file,
                     help="File that contains the broker's password (instead of FL_PASSWORD)."),
    ]  # fmt: skip

    @functools.wraps(command)
    def gathering(*args: Any, password_file: Path | None, **values: Any) -> Any:
        from fl_shared.cli.broker_access import BrokerOptions

        broker_values = {name: values.pop(name) for name in _BROKER_OPTION_NAMES}
        broker = BrokerOptions(
            **broker_values, password=read_password(password_file), password_file=password_file
        )
        return command(*args, broker=broker, **values)

    decorated: Command = gathering
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def revoked_option(command: Command) -> Command:
    """Adds ``--revoked FILE`` to a command of the aggregator that has `broker_options`, passed within ``broker``."""

    @functools.wraps(command)
    def adding(*args: Any, broker: BrokerOptions, revoked: Path | None, **values: Any) -> Any:
        return command(*args, broker=replace(broker, revoked=revoked), **values)

    return option_under(
        SECURITY,
        "--revoked",
        type=click.Path(dir_okay=False, path_type=Path),
        show_default="revoked.json beside the kit",
        help="Signed list of revoked kits from fl-aggregator provision; it may come later.",
    )(adding)


def client_id_option(command: Command) -> Command:
    """Adds ``--mqtt-client-id``, passed as ``mqtt_client_id``.

    None: the broker or the client library chooses an id.
    """
    return option_under(
        BROKER,
        "--mqtt-client-id",
        metavar="TEXT",
        help="MQTT client id, for brokers that tie it to an account.",
    )(command)


def logging_options(command: Command) -> Command:
    """Adds the options for `start_logging`: ``verbose`` (a count) and ``log_format`` (text or json)."""
    options = [
        option_under(OUTPUT, "-v", "--verbose", count=True, show_default=False, help="More output."),
        option_under(OUTPUT, "--log-format", type=click.Choice(LOG_FORMATS), default="text",
                     help="Format of the log on standard error."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def quiet_option(command: Command) -> Command:
    """Adds ``--quiet``, passed as ``quiet`` (bool), for `start_logging`."""
    return option_under(OUTPUT, "-q", "--quiet", is_flag=True, help="Print only errors and the outcome.")(
        command
    )


def config_option(command: Command) -> Command:
    """Adds ``--config FILE``: a flat TOML file whose keys are the command's options."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="TOML file with options.",
    )(command)


def version_option(command: Command) -> Command:
    """Adds ``--version``, which prints the version of the installed package and ends the program."""
    return click.version_option(package_name="fl-mqtt", message="%(prog)s %(version)s")(command)


def _load_config(ctx: click.Context, _param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{path} is not TOML: {error}") from None
    known_options = {
        name.lstrip("-").replace("-", "_"): option
        for option in ctx.command.get_params(ctx)
        if isinstance(option, click.Option) and option.expose_value
        for name in (*option.opts, *option.secondary_opts)
        if name.startswith("--")
    }
    defaults: dict[str, Any] = {}
    for key, value in values.items():
        option = known_options.get(key.replace("-", "_"))
        if option is None or option.name is None:
            suggestions = difflib.get_close_matches(key.replace("-", "_"), known_options, n=1)
            hint = f"; did you mean {suggestions[0].replace('_', '-')!r}?" if suggestions else ""
            raise click.BadParameter(f"{path}: {ctx.info_name} has no option {key!r}{hint}")
        try:
            defaults[option.name] = _as_on_the_command_line(value, option)
        except ValueError as error:
            raise click.BadParameter(f"{path}: {key}: {error}") from None
    ctx.default_map = {**(ctx.default_map or {}), **defaults}


def _as_on_the_command_line(value: Any, option: click.Option) -> Any:
    """Returns a value of the TOML file as the text that a command line would have, so that both are checked alike.

    Raises ``ValueError`` for what no command line can say.
    """
    if option.multiple:
        if isinstance(value, dict) and option.metavar == KEY_VALUE:
            return [f"{name}={_text(item)}" for name, item in value.items()]
        return [_text(item) for item in (value if isinstance(value, list) else [value])]
    return value if isinstance(value, bool) and option.is_flag else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        kind = {bool: "a boolean", dict: "a table", list: "a list"}.get(type(value), "a date or time")
        raise ValueError(f"is {kind}; expected one value, a text or a number")
    if value == "":
        raise ValueError(EMPTY)
    return str(value)


# --- what they mean ---------------------------------------------------------------------------------------


def check_client(name: str, option: str) -> None:
    """Raises ``UserError`` that names ``option`` if ``name`` is not valid for an edge or another account."""
    if not valid_client(name):
        raise UserError(f"{option} {name[:80]!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ -")


def read_password(password_file: Path | None) -> str | None:
    """The broker's password: the first line of the file, else ``FL_PASSWORD``, else None.

    Raises ``UserError`` if the file cannot be read or its first line is empty.
    """
    if password_file is None:
        return os.environ.get("FL_PASSWORD")
    try:
        lines = password_file.read_text(encoding="utf-8-sig").splitlines()  # some editors write a mark first
    except OSError as error:
        raise UserError(f"password file {password_file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"password file {password_file}: expected UTF-8") from None
    if not lines or not lines[0]:
        raise UserError(f"password file {password_file}: its first line is empty; expected the password")
    if "\0" in lines[0]:
        raise UserError(
            f"password file {password_file}: its first line contains a NUL; expected the password as text"
        )
    return lines[0]
