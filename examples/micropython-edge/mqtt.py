"""A small MQTT 3.1.1 client: one connection with a will, nothing kept beyond it. For MicroPython."""

import socket
import struct
import time

KEEPALIVE = 30  # seconds
PATIENCE = 10  # seconds for the rest of a packet
LONGEST = 300_000  # bytes of a packet


def text(value):
    return struct.pack(">H", len(value.encode())) + value.encode()


class Client:
    def __init__(self, host, port, name, will, account=()):
        """Connects. ``will``: topic and payload, retained. ``account``: name and password, or nothing."""
        self.socket, self.number = socket.socket(), 0
        self.socket.connect(socket.getaddrinfo(host, port)[0][-1])
        flags = 0x2E | (0xC0 if account else 0)  # clean start; a will with QoS 1, retained
        fields = b"".join(text(field) for field in (name,) + will + account)
        self.write(0x10, text("MQTT") + struct.pack(">BBH", 4, flags, KEEPALIVE) + fields)
        kind, answer = self.read(PATIENCE) or (0, b"\0\xff")
        if kind != 0x20 or answer[1]:
            raise OSError(f"the broker refuses the connection: code {answer[1]}")

    def write(self, kind, body):
        size, header = len(body), bytearray([kind])
        while size > 0x7F:
            header.append(size & 0x7F | 0x80)
            size >>= 7
        header.append(size)
        self.socket.settimeout(PATIENCE)
        self.socket.write(header + body)
        self.sent = time.ticks_ms()

    def numbered(self, kind, body, start=b""):
        self.number = self.number % 65535 + 1
        self.write(kind, start + struct.pack(">H", self.number) + body)

    def publish(self, topic, payload, retain=False):  # a PUBACK proves nothing (1.8): none is waited for
        self.numbered(0x32 | retain, payload, text(topic))

    def subscribe(self, topic, qos=1):
        self.numbered(0x82, text(topic) + bytes([qos]))

    def unsubscribe(self, topic):
        self.numbered(0xA2, text(topic))

    def stay(self):  # tells the broker that the client is alive, when it is time
        if time.ticks_diff(time.ticks_ms(), self.sent) > KEEPALIVE * 500:
            self.write(0xC0, b"")

    def receive(self, seconds):
        """The next message, as topic and payload; None if there is none for some seconds."""
        kind, body = self.read(seconds) or (0, b"")
        if kind & 0xF0 != 0x30:
            return None
        end = 2 + struct.unpack(">H", body[:2])[0]
        start = end + 2 if kind & 0x06 else end
        if kind & 0x06:
            self.write(0x40, body[end:start])
        return body[2:end].decode(), body[start:]

    def read(self, seconds):
        """The next packet, as its first byte and the rest; None if none begins in time."""
        self.socket.settimeout(seconds)
        try:
            first = self.socket.recv(1)
        except OSError as error:
            if error.errno in (11, 110):  # EAGAIN, ETIMEDOUT
                return None
            raise
        self.socket.settimeout(PATIENCE)
        size, shift, byte = 0, 0, self.socket.read(1) if first else None
        while byte and byte[0] & 0x80:
            size, shift, byte = size | (byte[0] & 0x7F) << shift, shift + 7, self.socket.read(1)
        size |= byte[0] << shift if byte else LONGEST
        if size >= LONGEST:
            raise OSError(f"the connection is lost, or a packet has {size} bytes")
        return first[0], self.socket.read(size)
