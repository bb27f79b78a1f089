"""What the incumbent's names stand for where Eyas' own have other arguments or results.

One module for each module that it answers for, by its name; `eyas.compat.ultralytics` lists them all, and loads none
before a script asks. Each function turns arguments and results over, and leaves the work to Eyas.
"""
