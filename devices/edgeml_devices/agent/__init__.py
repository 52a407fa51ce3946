"""The agent: keeps one device's models as the server wants them, and never without a verified one."""
