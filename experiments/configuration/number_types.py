"""Number types of settings: their ranges."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(ge=1, le=10**9)]
Batch = Annotated[int, Field(ge=1, le=2**24)]
Weight = Annotated[float, Field(ge=0, le=1e9)]
