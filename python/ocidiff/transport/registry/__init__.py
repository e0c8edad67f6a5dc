"""A registry as a place of images. Spec: OCI distribution-spec 1.1."""
