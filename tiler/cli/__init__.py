"""The command line. Nothing below it knows click."""
