"""``eyas rehearse my_trainer.py``: everything that a long training will do, tried in two minutes.

The user's own script runs, with its own trainer, callbacks and data; only the length is another: two epochs of a
handful of the images, small, on the CPU. Each part is a fresh interpreter (``python -m eyas.rehearsal PART FOLDER``),
so that one that is killed, hangs or runs out of memory takes nothing with it. ``conduct`` starts them and prints the
table, ``script`` runs the file and takes its trainings over, ``parts`` says what becomes of them.
"""
