"""ShuDL's command line: ``./shudl``. Talks to the platform; holds none of its logic."""
