//! Reads a stream however it is cut, and checks every byte of it. Memory: one record.

use sha2::{Digest, Sha256};

use super::encode::{Encoder, Totals};
use super::format::{
    DIGEST, Damage, HEAD, HEADER_LENGTH_END, Head, Header, Kind, MAX_PAYLOAD, UNIT, crc32c,
    header_length,
};

/// What comes next in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Header(Header),
    Data {
        offset: u64,
        bytes: Vec<u8>,
    },
    Zeros {
        offset: u64,
        length: u64,
    },
    /// It is whole.
    End(Totals),
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    HeaderLength,
    Header(usize),
    Head,
    Payload(Head),
    Nothing,
}

/// Where the reading of a stream is.
#[derive(Debug)]
pub struct Decoder {
    expected: Expected,
    /// What has come of the header, the head, or the payload.
    part: Vec<u8>,
    /// The head of the payload that is expected, and the chain after it.
    head: [u8; HEAD],
    next_chain: u32,
    /// As of the last whole record; none before the header.
    done: Option<Encoder>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            expected: Expected::HeaderLength,
            part: Vec::new(),
            head: [0; HEAD],
            next_chain: 0,
            done: None,
        }
    }
}

impl Decoder {
    /// Takes from `input` until something is whole, or all of it. After an error nothing more is
    /// to be expected of it but [`Decoder::into_encoder`].
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Item>, Damage> {
        loop {
            let wanted = match self.expected {
                Expected::HeaderLength => HEADER_LENGTH_END,
                Expected::Header(length) => length,
                Expected::Head => HEAD,
                Expected::Payload(head) => head.payload,
                Expected::Nothing if input.is_empty() => return Ok(None),
                Expected::Nothing => return Err(Damage::Broken("bytes follow its end")),
            };
            let missing = wanted - self.part.len();
            let (now, later) = input.split_at(missing.min(input.len()));
            self.part.extend_from_slice(now);
            *input = later;
            if self.part.len() < wanted {
                return Ok(None);
            }
            if let Some(item) = self.whole()? {
                return Ok(Some(item));
            }
        }
    }

    /// No more comes: was that all of it?
    pub fn finish(&self) -> Result<(), Damage> {
        match self.expected {
            Expected::Nothing => Ok(()),
            Expected::HeaderLength => Err(Damage::NotAStream),
            _ => Err(Damage::Truncated),
        }
    }

    /// Goes on writing after the last whole record, at [`Totals::written`] of what is there. None
    /// without a whole header.
    pub fn into_encoder(self) -> Option<Encoder> {
        self.done
    }

    /// What is expected has come whole, in `part`.
    fn whole(&mut self) -> Result<Option<Item>, Damage> {
        match self.expected {
            Expected::HeaderLength => {
                self.expected = Expected::Header(header_length(&self.part)?);
                Ok(None)
            }
            Expected::Header(_) => {
                let header = Header::decode(&self.part)?;
                self.part.clear();
                self.done = Some(Encoder::new(&header).0);
                self.expected = Expected::Head;
                Ok(Some(Item::Header(header)))
            }
            Expected::Head => self.whole_head(),
            Expected::Payload(head) => self.whole_payload(head),
            Expected::Nothing => Ok(None),
        }
    }

    fn whole_head(&mut self) -> Result<Option<Item>, Damage> {
        let done = self.done.as_ref().ok_or(Damage::NotAStream)?;
        self.head.copy_from_slice(&self.part);
        self.part.clear();
        let (head, chain) = Head::decode(&self.head, done.chain)?;
        check(&head, done)?;
        self.next_chain = chain;
        self.expected = Expected::Payload(head);
        match head.kind {
            Kind::Zeros => self.whole_payload(head),
            Kind::Data | Kind::End => Ok(None),
        }
    }

    fn whole_payload(&mut self, head: Head) -> Result<Option<Item>, Damage> {
        let done = self.done.as_mut().ok_or(Damage::NotAStream)?;
        let payload = std::mem::take(&mut self.part);
        if head.payload > 0 && crc32c(&payload) != head.payload_crc {
            return Err(Damage::Broken(
                "the checksum of a record's content is wrong",
            ));
        }
        if head.kind == Kind::End {
            let digest: [u8; DIGEST] = done.hash.clone().finalize().into();
            if payload != digest {
                return Err(Damage::Broken("the checksum of all of it is wrong"));
            }
            self.expected = Expected::Nothing;
            let mut totals = done.totals;
            totals.written += (HEAD + DIGEST) as u64;
            return Ok(Some(Item::End(totals)));
        }
        done.chain = self.next_chain;
        done.at = head.offset + head.length;
        done.totals.records += 1;
        done.totals.data += head.payload as u64;
        done.totals.written += (HEAD + payload.len()) as u64;
        Sha256::update(&mut done.hash, self.head);
        Sha256::update(&mut done.hash, &payload);
        self.expected = Expected::Head;
        Ok(Some(match head.kind {
            Kind::Zeros => Item::Zeros {
                offset: head.offset,
                length: head.length,
            },
            Kind::Data | Kind::End => Item::Data {
                offset: head.offset,
                bytes: payload,
            },
        }))
    }
}

/// Refuses what may not come here, before memory is taken for it.
fn check(head: &Head, done: &Encoder) -> Result<(), Damage> {
    if head.kind == Kind::End {
        let totals = &done.totals;
        let right =
            head.payload == DIGEST && head.offset == totals.records && head.length == totals.data;
        return right
            .then_some(())
            .ok_or(Damage::Broken("its end tells of other records"));
    }
    let end = head.offset.checked_add(head.length);
    let in_order = head.offset >= done.at && end.is_some_and(|end| end <= done.size);
    let aligned =
        head.offset.is_multiple_of(UNIT) && head.length.is_multiple_of(UNIT) && head.length > 0;
    let fits = match head.kind {
        Kind::Zeros => done.incremental && head.payload == 0 && head.payload_crc == 0,
        Kind::Data | Kind::End => head.payload <= MAX_PAYLOAD && head.payload as u64 == head.length,
    };
    (in_order && aligned && fits)
        .then_some(())
        .ok_or(Damage::Broken("a record that the format does not allow"))
}
