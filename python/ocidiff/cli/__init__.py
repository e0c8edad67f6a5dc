"""The command line: one file per command, the options they share, and how results and progress are shown."""
