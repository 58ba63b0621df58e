"""Translates our settings for paho: the client before it connects, CONNECT, and PUBLISH."""

from __future__ import annotations

from paho.mqtt.client import Client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fl_shared.mqtt.events import ConnectionSettings, Will


def configure_client(client: Client, settings: ConnectionSettings) -> None:
    """Sets the client's TLS context, connect timeout, account and will."""
    if settings.tls is not None:
        client.tls_set_context(settings.tls)
    client.connect_timeout = settings.connect_timeout
    if settings.address.user is not None:
        client.username_pw_set(settings.address.user, settings.password)
    if settings.will is not None:
        will = settings.will if isinstance(settings.will, Will) else settings.will()
        client.will_set(will.topic, will.payload, will.qos, will.retain)


def connect_properties(settings: ConnectionSettings) -> Properties:
    """The properties of CONNECT: session expiry 0, and the limits of ``settings`` that are not None."""
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 0
    if settings.receive_maximum is not None:
        properties.ReceiveMaximum = settings.receive_maximum
    if settings.maximum_packet_size is not None:
        properties.MaximumPacketSize = settings.maximum_packet_size
    return properties


def publish_properties(
    response_topic: str | None, correlation_data: bytes | None, expiry: int | None
) -> Properties | None:
    """The properties of PUBLISH, or None if there are none; ``expiry`` in seconds."""
    if response_topic is None and correlation_data is None and expiry is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if response_topic is not None:
        properties.ResponseTopic = response_topic
    if correlation_data is not None:
        properties.CorrelationData = correlation_data
    if expiry is not None:
        properties.MessageExpiryInterval = expiry
    return properties
