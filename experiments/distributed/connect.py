"""Connection to Ray: one of our own on this machine, or a cluster; checked before anything is computed on it."""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.configuration.ray_section import RaySection
from search_spaces import UserError

_SECONDS, _ANSWER = 20.0, 5.0
_LONGEST = 300  # characters of a message of Ray
_STORE_BYTES = 256 << 20
_PREFIX = "supernest-ray-"
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # of HTTP/2, with no settings
_SETTINGS = 4  # the frame that every answer begins with
_MISMATCH = re.compile(r"version mismatch|versions differ", re.IGNORECASE)
_SAME = "Install the same on all."
_CHECKED = ("supernest", "jax", "jaxlib", "flax", "optax", "numpy", "ray")
# Of a Ray of our own: its workers are why it is there, so they are no less urgent than other processes; nobody preempts
# them, and few are quickly asked how they are.
_OWN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


def import_ray(loopback: bool = False) -> ModuleType:
    """Imports Ray.

    Args:
        loopback: Whether Ray stays on the loopback interface, or connects to a Ray that does. Otherwise Ray replaces
            127.0.0.1 by the network address of the machine; it reads the variable when it is imported.

    Raises:
        UserError: Ray is not installed.
    """
    if loopback:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray shows it to clusters only if told so before it is imported
    try:
        import ray
        import ray.train
    except ImportError as error:
        raise UserError(
            f"ray: the section needs Ray, which cannot be imported ({error}). Install it: pip install "
            "'supernest[ray]', or leave the section out to run in this process."
        ) from None
    return ray


def _has_token() -> bool:
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    return bool(named) or Path("~/.ray/auth_token").expanduser().is_file()


@contextlib.contextmanager
def connect(section: RaySection, shared: Path, panel: Path | None = None) -> Iterator[ModuleType]:
    """Joins the Ray of a section, or starts one, checks that it can do the work, and leaves it, or stops it.

    Args:
        section: Section with the cluster and the requested resources.
        shared: Directory that every node must see, unless the section names a storage.
        panel: Directory of a ranking's panel, that every node must see in any case.

    Raises:
        UserError: The cluster cannot be reached, is too small, has other versions, or does not see the files.
    """
    address = section.host if section.address == "local" else section.address.removeprefix("ray://").rpartition(":")[0]
    ray = import_ray(address.strip("[]") in ("127.0.0.1", "::1", "localhost"))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_no_news())
        options: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
        if section.address == "local":
            stack.enter_context(_environment())
            directory = stack.enter_context(_scratch())
            options |= {
                "address": "local",
                "num_cpus": len(os.sched_getaffinity(0)),
                "include_dashboard": False,
                "object_store_memory": _STORE_BYTES,
                "_temp_dir": str(directory),
                "_node_ip_address": section.host,
            }
        else:
            _reach(section.address)
            _check_member(section.address)
            options["address"] = section.address
        stack.callback(ray.shutdown)
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with warnings.catch_warnings():
                # Ray starts its processes by fork; the children run none of our code.
                warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
                ray.init(**options)
        except Exception as error:  # Ray raises bare ones too
            remedy = _SAME if _MISMATCH.search(str(error)) else _remedy(section.address)
            raise UserError(f"ray.address: {section.address}: {_line(error)} {remedy}") from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray puts one of its own in the place of ours
        places = {"--out": str(shared.absolute())} if section.storage is None else {"ray.storage": section.storage}
        if panel is not None:
            places["rank.cache"] = str(panel.absolute())
        _check_size(ray, section)
        _check_nodes(ray, places)
        yield ray


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """The environment that Ray's own processes inherit."""
    before = {name: os.environ.get(name) for name in _OWN}
    os.environ.update(_OWN)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _no_news() -> Iterator[None]:
    """Leaves out what Ray says of a token that it has made for itself; what it says of missing ones stays."""
    logger = logging.getLogger("ray._private.authentication.authentication_token_setup")

    def news(record: logging.LogRecord) -> bool:
        return "authentication is enabled" not in record.getMessage()

    logger.addFilter(news)
    try:
        yield
    finally:
        logger.removeFilter(news)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A directory for Ray's files, removed at the end; one that a killed process left is removed now."""
    # The paths of Ray's sockets may have 107 characters, and those of a user's temporary directory can be long.
    parent = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    for left in parent.glob(f"{_PREFIX}*"):
        process = left.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and not Path("/proc", process).exists():
            shutil.rmtree(left, ignore_errors=True)
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _reach(address: str) -> None:
    """Opens a connection and greets, which says sooner and more clearly than Ray that it is not there."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    answer = bytes([0, 0, 0, _SETTINGS])
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
                connection.settimeout(_ANSWER)
                connection.sendall(_GREETING)
                answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise UserError(f"ray.address: {address} cannot be reached: {error}. {_remedy(address)}") from None
    if answer[3:4] != bytes([_SETTINGS]):
        raise UserError(f"ray.address: {address} answers, but not as Ray does. {_remedy(address)}")


def _check_member(address: str) -> None:
    """Refuses a cluster that this machine is no node of, for which Ray would wait a minute."""
    from ray._private.services import find_gcs_addresses

    if address == "auto" or address.startswith("ray://"):
        return
    port = address.rpartition(":")[2]
    if not any(one.rpartition(":")[2] == port for one in find_gcs_addresses()):
        raise UserError(
            f"ray.address: {address}: no node of that cluster runs on this machine. Name the port of its client "
            "server instead, such as ray://HEAD:10001, or submit the experiment to it: supernest submit."
        )


def _remedy(address: str) -> str:
    if address == "local":
        return "Mend that, or leave the section ray out to run in this process."
    if address == "auto":
        return "Start a cluster on this machine (ray start --head), name another's address, or set address: local."
    return (
        "Start the cluster, or mend the address (ray status on its head names it); where it asks for a token, name "
        "yours with RAY_AUTH_TOKEN_PATH."
    )


def _line(error: BaseException) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    return text if text.endswith(".") and len(text) <= _LONGEST else f"{text[:_LONGEST]}."


def _asked(section: RaySection) -> dict[str, float]:
    """Resources of each worker."""
    wanted = {"CPU": section.cpus_per_worker, "GPU": section.gpus_per_worker}
    if section.accelerator_type is not None:
        wanted[f"accelerator_type:{section.accelerator_type}"] = 0.001
    return {name: amount for name, amount in wanted.items() if amount}


def _listed(resources: Mapping[str, float], names: Iterable[str]) -> str:
    return " and ".join(f"{resources.get(name, 0):g} {name}" for name in names)


def missing_room(ray: ModuleType, section: RaySection) -> str:
    """Returns a message of what is asked for and how much of it is free; empty where that is enough."""
    asked, free, needed = _asked(section), ray.available_resources(), section.sizes[0]
    if all(free.get(name, 0) + 1e-9 >= needed * amount for name, amount in asked.items()):
        return ""
    return f"as no room was found for {needed} workers of {_listed(asked, asked)} each; free are {_listed(free, asked)}"


def _check_size(ray: ModuleType, section: RaySection) -> None:
    """Counts the workers that the nodes have room for; nodes of a cluster may still be on their way."""
    asked, needed = _asked(section), section.sizes[0]
    end = time.monotonic() + (0 if section.address == "local" else _SECONDS)
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # The sum of 0.1 and 0.2 is more than 0.3.
        room = sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in asked.items()) for node in nodes)
        if room >= needed:
            return
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    has = _listed({name: sum(node.get(name, 0) for node in nodes) for name in asked}, asked)
    raise UserError(
        f"ray.workers: {needed} of {_listed(asked, asked)} each are more than the cluster has, {has} on {len(nodes)} "
        f"node{'s' if len(nodes) > 1 else ''}: room for {room}. Ask for fewer or smaller ones, or add nodes."
    )


def _check_nodes(ray: ModuleType, places: Mapping[str, str]) -> None:
    """Asks every node for its versions, and for a token in each place that all must see; by setting, places."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    versions = _versions()
    with contextlib.ExitStack() as stack:
        tokens = {key: stack.enter_context(_token(key, place)) for key, place in places.items()}
        asked = []
        for node in ray.nodes():
            if node["Alive"]:
                strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(_report)
                reference = task.remote([place for place, _ in tokens.values()])
                asked.append((node["NodeID"], node["NodeManagerAddress"], reference))
        for name, address, reference in asked:
            try:
                found, read = ray.get(reference, timeout=_SECONDS)
            except ray.exceptions.GetTimeoutError:
                raise UserError(
                    f"ray.address: node {address} has not answered within {_SECONDS:.0f} s. See `ray status`, or start "
                    "the cluster again."
                ) from None
            except ray.exceptions.RayError as error:
                if not any(node["NodeID"] == name and node["Alive"] for node in ray.nodes()):
                    continue  # lost meanwhile
                raise UserError(
                    f"ray.address: node {address} cannot run our code: {_line(error)} Install the same "
                    "supernest on every node."
                ) from None
            differ = [f"{name} {found[name]} (here {own})" for name, own in versions.items() if found[name] != own]
            if differ:
                raise UserError(f"ray.address: node {address} has other versions: {', '.join(differ)}. {_SAME}")
            for key, (_, text), there in zip(tokens, tokens.values(), read, strict=True):
                if there != text:
                    other = "" if key == "rank.cache" else ", or set ray.storage to one, such as s3://bucket/path"
                    raise UserError(
                        f"{key}: {places[key]} is not visible on node {address}. Choose a directory on a file system "
                        f"that all nodes share{other}."
                    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _CHECKED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    return versions


@contextlib.contextmanager
def _token(key: str, base: str) -> Iterator[tuple[str, str]]:
    """Writes a token where all nodes must find it; gives its place and its text."""
    from pyarrow import ArrowException, fs

    text = secrets.token_hex(8)
    place = f"{base.rstrip('/')}/.ray-{text}"
    try:
        files, path = fs.FileSystem.from_uri(place)
        files.create_dir(path.rpartition("/")[0], recursive=True)
        with files.open_output_stream(path) as stream:
            stream.write(text.encode())
    except ImportError as error:
        raise UserError(f"{key}: {base}: {_line(error)} Install that on every node, or choose another.") from None
    except (OSError, ArrowException, ValueError) as error:
        raise UserError(f"{key}: {base} cannot be written: {_line(error)} Choose another.") from None
    try:
        yield place, text
    finally:
        with contextlib.suppress(OSError):
            files.delete_file(path)


def _report(places: Sequence[str]) -> tuple[Mapping[str, str], list[str]]:
    """Runs on a node: its versions, and what it reads at the places."""
    from pyarrow import ArrowException, fs

    read = []
    for place in places:
        try:
            files, path = fs.FileSystem.from_uri(place)
            with files.open_input_stream(path) as stream:
                read.append(stream.read().decode())
        except (OSError, ArrowException, ValueError):
            read.append("")
    return _versions(), read
