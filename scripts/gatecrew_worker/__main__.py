"""`python -m gatecrew_worker APP`, and `python DIRECTORY/gatecrew_worker APP`.

The second form is how the gateway starts it: Python then puts the package's
own directory at sys.path[0] and knows no package. The directory above it
stands in sys.path only while the modules are imported, so that an application
sees neither.
"""

import os
import sys

if not __package__:
    _here = os.path.dirname(os.path.abspath(__file__))
    sys.path[0] = os.path.dirname(_here)

from gatecrew_worker._worker import main

if not __package__:
    del sys.path[0]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
