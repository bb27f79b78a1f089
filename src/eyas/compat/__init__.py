"""Scripts and weights written for the incumbent library, run and read by Eyas.

``python -m eyas.compat script.py`` runs a script unmodified; ``import eyas.compat.activate`` at its top does the same
from within. `eyas.checkpoint.foreign` reads its weight files, and needs neither. Importing this package changes
nothing.
"""
