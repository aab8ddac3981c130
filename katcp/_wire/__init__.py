"""The bytes on the wire: messages, how they are written and how they are read."""
