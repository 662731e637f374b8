"""Text to vectors, cached by content.

``hashing`` needs no model and no download: character n-grams hashed to 512 dimensions. ``minilm`` is
all-MiniLM-L6-v2 through sentence-transformers, from an installed package or the hub. Any other name is a
sentence-transformers model (a name on the hub or a folder), or ``module:Name`` of an Encoder class. A model's name
may end in ``@float32``, ``@bfloat16``, ``@openvino-float32`` or ``@openvino-bfloat16``; ``minilm`` alone takes the
fastest of them on this machine, and says so in its name and hash.
"""

from cuvee.encoders.loading import KnownVectors, WorkerPool, load_encoder
from cuvee.encoders.models import (
    BUILT_IN,
    DEFAULT_ENCODER,
    Encoder,
    HashingEncoder,
    batches,
    build_encoder,
    empty_rows,
    find_minilm,
    resolve_encoder,
    split_name,
)
