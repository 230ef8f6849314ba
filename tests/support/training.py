"""Train for a few steps without tracing graphs: a trace costs ten seconds, an eager step of a tiny model one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# Arguments of Python that run the command line with eager training.
EAGER_COMMAND = """
import sys
import tensorflow as tf
from vaecodec.cli import main
tf.config.run_functions_eagerly(True)
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def eager() -> Iterator[None]:
    """Run every tf.function eagerly."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def shell_functions(python: str) -> str:
    """Lines of a shell script that define the commands `python` and `vaecodec`, whose training is eager."""
    return f"""set -e
python() {{ "{python}" "$@"; }}
vaecodec() {{
  if [ "$1" = train ]; then python -c '{EAGER_COMMAND}' "$@"; else python -m vaecodec "$@"; fi
}}
"""
