"""From a model to images, edits, scores and trained models: generators and plain values, without console or files.

The functions ``sample``, ``edit``, ``score`` and ``train`` are public, as ``cmtool.sample`` and so on; the commands
are made of the same parts. ``settings`` declares the options once for both: a keyword is called like its flag.
"""
