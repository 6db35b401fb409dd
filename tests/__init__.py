"""Tests of tornado_sse_auth and its sample server, against real parts wherever there is one."""
