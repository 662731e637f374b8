"""An encoder that counts what it embeds."""

from typing import ClassVar

from cuvee.encoders import HashingEncoder


class Counting(HashingEncoder):
    """The built-in hashing, which keeps every text that it was asked for."""

    name = "counting"
    seen: ClassVar[set[str]] = set()

    def encode(self, texts):
        self.seen.update(texts)
        return super().encode(texts)
