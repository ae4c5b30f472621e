"""Pickles of other programs, read as data: nothing in them is imported, called or run.

A pickle is a program for a small machine, and Python's own reader runs it: it imports what the file names, and calls
it. A file of unknown origin can so do anything. Yet most published weights are pickles (``torch.save``, EDM's
``.pkl``, statistics of other tools), and all that is wanted of them is numbers. So they are read in four steps:

1. ``unpickler`` goes through the opcodes. A name stays a name, and only names that networks are made of are let
   through; a call becomes a ``Record`` of what would have been called with what; bytes become the ``Span`` of the file
   where they stand. Anything else is a ``Refusal``, and so are more opcodes than the largest networks need.
2. ``outline`` turns such records into JSON, for any file of ``torch.save`` (``zip_reader`` opens today's layout) and
   for pickles of arrays; ``persistence`` does so for the networks of EDM's programs. Tensors are described by type,
   shape and place (``tensor_layout``), and every place lies inside the file.
3. Both run in a process of their own (``sandbox``), with limits on memory and time, so that a file which is made to
   exhaust or crash its reader takes nothing else with it. The process gives one JSON document. All of these files know
   only the standard library; what torch and numpy could be made to do is out of reach.
4. ``torch_files`` makes tensors of the description, as views of the mapped file: that needs no pickle any more.

Hostile files of every kind that is known to us are in ``tests/formats/hostile.py`` and ``test_bombs.py``.
"""
