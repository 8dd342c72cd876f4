"""What an audit finds: one statement about one log, how sure it is, and which deviation it is a case of."""

from dataclasses import dataclass

CERTAINTIES = ("certain", "likely", "note")


@dataclass(frozen=True)
class Finding:
    """A fault, or something to know before numbers are compared.

    Attributes:
        id: D1 to D12 of the published code, or a word: ``unit``, ``bins``, ``clean``, ``protocol``.
        certainty: ``certain`` where the numbers allow no other reading, ``likely`` where one is far-fetched, ``note``
            for what is no fault by itself.
        log: names of the files it is seen in.
    """

    id: str
    certainty: str
    log: str
    text: str
