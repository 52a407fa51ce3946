"""The console: pages for people, rendered on the server. They show, and sign people in and out."""
