"""``import eyas.compat.activate`` as a script's first line: its imports of ``ultralytics`` are then answered by Eyas.

This import is made for its effect: it installs the importer and sends Eyas' log to the console, as the script expects.
"""

from eyas.compat.hook import install
from eyas.log import setup_logging

install()
setup_logging()
