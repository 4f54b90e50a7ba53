//! The SSD read-only cache: an `ObjectStore` around a slower one. It holds nothing yet but its place.
#![forbid(unsafe_code)]
