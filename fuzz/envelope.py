"""What comes on a Redis channel to a message's body: kombu's envelope, or a BadEventError."""

from fuzz.decoder import check_reason
from leekfanout.documents.events import decode
from leekfanout.errors import BadEventError
from leekfanout.sources.redis_channels import open_envelope


def one_input(payload: bytes) -> None:
    """Raise if what comes out of an envelope can't be given to the decoder."""
    try:
        body, content_type, _ = open_envelope(payload)
        assert type(body) is bytes
        decode(body, content_type)
    except BadEventError as error:
        check_reason(error)
