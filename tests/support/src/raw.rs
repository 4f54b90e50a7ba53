//! A bare iSCSI initiator over a socket of the standard library: for tests that need many sessions, or ones that break
//! rules. Written from RFC 7143; it shares nothing with the product.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::process::PATIENCE;

/// Bytes of a logical block.
pub const SECTOR: usize = 512;
/// Length of a PDU's header.
pub const BHS: usize = 48;
/// No tag.
const RESERVED: u32 = 0xffff_ffff;

/// The header of a PDU: opcode, flags, DataSegmentLength and Initiator Task Tag; all else zero.
pub fn header(opcode: u8, flags: u8, data_length: usize, tag: u32) -> [u8; BHS] {
    let mut bhs = [0; BHS];
    bhs[0] = opcode;
    bhs[1] = flags;
    bhs[4..8].copy_from_slice(
        &u32::try_from(data_length)
            .expect("short data")
            .to_be_bytes(),
    );
    bhs[16..20].copy_from_slice(&tag.to_be_bytes());
    bhs
}

/// Header and padded data.
pub fn pdu(bhs: &[u8; BHS], data: &[u8]) -> Vec<u8> {
    let mut bytes = bhs.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(BHS + data.len().next_multiple_of(4), 0);
    bytes
}

/// A login request (§11.12) that goes straight to full feature phase, for `number`'s session with the target.
pub fn login_request(target: &str, number: u32) -> Vec<u8> {
    let text = format!(
        "InitiatorName=iqn.2026-11.test:raw-{number}\0TargetName={target}\0SessionType=Normal\0\
         InitialR2T=No\0ImmediateData=Yes\0MaxRecvDataSegmentLength=262144\0\
         FirstBurstLength=262144\0"
    );
    // Immediate; T, operational negotiation to full feature phase.
    let mut bhs = header(0x43, 0x87, text.len(), 0);
    // A random-format ISID (§11.12.5).
    bhs[8] = 0x80;
    pdu(&bhs, text.as_bytes())
}

/// A SCSI command (§11.3). READ and WRITE carry this many bytes; `data` comes with the command.
pub fn command(
    cmd_sn: u32,
    tag: u32,
    cdb: &[u8; 16],
    flags: u8,
    bytes: u32,
    data: &[u8],
) -> Vec<u8> {
    let mut bhs = header(0x01, 0x81 | flags, data.len(), tag);
    bhs[20..24].copy_from_slice(&bytes.to_be_bytes());
    bhs[24..28].copy_from_slice(&cmd_sn.to_be_bytes());
    bhs[32..].copy_from_slice(cdb);
    pdu(&bhs, data)
}

/// R and W of a SCSI command's flags.
pub const READS: u8 = 0x40;
pub const WRITES: u8 = 0x20;

/// READ (16) and WRITE (16).
pub fn transfer(opcode: u8, lba: u64, sectors: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&sectors.to_be_bytes());
    cdb
}

/// A session.
pub struct RawSession {
    pub stream: TcpStream,
    pub cmd_sn: u32,
    tag: u32,
}

impl RawSession {
    /// Logs in.
    ///
    /// # Errors
    /// When the connection ends, or the login is refused.
    pub fn login(portal: SocketAddr, target: &str, number: u32) -> io::Result<RawSession> {
        let stream = TcpStream::connect(portal)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut session = RawSession {
            stream,
            cmd_sn: 0,
            tag: 0,
        };
        session.stream.write_all(&login_request(target, number))?;
        let (bhs, _) = session.receive()?;
        if bhs[0] != 0x23 || bhs[36..38] != [0, 0] {
            return Err(io::Error::other(format!("login refused: {bhs:02x?}")));
        }
        Ok(session)
    }

    /// Cuts one PDU from the stream.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn receive(&mut self) -> io::Result<([u8; BHS], Vec<u8>)> {
        let mut bhs = [0; BHS];
        self.stream.read_exact(&mut bhs)?;
        let length = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data)?;
        data.truncate(length);
        Ok((bhs, data))
    }

    /// Runs a command with immediate data; its status, and the data that it returned.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn run(&mut self, cdb: &[u8; 16], takes: u32, data: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        self.tag += 1;
        let (flags, bytes) = match (takes, data.len()) {
            (0, 0) => (0, 0),
            (0, length) => (WRITES, u32::try_from(length).expect("short data")),
            (takes, _) => (READS, takes),
        };
        let request = command(self.cmd_sn, self.tag, cdb, flags, bytes, data);
        self.cmd_sn = self.cmd_sn.wrapping_add(1);
        self.stream.write_all(&request)?;
        let mut returned = Vec::new();
        loop {
            let (bhs, data) = self.receive()?;
            match bhs[0] {
                0x20 => self.answer_ping(&bhs)?,
                0x25 => {
                    returned.extend_from_slice(&data);
                    // S: the status is here.
                    if bhs[1] & 1 != 0 {
                        return Ok((bhs[3], returned));
                    }
                }
                0x21 => return Ok((bhs[3], returned)),
                other => return Err(io::Error::other(format!("unexpected opcode {other:#x}"))),
            }
        }
    }

    /// Writes whole sectors, at most what fits into a command's PDU.
    ///
    /// # Errors
    /// When the connection ends, or the command does not end with GOOD.
    pub fn write(&mut self, lba: u64, data: &[u8]) -> io::Result<()> {
        let sectors = u32::try_from(data.len() / SECTOR).expect("short data");
        self.good(&transfer(0x8a, lba, sectors), 0, data).map(drop)
    }

    /// SYNCHRONIZE CACHE (10) of the whole unit.
    ///
    /// # Errors
    /// As for [`RawSession::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        let mut cdb = [0; 16];
        cdb[0] = 0x35;
        self.good(&cdb, 0, &[]).map(drop)
    }

    /// Reads whole sectors.
    ///
    /// # Errors
    /// As for [`RawSession::write`].
    pub fn read(&mut self, lba: u64, sectors: u32) -> io::Result<Vec<u8>> {
        let bytes = sectors * u32::try_from(SECTOR).expect("small");
        self.good(&transfer(0x88, lba, sectors), bytes, &[])
    }

    /// A command that has to end with GOOD, after the unit attention of a new session.
    fn good(&mut self, cdb: &[u8; 16], takes: u32, data: &[u8]) -> io::Result<Vec<u8>> {
        let (mut status, mut returned) = self.run(cdb, takes, data)?;
        if status == 2 {
            (status, returned) = self.run(cdb, takes, data)?;
        }
        match status {
            0 => Ok(returned),
            other => Err(io::Error::other(format!(
                "status {other:#x} for {cdb:02x?}"
            ))),
        }
    }

    /// Does nothing for so long but answer pings; gives their number.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn idle(&mut self, time: Duration) -> io::Result<usize> {
        let end = Instant::now() + time;
        let mut pings = 0;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(pings);
            }
            self.stream.set_read_timeout(Some(left))?;
            let waited = self.stream.peek(&mut [0]);
            self.stream.set_read_timeout(Some(PATIENCE))?;
            match waited {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            }
            let (bhs, _) = self.receive()?;
            if bhs[0] == 0x20 {
                self.answer_ping(&bhs)?;
                pings += 1;
            }
        }
    }

    /// Answers a NOP-In (§11.19) that wants it.
    fn answer_ping(&mut self, ping: &[u8; BHS]) -> io::Result<()> {
        if ping[20..24] == RESERVED.to_be_bytes() {
            return Ok(());
        }
        let mut bhs = header(0x40, 0x80, 0, RESERVED);
        bhs[20..24].copy_from_slice(&ping[20..24]);
        bhs[24..28].copy_from_slice(&self.cmd_sn.to_be_bytes());
        self.stream.write_all(&bhs)
    }
}
