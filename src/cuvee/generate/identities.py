"""What the ledger knows an endpoint by, however many replicas it has, in whatever order."""

from __future__ import annotations

from dataclasses import replace

from cuvee.generate.calls import Endpoint
from cuvee.generate.ledger import Ledger

LOCAL = ("gguf:", "hf:")
"""What identities of models on this machine begin with: they cost nothing."""


def settle_identity(endpoint: Endpoint, ledger: Ledger) -> Endpoint:
    """The endpoint under the identity by which the ledger knows this model at any of its addresses.

    Request keys hold the identity, so adding, removing or reordering replicas re-sends nothing: the ledger keeps for
    each address and model the identity that its answers go by. That is, in this order: what the ledger has written
    down for one of the addresses, the oldest first; the address under which it holds answers of the model; the
    first address in alphabetical order. An identity that was given (of a GGUF file, say) stays as it is.

    Args:
        endpoint: with all its replicas.
        ledger: where the identity is looked up, and written down for each address.

    Raises:
        RunFolderError: the ledger cannot be written.
    """
    addresses = endpoint.addresses
    if endpoint.identity not in addresses:
        return endpoint
    known = ledger.identities(addresses, endpoint.model)
    if known:
        identity = next(iter(known.values()))
    elif len(addresses) == 1:
        identity = endpoint.identity
    else:
        found = (replace(endpoint, identity=address) for address in sorted(addresses))
        identity = next((one.identity for one in found if ledger.has_answers(one)), endpoint.identity)
    if new := [address for address in addresses if address not in known]:
        ledger.record_identity(new, endpoint.model, identity)
    return replace(endpoint, identity=identity)
