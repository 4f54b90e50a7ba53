//! Seals, integers and strings as FORMAT.md draws them, read by code of its own: nothing here is
//! shared with the mapper's decoder, so that a mistake of one is seen by the other.

use std::fmt;

/// What is wrong with some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Damage {
    /// The seal: length, layout or checksum.
    Seal(&'static str),
    /// The content.
    Form(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Seal(text) | Damage::Form(text) => f.write_str(text),
        }
    }
}

pub(super) type Decoded<T> = Result<T, Damage>;

pub(super) fn require(holds: bool, text: &'static str) -> Decoded<()> {
    if holds {
        Ok(())
    } else {
        Err(Damage::Form(text))
    }
}

/// Castagnoli's polynomial, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(sum & 1));
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut sum = !0_u32;
    for byte in parts.iter().copied().flatten() {
        sum = (sum >> 8) ^ CRC_TABLE[usize::from(sum as u8 ^ byte)];
    }
    !sum
}

const LAYOUT: u8 = 1;

/// The body of a sealed value.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Decoded<&'a [u8]> {
    let (sealed, sum) = value
        .split_last_chunk::<4>()
        .ok_or(Damage::Seal("the value is too short for a seal"))?;
    let (layout, body) = sealed
        .split_first()
        .ok_or(Damage::Seal("the value is too short for a seal"))?;
    if crc32c(&[key, sealed]) != u32::from_le_bytes(*sum) {
        return Err(Damage::Seal("the checksum is wrong"));
    }
    if *layout != LAYOUT {
        return Err(Damage::Seal("the layout is unknown"));
    }
    Ok(body)
}

/// Bytes that are taken from the front.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let (front, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(Damage::Form("it ends too early"))?;
        self.0 = rest;
        Ok(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (front, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(Damage::Form("it ends too early"))?;
        self.0 = rest;
        Ok(*front)
    }

    pub(super) fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Decoded<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn key_u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn key_u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// LEB128 of at most 64 bits, in the fewest bytes.
    pub(super) fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0_u64;
        for place in 0..10 {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            require(place < 9 || bits <= 1, "a varint has more than 64 bits")?;
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                require(bits != 0 || place == 0, "a varint is longer than needed")?;
                return Ok(value);
            }
        }
        Err(Damage::Form("a varint has more than 10 bytes"))
    }

    pub(super) fn zigzag(&mut self) -> Decoded<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// A name after its length byte.
    pub(super) fn name(&mut self) -> Decoded<String> {
        let len = self.u8()?;
        name(self.take(usize::from(len))?)
    }

    /// UTF-8 after its length of two bytes.
    pub(super) fn text(&mut self) -> Decoded<&'a str> {
        let len = self.u16()?;
        let bytes = self.take(usize::from(len))?;
        std::str::from_utf8(bytes).map_err(|_| Damage::Form("a text is not UTF-8"))
    }

    pub(super) fn end(self) -> Decoded<()> {
        require(self.0.is_empty(), "it has trailing bytes")
    }
}

const MAX_NAME: usize = 200;

pub(super) fn name(bytes: &[u8]) -> Decoded<String> {
    require(
        (1..=MAX_NAME).contains(&bytes.len()),
        "a name has not 1 to 200 bytes",
    )?;
    let text = std::str::from_utf8(bytes).map_err(|_| Damage::Form("a name is not UTF-8"))?;
    Ok(text.to_owned())
}
