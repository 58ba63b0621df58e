"""The command ``request-kit`` of both programs: makes keys on this device, and a request for a kit without them."""

from __future__ import annotations

from pathlib import Path

import click

from fl_shared.cli import options
from fl_shared.errors import UserError
from fl_shared.protocol.topics import OPERATOR


def write_request(name: str, stem: str, directory: Path) -> None:
    """Writes ``stem.keys`` and ``stem.request`` into ``directory``, and says what to do with them.

    Raises ``UserError`` if one of them exists: keys are never overwritten.
    """
    from fl_shared.security.device_keys import KEYS_SUFFIX, REQUEST_SUFFIX, DeviceKeys
    from fl_shared.security.kit_request import fingerprint
    from fl_shared.system.files import write_new

    options.check_client(name, "ID")
    keys_file, request_file = (directory / f"{stem}{suffix}" for suffix in (KEYS_SUFFIX, REQUEST_SUFFIX))
    if request_file.exists():
        raise UserError(f"{request_file} already exists; for new keys, move it and {keys_file} away")
    keys, request = DeviceKeys.generate(name)
    try:
        write_new(keys_file, keys.encode(), mode=0o600)
        write_new(request_file, request.encode(), mode=0o644)
    except FileExistsError as error:
        raise UserError(
            f"{error.filename} already exists; keys are never overwritten, move it away"
        ) from None
    except OSError as error:
        raise UserError(f"{error.filename or directory}: {error.strerror}") from None
    click.echo(
        f"written: {keys_file}; keep it on this device: nobody else needs it, and it cannot be made again"
    )
    click.echo(
        f"written: {request_file}; to answer it: fl-aggregator provision add --request {request_file.name}"
    )
    click.echo(f"fingerprint: {fingerprint(request.digest)}")


def request_kit_command(kind: str) -> click.Command:
    """The command of a program whose accounts have kits named ``kind-NAME.zip``."""

    @options.command(name="request-kit", epilog=None)
    @click.argument("name", metavar="ID")
    @click.option(
        "--out",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=Path(),
        show_default="this directory",
        help="Directory for the files.",
    )
    def request_kit(name: str, out: Path) -> None:
        """Make the private keys of the account ID on this device, and a request for its kit.

        The kit that answers the request has no private keys. Use it next to the key file, or with --keys.
        """
        write_request(name, name if name == OPERATOR else f"{kind}-{name}", out)

    return request_kit
