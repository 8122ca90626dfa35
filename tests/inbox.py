"""An inbox that keeps what a source gives it."""

from dataclasses import dataclass, field


@dataclass
class CollectingInbox:
    """Keeps messages as (delivery tag, body, content type), and unusable ones with their reason."""

    messages: list[tuple[int, bytes, str | None]] = field(default_factory=list)
    refused: list[tuple[int, bytes, str]] = field(default_factory=list)

    def message(self, delivery_tag: int, body: bytes, content_type: str | None) -> None:
        self.messages.append((delivery_tag, body, content_type))

    def unusable(self, delivery_tag: int, payload: bytes, reason: str) -> None:
        self.refused.append((delivery_tag, payload, reason))

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, body, _ in self.messages]

    @property
    def tags(self) -> list[int]:
        return [tag for tag, _, _ in self.messages]
