"""What the ledger knows an endpoint by, however many replicas it has, in whatever order."""

from __future__ import annotations

from dataclasses import replace

from cuvee.generate.calls import Endpoint
from cuvee.generate.ledger import Ledger
from cuvee.generate.masking import spell_host


def settle_identity(endpoint: Endpoint, ledger: Ledger) -> Endpoint:
    """The endpoint under the identity by which the ledger knows this model at any of its addresses.

    Request keys hold the identity, so adding, removing or reordering replicas re-sends nothing: the ledger keeps for
    each address and model the identity that its answers go by. That is, in this order: what the ledger has written
    down for one of the addresses, the oldest first; the address under which it holds answers of the model; the
    first address in alphabetical order. ``localhost``, 127.0.0.1, ::1 and capitals in a host's name are spellings of
    one address. An identity that was given (of a GGUF file, say) stays as it is.

    Args:
        endpoint: with all its replicas.
        ledger: where the identity is looked up, and written down for each address.

    Raises:
        RunFolderError: the ledger cannot be written.
    """
    addresses = endpoint.addresses
    spelled = set(map(spell_host, addresses))
    if spell_host(endpoint.identity) not in spelled:
        return endpoint
    known = ledger.identities(addresses, endpoint.model)
    if known:
        identity = next(iter(known.values()))
    else:
        answered = ledger.answered(endpoint.model)
        alike = (one for one in answered if spell_host(one) in spelled)
        identity = min(alike, key=lambda one: (one not in addresses, one), default=endpoint.identity)
    if new := [address for address in addresses if address not in known]:
        ledger.record_identity(new, endpoint.model, identity)
    return replace(endpoint, identity=identity)
