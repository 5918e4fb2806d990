"""The command line: flags and files become values, and one library function is called with them.

A file per command, with its Options and run(). Nobody uses this room but ``__main__`` and the console script, which
call ``cli.main``.
"""
