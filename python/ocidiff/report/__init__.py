"""Reports: what is in an image, for people to judge it before it is published."""
