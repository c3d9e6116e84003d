"""Bodies of requests: read up to a size, and turned into the examples that a network takes."""

import asyncio
import functools
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from experiments.data.pictures import TooManyPixels
from experiments.prediction.reader import Reader
from experiments.serving.refusals import Refusal
from experiments.serving.settings import Settings
from search_spaces import UserError
from search_spaces.sealed_json import parse_json

_FORM, _JSON = "multipart/form-data", "application/json"
_DRAINED = 4  # times the largest body, before a connection is closed on a client that sends


async def examples_of(request: Request, reader: Reader, settings: Settings) -> tuple[np.ndarray, int]:
    """Reads the examples of a request, and how many likeliest classes it asks for.

    Raises:
        Refusal: Too large, too slow, of a type that is not known, or it holds nothing that the network takes.
    """
    top = request.query_params.get("top", str(settings.top))
    if not (top.isascii() and top.isdigit() and 1 <= len(top) <= 6 and int(top) >= 1):
        raise Refusal(400, "top: expected a whole number of at least 1.")
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    taken = (_JSON, *((_FORM, *reader.media) if reader.media else ()))
    if not any(media == one or (one.endswith("/") and media.startswith(one)) for one in taken):
        raise Refusal(415, f"Content-Type: {media[:60]!r} is not taken. Send {', '.join(taken)}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "Content-Encoding: bodies are taken as they are. Send it without.")
    body = await _body(request, settings)
    if not body:
        raise Refusal(400, "the body is empty. Send examples.")
    try:
        if media == _FORM:
            return await _uploads(request, body, reader, settings), int(top)
        if media == _JSON:
            return await _in_pool(_from_json, body, reader), int(top)
        one = await _in_pool(reader.from_bytes, "body", body, settings.max_pixels)
        return one[None], int(top)
    except TooManyPixels as error:
        raise Refusal(413, str(error)) from None
    except UserError as error:
        raise Refusal(400, str(error)) from None


async def _in_pool(decode: Callable[..., np.ndarray], *given: Any) -> np.ndarray:
    """Decodes in a thread, few at a time, so that what is decoded takes bounded memory."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), decode, *given)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="bodies")


async def _body(request: Request, settings: Settings) -> bytes:
    too_large = Refusal(413, f"the body is larger than {settings.max_bytes:,} bytes. Send less.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and (len(length) > 18 or int(length) > _DRAINED * settings.max_bytes):
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.timeout):
            async for part in request.stream():
                size += len(part)
                if size <= settings.max_bytes:
                    parts.append(part)
                else:  # a client that still sends would not see an answer, so some of the rest is taken and dropped
                    parts.clear()
                if size > _DRAINED * settings.max_bytes:
                    break
    except TimeoutError:
        raise Refusal(408, f"the body took longer than {settings.timeout:g} s. Send it at once.") from None
    except ClientDisconnect:
        raise Refusal(400, "the body ended early.") from None
    if size > settings.max_bytes:
        raise too_large
    return b"".join(parts)


async def _uploads(request: Request, body: bytes, reader: Reader, settings: Settings) -> np.ndarray:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    try:
        parser = MultiPartParser(request.headers, once(), max_files=settings.batch_size, max_fields=16)
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeDecodeError) as error:
        text = error.message if isinstance(error, MultiPartException) else "it cannot be read"
        raise Refusal(413 if text.startswith("Too many") else 400, f"form: {text}") from None
    try:
        uploads = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not uploads:
            raise Refusal(400, "form: holds no file. Send pictures as files.")
        contents = [await upload.read() for upload in uploads]
    finally:
        await form.close()
    found = [
        await _in_pool(reader.from_bytes, f"file {number}", content, settings.max_pixels)
        for number, content in enumerate(contents)
    ]
    return np.stack(found)


def _from_json(body: bytes, reader: Reader) -> np.ndarray:
    try:
        given: Any = parse_json(body)
    except ValueError as error:  # UnicodeDecodeError is one
        raise Refusal(400, f"JSON: {(str(error).splitlines() or ['cannot be read'])[0][:200]}") from None
    examples = given.get("examples") if isinstance(given, dict) else None
    if not isinstance(examples, list) or not examples:
        raise Refusal(400, 'JSON: expected {"examples": [...]}, with at least one.')
    return reader.from_json(examples)
