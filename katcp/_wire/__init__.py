"""Reading and writing messages as bytes."""
