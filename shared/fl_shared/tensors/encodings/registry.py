"""The encodings of a section: how its values lie in bytes."""

from typing import Literal

Encoding = Literal["f32"]
