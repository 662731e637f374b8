"""The texts of the prompts."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined, Template

_JINJA = Environment(undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True)


def _template(text: str) -> Template:
    return _JINJA.from_string(text)


# What the row shall be like comes after the seed examples, as a list of its own: in the headline ("about tennis")
# half as many rows of a small model are about it, and behind the examples the prompts of all topics share a prefix.
COMPLETION = _template("""\
A list of {{ label }} {{ describe }}:
{% for example in examples %}
{{ loop.index }}. {{ example }}
{% endfor %}
{% if topic or attributes or avoided %}

More {{ label }} {{ describe }}
{%- if topic %}, all about {{ topic }}{% endif %}
{%- if attributes %} ({{ attributes | map("join", ": ") | join("; ") }}){% endif %}
{%- if avoided %}, without the words {{ avoided | join(", ") }}{% endif %}
:
1.
{%- else %}
{{ examples | length + 1 }}.
{%- endif %}
""")

CHAT_SYSTEM = _template("""\
You write {{ describe }} for a data set. Answer with one new text alone: no number, no quotes, no comment.""")

CHAT_USER = _template("""\
These {{ describe }} are of the kind "{{ label }}":
{% for example in examples %}
- {{ example }}
{% endfor %}
Write one more of the kind "{{ label }}"{{ ", about " ~ topic if topic }}. It must differ from those above.
{%- if attributes %} What it must be like: {{ attributes | map("join", ": ") | join("; ") }}.{% endif %}
{%- if avoided %} Do not use any of these words: {{ avoided | join(", ") }}.{% endif %}
""")

REWRITINGS = (
    ("Rain delays opening of new city bridge", "Wet weather holds up launch of bridge in city"),
    ("Company hires 200 workers for its northern plant", "Northern factory takes on 200 new staff"),
    ("Singer cancels tour after throat operation", "Throat surgery forces singer to call off tour"),
    ("Schools to get more money for books", "Extra cash for books promised to schools"),
    ("I really enjoyed the soup, but it was too expensive.", "The soup cost too much, though it tasted great."),
    ("How do I change the password of my account?", "What are the steps to set a new account password?"),
)
"""Pairs that show what rewriting means; written for this purpose."""

PARAPHRASE_COMPLETION = _template("""\
Each text is rewritten in other words with the same meaning.
{% for original, rewritten in pairs %}

Original: {{ original }}
Rewritten: {{ rewritten }}
{% endfor %}

Original: {{ text }}
Rewritten:""")

PARAPHRASE_SYSTEM = _template("""\
You rewrite {{ describe }} in other words with the same meaning. Answer with the rewritten text alone.""")

REFINEMENTS = (
    ("city council they vote on on new park budget tuesday nite", "City council to vote on new park budget on Tuesday"),
    ("Scientist find that the frogs is disappear from lakes -", "Scientists find that frogs are vanishing from lakes"),
    ("i want knowing where is card what i ordered last week??", "Where is the card that I ordered last week?"),
    ("Film was good but but end of it too long and long", "The film was good, but its ending was too long."),
)
"""Pairs that show what refining a draft means; written for this purpose."""

REFINE_COMPLETION = _template("""\
Drafts of {{ describe }}, each edited: what it says stays, its language and form become right.
{% for draft, edited in pairs %}

Draft: {{ draft }}
Edited: {{ edited }}
{% endfor %}

Draft: {{ text }}
Edited:""")

REFINE_SYSTEM = _template("""\
You edit drafts of {{ describe }}. Keep what a draft says and correct its language and form. \
Answer with the edited text alone.""")

REFINE_USER = _template("""\
These {{ describe }} of the kind "{{ label }}" are in good form:
{% for example in examples %}
- {{ example }}
{% endfor %}
Bring this draft of one more into the same form, without taking over anything that they say:
{{ text }}
""")


def readable(name: str) -> str:
    """A name with spaces for underscores."""
    return " ".join(name.replace("_", " ").split())


def one_line(text: str) -> str:
    """A text without line breaks."""
    return " ".join(text.split())


def texts_of(pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Both sides of all pairs."""
    return tuple(text for pair in pairs for text in pair)
