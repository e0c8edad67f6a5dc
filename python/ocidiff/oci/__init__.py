"""The nouns of the OCI image specification: frozen values, parsing and JSON. No I/O."""
