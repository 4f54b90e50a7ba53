//! What the end-to-end tests share: the daemon under test, clients that nobody here wrote, and a file system that
//! loses power. Nothing of it is part of the product.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests run on threads that may block"
)]

pub mod powerfs;
