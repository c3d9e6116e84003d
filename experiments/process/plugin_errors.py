"""Errors of plug-ins: one line that names the plug-in, the place and the method, in place of a traceback."""

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.process.interrupt import Interrupted
from search_spaces import UserError


@contextmanager
def plugin_errors(plugins: Sequence[str], doing: str) -> Iterator[None]:
    """Turns an error that passes through a plug-in into a `UserError` about it; all others stay what they are.

    Args:
        plugins: Modules that the experiment names.
        doing: Activity meanwhile, as the end of "raised while ...".

    Raises:
        UserError: A plug-in raised an error, or made a library raise one.
    """
    try:
        yield
    except (UserError, Interrupted, OSError):
        raise
    except Exception as error:
        # The innermost frame says best what is wrong: nearer to the error are libraries.
        for frame in reversed(list(traceback.walk_tb(error.__traceback__))):
            code, line = frame[0].f_code, frame[1]
            name = next((name for name in plugins if _holds(name, code.co_filename)), None)
            if name is not None:
                said = " ".join(str(error).split())
                said = said if len(said) <= 200 else f"{said[:197]}..."
                raise UserError(
                    f"{code.co_filename}:{line}: plug-in {name}: {code.co_qualname} raised {type(error).__name__} "
                    f"while {doing}: {said or 'no text'}. Mend the plug-in; what the run has is kept."
                ) from error
        raise


def _holds(name: str, file: str) -> bool:
    """Whether the code of a plug-in lies in this file."""
    own = getattr(sys.modules.get(name), "__file__", None)
    if own is None:
        return False
    own = Path(own)
    return Path(file).is_relative_to(own.parent) if own.name == "__init__.py" else Path(file) == own
