//! The sequence numbers of iSCSI (RFC 7143 §4.2.2) as distinct types with the serial arithmetic of
//! RFC 1982: they wrap, and "less than" only means something within half the number space.

macro_rules! serial_number {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub u32);

        impl $name {
            /// The number `count` later.
            #[must_use]
            pub const fn plus(self, count: u32) -> Self {
                Self(self.0.wrapping_add(count))
            }
            /// The next number.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }
            /// Whether `self` comes before `other` (RFC 1982 §3.2; undefined distances of 2^31 say no).
            #[must_use]
            pub const fn is_before(self, other: Self) -> bool {
                let distance = other.0.wrapping_sub(self.0);
                distance != 0 && distance < 1 << 31
            }
        }
    )*};
}

serial_number! {
    /// Command sequence number, session wide; also ExpCmdSN, MaxCmdSN and RefCmdSN.
    CmdSn,
    /// Status sequence number, connection wide; also ExpStatSN.
    StatSn,
    /// Data-In / Data-Out sequence number within a command or an R2T; also ExpDataSN.
    DataSn,
    /// Number of an R2T within its command.
    R2tSn,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let old = CmdSn(u32::MAX - 1);
        assert!(old.is_before(old.plus(3)));
        assert_eq!(old.plus(3), CmdSn(1));
        assert!(!old.plus(3).is_before(old));
        assert!(!old.is_before(old));
        assert!(!CmdSn(0).is_before(CmdSn(1 << 31)));
    }
}
