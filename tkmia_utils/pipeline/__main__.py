"""Command line of the pipeline."""

import sys

from tkmia_utils.pipeline.runner import main

if __name__ == "__main__":
    sys.exit(main())
