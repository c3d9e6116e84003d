"""Settings of a server: where it listens, and what a request may be."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Address and limits of a server.

    Attributes:
        host: Address that it listens on.
        port: Port; 0 lets the system choose.
        batch_size: Largest number of examples that are computed together, and of a request.
        top: Number of likeliest classes that an answer has where the request does not say.
        max_bytes: Largest body of a request in bytes.
        max_pixels: Largest picture in pixels, as its head says.
        rate: Largest number of requests a second of one client address, over ten seconds.
        max_waiting: Largest number of requests of /predict in progress, which bounds the bodies in memory.
        timeout: Seconds that the head of a request, and then its body, may take to arrive.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    batch_size: int = 16
    top: int = 5
    max_bytes: int = 10 * 2**20
    max_pixels: int = 25_000_000
    rate: float = 100.0
    max_waiting: int = 256
    timeout: float = 10.0
