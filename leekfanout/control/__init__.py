"""The control socket: Supervisor's XML-RPC, and who asks for it."""
