"""The dials. ``DIALS`` is the table; a dial of your own is any object with the ``Dial`` protocol.

``docs/how-to.md`` has the code of one that has personas write the rows. It is named ``module:Name`` where a dial of the
table is named, and allowed with ``--trust module``; its keyword arguments are its settings.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from cuvee.errors import ConfigError
from cuvee.generate.dials.contents import AttributesDial, ExamplesDial, TopicsDial, texts_by_label, topics_from_words
from cuvee.generate.dials.procedures import BaseThenRefineDial, ParaphraseDial, SamplingDial, TabooDial
from cuvee.generate.dials.slots import CombinedDial, Dial, PartsDial, Slot, chosen_slots, wanted_slots
from cuvee.registry import Kind, resolve_name

# A value of YAML.
Setting: TypeAlias = "str | int | float | bool | Sequence[Setting] | Mapping[str, Setting] | None"
DIALS: Mapping[str, Callable[..., Dial]] = {
    "topics": TopicsDial,
    "paraphrase": ParaphraseDial,
    "sampling": SamplingDial,
    "attributes": AttributesDial,
    "examples": ExamplesDial,
    "taboo": TabooDial,
    "base_then_refine": BaseThenRefineDial,
    "combined": CombinedDial,
}
# Settings of the dial *combined* that are dials themselves: mappings of a dial's ``name`` and settings.
PARTS = ("first", "second")


def make_dial(name: str, settings: Mapping[str, Setting]) -> Dial:
    """The dial of the DIALS table, or ``module:Name``, with the settings of a config as its keyword arguments.

    Raises:
        ConfigError: no such dial, a setting that it does not know or lacks, or one whose value it refuses.
    """
    factory = resolve_name(name, DIALS, Kind(name="dial", makes=Dial))
    given: dict[str, Setting | Dial] = dict(settings)
    if name == "combined":
        for part in PARTS:
            inner = settings[part]
            if not isinstance(inner, Mapping):
                raise ConfigError(f"dial 'combined': {part} {inner!r} must be a dial: its name and settings")
            given[part] = make_dial(str(inner.get("name")), {k: v for k, v in inner.items() if k != "name"})
    try:
        dial = factory(**given)
    except (TypeError, ValueError, AttributeError) as exc:
        raise ConfigError(f"dial {name!r} cannot be made of {dict(settings)!r}: {exc}") from exc
    if not isinstance(dial, Dial):
        raise ConfigError(f"dial {name!r} is no dial but a {type(dial).__name__}; see cuvee.generate.dials.Dial")
    return dial
