"""Text to vectors, cached by content.

``hashing`` needs no model and no download: character n-grams hashed to 512 dimensions. ``minilm`` is
all-MiniLM-L6-v2 through sentence-transformers, from an installed package or the hub. Any other name is a
sentence-transformers model (a name on the hub or a folder), or ``module:Name`` of an Encoder class.
"""

from cuvee.encoders.cached import CachedEncoder
from cuvee.encoders.hashing import HashingEncoder
from cuvee.encoders.loading import BUILT_IN, DEFAULT_ENCODER, MINILM_SHA256, find_minilm, load_encoder
from cuvee.encoders.protocol import Encoder, WrappedEncoder
from cuvee.encoders.sentences import SentenceEncoder
from cuvee.encoders.spread import SpreadEncoder
from cuvee.encoders.storage import batches, empty_rows

__all__ = [
    "BUILT_IN",
    "DEFAULT_ENCODER",
    "MINILM_SHA256",
    "CachedEncoder",
    "Encoder",
    "HashingEncoder",
    "SentenceEncoder",
    "SpreadEncoder",
    "WrappedEncoder",
    "batches",
    "empty_rows",
    "find_minilm",
    "load_encoder",
]
