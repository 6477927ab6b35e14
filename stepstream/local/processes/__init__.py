"""Child processes of ``stepstream up``: how they are started, tied to this process, restarted and
stopped.

Every child ends when this process does, also after SIGKILL. What ties them is the child's standard
input: this process holds the other end, and the kernel closes it at the latest when this process is
gone. Programs of ours watch it themselves (``follow_parent``); programs of others, the Java runtime
and the store's server, run below a small program that watches it for them (``launcher``).

``child`` has both kinds of child with one interface, ``supervised`` restarts programs of ours, and
``restarts`` has the pauses that both the programs and the engines (``local.engines``) wait.
"""
