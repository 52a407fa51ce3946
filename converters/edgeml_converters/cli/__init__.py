"""The converters' commands: light to import, engines and tables are loaded when a command runs."""
