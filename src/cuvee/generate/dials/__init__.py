"""One file a dial. ``DIALS`` is the table; a dial of your own is any object with the ``Dial`` protocol."""

from collections.abc import Callable, Mapping

from cuvee.generate.dials.paraphrase import ParaphraseDial
from cuvee.generate.dials.protocol import Batch, Dial, Slot, wanted_slots
from cuvee.generate.dials.sampling import SamplingDial
from cuvee.generate.dials.topics import TopicsDial

DIALS: Mapping[str, Callable[..., Dial]] = {
    "topics": TopicsDial,
    "paraphrase": ParaphraseDial,
    "sampling": SamplingDial,
}

__all__ = ["DIALS", "Batch", "Dial", "ParaphraseDial", "SamplingDial", "Slot", "TopicsDial", "wanted_slots"]
