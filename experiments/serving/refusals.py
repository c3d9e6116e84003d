"""Refusals: why a request gets no answer, and the HTTP status that says so."""


class Refusal(Exception):
    """A request is refused.

    Args:
        status: HTTP status code.
        text: The reason, and what to do.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.headers = headers or {}
