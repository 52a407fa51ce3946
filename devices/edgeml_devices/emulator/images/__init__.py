"""Images that emulated boards boot: built from Debian packages and aarch64 wheels, and cached.

``image`` says what one is, ``build`` makes one, ``cache`` keeps what is made.
"""
