"""`python -m mmcat.cli`: the program without its installed script, as the demo starts its consumer."""

import sys

from mmcat.cli.root import main

if __name__ == "__main__":
    sys.exit(main())
