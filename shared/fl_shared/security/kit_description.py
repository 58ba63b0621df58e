"""What ``kit.json`` in a kit says, strictly parsed."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from fl_shared.errors import UserError
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.protocol.topics import CLIENT_PATTERN, GROUP_PATTERN, valid_prefix
from fl_shared.security.hpke import check_public_key
from fl_shared.security.key_fields import RawKey, Signature, SigningKey
from fl_shared.security.kit_archive import DESCRIPTION, InvalidKit
from fl_shared.security.tls import PIN_BYTES
from fl_shared.security.vouchers import VOUCHER_BYTES
from fl_shared.system.validation import first_error

FORMAT: Final = 2
AccountRole = Literal["train", "evaluate", "predict", "region", "aggregator", "operator", "asker", "bridge"]
"""``region``: with ``train``, an account that may send the sum of many edges, as a regional aggregator does.
``bridge``: a broker's account at the hub of a star. It has a certificate, and no kit."""


def check_broker_url(value: str) -> str:
    """Returns ``value``. Raises ``ValueError`` unless it is a broker's URL with TLS and without a user."""
    form = "expected mqtts://host:port or wss://host:port/path"
    try:
        address = BrokerAddress.parse(value)
    except UserError:
        # Without the reason: that repeats the value, which may contain the account's password.
        raise ValueError(form) from None
    if not address.is_encrypted or address.user is not None:
        raise ValueError(form)
    return value


def _prefix(value: str) -> str:
    if not valid_prefix(value):
        raise ValueError(f"{value!r} is not a valid topic prefix")
    return value


def _format(value: int) -> int:
    if value < FORMAT:
        raise ValueError(
            f"{value}, made by an older version; get new kits for all: "
            "fl-aggregator provision rotate --all --force"
        )
    if value > FORMAT:
        raise ValueError(f"{value}, made by a newer version; expected {FORMAT}")
    return value


class Description(BaseModel):
    """The content of ``kit.json``; bytes are in base64. For the members, see `fl_shared.security.kit.Kit`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    format: Annotated[int, AfterValidator(_format)]
    name: Annotated[str, Field(pattern=f"^{CLIENT_PATTERN}$")]
    roles: Annotated[list[AccountRole], Field(min_length=1, max_length=4)]
    broker: Annotated[str, Field(max_length=512), AfterValidator(check_broker_url)]
    prefix: Annotated[str, Field(max_length=256), AfterValidator(_prefix)]
    broker_pin: Annotated[Base64Bytes, Field(min_length=PIN_BYTES, max_length=PIN_BYTES)]
    signing_public: SigningKey
    enrolment_public: SigningKey
    sealing_public: Annotated[RawKey, AfterValidator(check_public_key)]
    signing_private: RawKey | None = None
    sealing_private: RawKey | None = None
    voucher: Annotated[Base64Bytes, Field(min_length=VOUCHER_BYTES, max_length=VOUCHER_BYTES)] | None = None
    member_private: RawKey | None = None
    member_until: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    member_voucher: Signature | None = None
    request: RawKey | None = None
    predict_group: Annotated[str, Field(pattern=f"^{GROUP_PATTERN}$")] | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: Annotated[str, Field(min_length=1, max_length=256)] | None = None


def parse_description(text: bytes) -> Description:
    """Parses ``kit.json``. Raises `InvalidKit`."""
    try:
        return Description.model_validate_json(text)
    except ValidationError as error:
        raise InvalidKit(f"{DESCRIPTION}: {first_error(error)}") from None
