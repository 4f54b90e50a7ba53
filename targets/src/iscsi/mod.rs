//! The iSCSI protocol core (RFC 7143): bytes and a clock value in, bytes and actions out.
