"""The template: a process that has loaded the server's code and forks a ready shim per request.

`start` asks for one over a private socket (`bootstrap._template` has the wire).  What `start` gets
is a process like one that it had spawned itself; if that cannot be had, the template says no, and
`start` spawns.  It never talks to containerd, to runc or to a container, and holds nothing of
whoever started it.

`_server` waits and forks, `_child` turns the fork into a shim, `_likeness` says what must be alike
and makes the rest so, `_warmth` loads, `_code` notices newer code on disk.
"""
