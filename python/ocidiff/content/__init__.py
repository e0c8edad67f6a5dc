"""Where blobs live: what a store promises, and the store that is an OCI image layout."""
