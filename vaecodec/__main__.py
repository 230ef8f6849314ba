"""python -m vaecodec"""

import sys

from vaecodec.cli import main

if __name__ == "__main__":
    sys.exit(main())
