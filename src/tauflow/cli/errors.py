"""What went wrong, in one sentence on stderr, with an exit code and without a traceback."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import typer
from typer.core import TyperGroup

USER_ERROR = 2
INTERRUPTED = 130


class PlainGroup(TyperGroup):
    """A command group that answers every mistake of the user with one sentence and exit code 2.

    Mistakes are usage errors and every `ValueError` and `OSError` of the library. Any other exception is a defect of
    tauflow and keeps its traceback.
    """

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; the process ends here."""
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            code = self._exit_code(*args, **{**extra, "standalone_mode": False})
        sys.exit(code)

    def _exit_code(self, *args: Any, **extra: Any) -> int:
        try:
            code = super().main(*args, **extra)
        except KeyboardInterrupt:
            return fail("Interrupted.", INTERRUPTED)
        except typer.Abort:
            return fail("Interrupted.", INTERRUPTED)
        except BrokenPipeError:  # the reader, for example `head`, has gone
            sys.stderr.close()
            return 1
        except OSError as error:
            return fail(_of_the_system(error))
        except ValueError as error:
            return fail(str(error))
        except Exception as error:
            if hasattr(error, "format_message"):  # a usage error, whichever library it is from
                return fail(_of_usage(error))
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                return fail("There is not enough memory for this; choose fewer neurons, seeds or trials (--batch).")
            raise
        return code if isinstance(code, int) else 0


def fail(sentence: str, code: int = USER_ERROR) -> int:
    """Say a sentence on stderr, on one line; the exit code comes back."""
    typer.echo(" ".join(sentence.split()), err=True)
    return code


def _of_usage(error: Any) -> str:
    context = getattr(error, "ctx", None)
    where = f" See `{context.command_path if context is not None else 'tauflow'} --help`."
    message = str(error.format_message()).strip()
    return message + ("" if message.endswith((".", "?")) else ".") + where


def _of_the_system(error: OSError) -> str:
    reason = error.strerror or type(error).__name__
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{reason}; choose a place that can be read and written and has space."


def _say_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):  # the others are for developers
        typer.echo(f"Note: {message}", err=True)
