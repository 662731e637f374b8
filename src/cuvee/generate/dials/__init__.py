"""One file a dial. ``DIALS`` is the table; a dial of your own is any object with the ``Dial`` protocol.

A dial of your own, for example one that has personas write the rows, in a module that Python can import::

    # personas.py
    from cuvee.generate.dials import Slot, all_slots, level_batches, rank_levels, slot_key

    class PersonasDial:
        def __init__(self, *, levels, personas):
            self.personas = personas
            self.levels = rank_levels("personas", [str(k) for k in sorted(levels)])

        name = "personas"

        def check(self, labels, rows_per_label):
            pass

        def batches(self, labels, *, blocks, rows_per_label, levels):
            def slots(level, block):
                k = int(level)
                return tuple(
                    Slot(
                        key=slot_key(label, block, self.personas[row % k], row // k),
                        label=label,
                        block=block,
                        attributes=(("written by", self.personas[row % k]),),
                        number=row // k,
                        order=row,
                    )
                    for row in range(rows_per_label)
                    for label in labels
                )
            return level_batches(levels, blocks, slots)

        def compose(self, level, batch):
            return all_slots(level, batch)

It is named ``personas:PersonasDial`` where a dial of the table is named, and allowed with ``--trust personas``;
its keyword arguments are its settings.
What makes levels nest is the key: the same key is the same row. ``attributes`` puts any instruction
into the prompt, as a name and its value.
"""

from collections.abc import Mapping

from cuvee.generate.dials.attributes import AttributesDial, balanced_combinations
from cuvee.generate.dials.combined import CombinedDial
from cuvee.generate.dials.examples import ExamplesDial, order_examples
from cuvee.generate.dials.list_questions import dimension_question, parse_list, value_question
from cuvee.generate.dials.making import DialFactory, Setting
from cuvee.generate.dials.making import make_dial as _make_dial
from cuvee.generate.dials.paraphrase import ParaphraseDial
from cuvee.generate.dials.protocol import (
    Avoid,
    Batch,
    Dial,
    Draft,
    Slot,
    all_slots,
    level_batches,
    rank_levels,
    slot_key,
    wanted_slots,
)
from cuvee.generate.dials.refine import BaseThenRefineDial
from cuvee.generate.dials.sampling import SamplingDial
from cuvee.generate.dials.taboo import TabooDial
from cuvee.generate.dials.topics import Branches, TopicsDial, check_degree, check_tree, list_leaves
from cuvee.generate.dials.words import parse_topics, texts_by_label, topic_question, topics_from_words

DIALS: Mapping[str, DialFactory] = {
    "topics": TopicsDial,
    "paraphrase": ParaphraseDial,
    "sampling": SamplingDial,
    "attributes": AttributesDial,
    "examples": ExamplesDial,
    "taboo": TabooDial,
    "base_then_refine": BaseThenRefineDial,
    "combined": CombinedDial,
}


def make_dial(name: str, settings: Mapping[str, Setting]) -> Dial:
    """The dial of the DIALS table, or ``module:Name``, with the settings of a config.

    ``combined`` takes ``first`` and ``second`` as mappings of a dial's ``name`` and settings.

    Raises:
        ConfigError: no such dial, a setting that it does not know or lacks, or one whose value it refuses.
    """
    return _make_dial(name, settings, DIALS)


__all__ = [
    "DIALS",
    "AttributesDial",
    "Avoid",
    "BaseThenRefineDial",
    "Batch",
    "Branches",
    "CombinedDial",
    "Dial",
    "Draft",
    "ExamplesDial",
    "ParaphraseDial",
    "SamplingDial",
    "Setting",
    "Slot",
    "TabooDial",
    "TopicsDial",
    "all_slots",
    "balanced_combinations",
    "check_degree",
    "check_tree",
    "dimension_question",
    "level_batches",
    "list_leaves",
    "make_dial",
    "order_examples",
    "parse_list",
    "parse_topics",
    "rank_levels",
    "slot_key",
    "texts_by_label",
    "topic_question",
    "topics_from_words",
    "value_question",
    "wanted_slots",
]
