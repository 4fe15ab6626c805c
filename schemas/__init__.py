"""The language: everything a YAML author may write. Reads no file and opens no database."""
