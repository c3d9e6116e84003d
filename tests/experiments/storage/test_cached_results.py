"""One process at a time works below a directory, also where the one before removes it."""

import threading
from pathlib import Path

from experiments.process.interrupt import StopRequest
from experiments.storage.cached_results import only_here
from supernet.storage.manifest import discard_directory


def test_who_waits_for_a_directory_that_is_removed_gets_a_new_one(tmp_path: Path) -> None:
    home, order = tmp_path / "home", []

    def wait() -> None:
        with only_here(home, StopRequest()):
            order.append("second")
            assert home.is_dir()
            discard_directory(home)

    with only_here(home, StopRequest()):
        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        threads[0].join(0.3)
        order.append("first")
        discard_directory(home)
    for thread in threads:
        thread.join(10)
    assert order == ["first", "second", "second"]
    assert not list(tmp_path.iterdir())
