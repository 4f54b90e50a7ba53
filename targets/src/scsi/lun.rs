//! Logical unit numbers: the 8-byte addresses of SAM-5 4.7, and nothing about what they lead to.

/// Largest logical unit number that flat space addressing can carry.
pub const MAX_LUN: u16 = 0x3FFF;

/// A logical unit number, 0..=[`MAX_LUN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lun(u16);

/// What an 8-byte LUN field addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LunAddress {
    /// A logical unit of this target by number, whether or not it exists.
    Unit(Lun),
    /// The REPORT LUNS well known logical unit (SPC-4 8.2).
    ReportLuns,
    /// A bus, target, second level or format that this target cannot have.
    Unreachable,
}

impl Lun {
    /// The number, or `None` above [`MAX_LUN`].
    pub const fn new(number: u16) -> Option<Lun> {
        if number <= MAX_LUN {
            Some(Lun(number))
        } else {
            None
        }
    }

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// As peripheral device addressing up to 255, flat space addressing above (SAM-5 4.7.7.2, 4.7.7.3).
    pub const fn encode(self) -> [u8; 8] {
        let [high, low] = self.0.to_be_bytes();
        let method = if self.0 > 0xFF { 0x40 } else { 0x00 };
        [method | high, low, 0, 0, 0, 0, 0, 0]
    }
}

impl LunAddress {
    /// Decodes single level peripheral, flat space, logical unit and well known addressing; never fails.
    pub const fn decode(field: [u8; 8]) -> LunAddress {
        let [first, second, rest @ ..] = field;
        let low_bits = first & 0x3F;
        if !matches!(rest, [0, 0, 0, 0, 0, 0]) {
            return LunAddress::Unreachable;
        }
        match first >> 6 {
            0b00 if low_bits == 0 => LunAddress::Unit(Lun(second as u16)),
            0b01 => LunAddress::Unit(Lun(u16::from_be_bytes([low_bits, second]))),
            // Logical unit addressing: TARGET in byte 0, BUS NUMBER and LUN in byte 1.
            0b10 if low_bits == 0 && second >> 5 == 0 => LunAddress::Unit(Lun(second as u16)),
            0b11 if first == 0xC1 && second == 0x01 => LunAddress::ReportLuns,
            _ => LunAddress::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(first: u8, second: u8) -> LunAddress {
        LunAddress::decode([first, second, 0, 0, 0, 0, 0, 0])
    }

    #[test]
    fn every_lun_round_trips() {
        for number in 0..=MAX_LUN {
            let lun = Lun::new(number).expect("in range");
            assert_eq!(LunAddress::decode(lun.encode()), LunAddress::Unit(lun));
        }
        assert_eq!(Lun::new(MAX_LUN + 1), None);
    }

    #[test]
    fn all_addressing_methods_reach_lun_3_and_other_buses_do_not() {
        let three = LunAddress::Unit(Lun(3));
        assert_eq!(decode(0x00, 3), three);
        assert_eq!(decode(0x40, 3), three);
        assert_eq!(decode(0x80, 3), three);
        assert_eq!(decode(0xC1, 1), LunAddress::ReportLuns);
        for (first, second) in [(0x01, 3), (0x81, 3), (0x80, 0x23), (0xC1, 2), (0xD2, 3)] {
            assert_eq!(
                decode(first, second),
                LunAddress::Unreachable,
                "{first:02x} {second:02x}"
            );
        }
        assert_eq!(
            LunAddress::decode([0, 0, 0, 1, 0, 0, 0, 0]),
            LunAddress::Unreachable
        );
    }
}
