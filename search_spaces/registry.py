"""Registry: the plug-ins of one kind by name; a taken name is an error, an unknown one gets the nearest."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from search_spaces.errors import UserError, did_you_mean

Entry = TypeVar("Entry")
Plugin = TypeVar("Plugin")


class Registry(Mapping[str, Entry]):
    """Names to plug-ins of one kind. It fills itself by importing the modules of its package.

    Args:
        kind: Kind of the registered names, for messages (`"sampler"`).
        package: The package whose modules register themselves when imported.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[Plugin], Plugin]:
        """Returns a decorator that registers a class or function under `name`.

        Raises:
            UserError: The name is taken by another object.
        """

        def add(entry: Plugin) -> Plugin:
            if name in self._entries:
                raise UserError(
                    f"{self.kind} {name!r}: the name is taken by {self._entries[name]!r}. Choose another name."
                )
            self._entries[name] = entry  # type: ignore[assignment]
            return entry

        return add

    def __getitem__(self, name: str) -> Entry:
        self._find(name)
        if name not in self._entries:
            raise UserError(f"{self.kind}: {name!r} is not known.{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load()
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        self._find(name)
        return name in self._entries

    def _find(self, name: object) -> None:
        """Imports the module that has the entry's name, which is the usual case, or else all of them."""
        if name in self._entries or self._loaded:
            return
        module = f"{self._package}.{name}"
        if isinstance(name, str) and name.isidentifier() and importlib.util.find_spec(module) is not None:
            importlib.import_module(module)
        if name not in self._entries:
            self._load()

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # first: a module may look something up while it is imported
        try:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
        except BaseException:
            self._loaded = False
            raise
