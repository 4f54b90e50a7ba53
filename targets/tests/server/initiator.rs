//! An initiator on the simulated network, written from the standard: logs in, has any number of commands outstanding,
//! answers R2Ts. It shares only the wire types with the server.

use atoll_reactor::net::TcpStream;
use atoll_reactor::{Buf, SharedBuf};
use atoll_targets::iscsi::pdu::*;
use atoll_targets::iscsi::serial::{CmdSn, DataSn, StatSn};
use std::collections::BTreeMap;
use std::net::SocketAddr;

pub const BLOCK: usize = 512;
/// Longest data segment in either direction.
const SEGMENT: usize = 256 << 10;
/// FirstBurstLength without negotiation.
const FIRST_BURST: usize = 64 << 10;

/// How a command ended.
#[derive(Debug, Default, Clone)]
pub struct Done {
    pub status: u8,
    /// Key, ASC, ASCQ.
    pub sense: Option<(u8, u8, u8)>,
    /// INFORMATION, where it is valid.
    pub information: Option<u32>,
    pub data: Vec<u8>,
}

impl Done {
    #[track_caller]
    pub fn good(self) -> Vec<u8> {
        assert_eq!((self.status, self.sense), (0, None));
        self.data
    }

    #[track_caller]
    pub fn check(self, key: u8, asc: u8, ascq: u8) {
        assert_eq!((self.status, self.sense), (2, Some((key, asc, ascq))));
    }
}

#[derive(Default)]
struct Pending {
    data_out: Vec<u8>,
    data_in: Vec<u8>,
    done: Option<Done>,
}

/// Something that came without being asked for, or to another request than a command.
pub enum Other {
    Async(AsyncMessage),
    Management(TaskManagementResponse),
    Logout,
    Text(Vec<u8>),
    Echo(InitiatorTaskTag, Vec<u8>),
    Reject,
}

pub struct Initiator {
    pub stream: TcpStream,
    pub tsih: u16,
    /// Send data with the command.
    pub immediate: bool,
    /// Answer the target's pings.
    pub answer_pings: bool,
    /// What the login asks for; none for a new session.
    pub asked_tsih: Tsih,
    cmd_sn: CmdSn,
    tag: u32,
    received: Vec<u8>,
    pending: BTreeMap<u32, Pending>,
    pub others: Vec<Other>,
}

/// The connection has ended.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Ended;

/// Who logs in: name and last byte of the ISID.
#[derive(Clone, Copy)]
pub struct Port(pub &'static str, pub u8);

impl Initiator {
    pub async fn connect(to: SocketAddr) -> Initiator {
        Initiator {
            stream: TcpStream::connect(to).await.expect("the server listens"),
            tsih: 0,
            immediate: true,
            answer_pings: true,
            asked_tsih: Tsih::NONE,
            cmd_sn: CmdSn(0xffff_fffa),
            tag: 0,
            received: Vec::new(),
            pending: BTreeMap::new(),
            others: Vec::new(),
        }
    }

    /// A session with a target, or for discovery; the login status when it is refused.
    pub async fn login(
        to: SocketAddr,
        port: Port,
        target: Option<&str>,
    ) -> Result<Initiator, [u8; 2]> {
        Initiator::connect(to).await.log_in(port, target).await
    }

    /// Logs a connection in, to a target or for discovery.
    pub async fn log_in(mut self, port: Port, target: Option<&str>) -> Result<Initiator, [u8; 2]> {
        let session = match target {
            Some(target) => format!("SessionType=Normal\0TargetName={target}\0"),
            None => "SessionType=Discovery\0".into(),
        };
        let text = format!(
            "InitiatorName=iqn.2026-11.test:{}\0{session}MaxRecvDataSegmentLength={SEGMENT}\0",
            port.0
        );
        self.login_with(port, &text).await.map(|()| self)
    }

    async fn login_with(&mut self, port: Port, text: &str) -> Result<(), [u8; 2]> {
        let request = LoginRequest {
            immediate: true,
            transit: true,
            is_continued: false,
            current_stage: Stage::OperationalNegotiation,
            next_stage: Stage::FullFeaturePhase,
            version_max: 0,
            version_min: 0,
            isid: Isid([0x80, 0, 0, 0, 0, port.1]),
            tsih: self.asked_tsih,
            initiator_task_tag: InitiatorTaskTag(0),
            cid: Cid(0),
            cmd_sn: self.cmd_sn,
            exp_stat_sn: StatSn(0),
            data_segment_length: text.len() as u32,
        };
        let bytes = pdu(&request.encode(), text.as_bytes());
        self.send(bytes).await.map_err(|Ended| [0xff, 0xff])?;
        let (bhs, _) = self.receive().await.map_err(|Ended| [0xff, 0xff])?;
        assert_eq!(bhs.opcode(), Opcode::LoginResponse);
        let response = LoginResponse::decode(&bhs);
        self.tsih = response.tsih.0;
        if response.status == [0, 0] {
            Ok(())
        } else {
            Err(response.status)
        }
    }

    /// Past the unit attention of a new session.
    pub async fn ready(mut self) -> Initiator {
        self.test_unit_ready().await.check(6, 0x29, 0x00);
        self.test_unit_ready().await.good();
        self
    }

    pub async fn send(&self, bytes: Vec<u8>) -> Result<(), Ended> {
        let sent = self.stream.send_all(vec![SharedBuf::from(bytes)]).await;
        sent.map_err(|_| Ended)
    }

    /// Cuts one PDU from the stream.
    pub async fn receive(&mut self) -> Result<(Bhs, Vec<u8>), Ended> {
        loop {
            if let Some(header) = self.received.get(..48) {
                let bhs = Bhs(header.try_into().expect("48 bytes"));
                let length = bhs.data_segment_length() as usize;
                let end = 48 + length.next_multiple_of(4);
                if self.received.len() >= end {
                    let data = self.received[48..48 + length].to_vec();
                    self.received.drain(..end);
                    return Ok((bhs, data));
                }
            }
            let (count, buffer) = self.stream.recv(Buf::alloc(64 << 10)).await;
            match count {
                Ok(count) if count > 0 => self.received.extend_from_slice(&buffer[..count]),
                _ => return Err(Ended),
            }
        }
    }

    fn next_tag(&mut self) -> InitiatorTaskTag {
        self.tag += 1;
        InitiatorTaskTag(self.tag)
    }

    fn next_cmd_sn(&mut self) -> CmdSn {
        let cmd_sn = self.cmd_sn;
        self.cmd_sn = cmd_sn.next();
        cmd_sn
    }

    /// Sends a command; `take` is what it expects to get.
    pub async fn submit(
        &mut self,
        cdb: [u8; 16],
        data_out: Vec<u8>,
        take: usize,
    ) -> Result<u32, Ended> {
        let write = !data_out.is_empty();
        let tag = self.next_tag();
        let immediate = match self.immediate {
            true => data_out.len().min(FIRST_BURST),
            false => 0,
        };
        let command = ScsiCommand {
            immediate: false,
            is_final: true,
            read: !write && take > 0,
            write,
            attribute: TaskAttribute::Simple,
            ahs_length: 0,
            lun: Lun([0; 8]),
            initiator_task_tag: tag,
            expected_data_transfer_length: data_out.len().max(take) as u32,
            cmd_sn: self.next_cmd_sn(),
            exp_stat_sn: StatSn(0),
            cdb,
            data_segment_length: immediate as u32,
        };
        let bytes = pdu(&command.encode(), &data_out[..immediate]);
        let pending = Pending {
            data_out,
            ..Pending::default()
        };
        self.pending.insert(tag.0, pending);
        self.send(bytes).await.map(|()| tag.0)
    }

    /// Takes what comes until the command has ended.
    pub async fn finish(&mut self, tag: u32) -> Result<Done, Ended> {
        loop {
            if self.pending[&tag].done.is_some() {
                let pending = self.pending.remove(&tag).expect("looked at");
                return Ok(pending.done.expect("looked at"));
            }
            self.step().await?;
        }
    }

    /// Whether the command has not been answered.
    pub fn is_pending(&self, tag: u32) -> bool {
        self.pending.get(&tag).is_some_and(|p| p.done.is_none())
    }

    /// Takes one PDU.
    pub async fn step(&mut self) -> Result<(), Ended> {
        let (bhs, data) = self.receive().await?;
        match bhs.opcode() {
            Opcode::DataIn => {
                let pdu = DataIn::decode(&bhs);
                let pending = self.pending(pdu.initiator_task_tag);
                assert_eq!(pdu.buffer_offset as usize, pending.data_in.len());
                pending.data_in.extend_from_slice(&data);
                if let Some((status, _)) = pdu.status {
                    let data = std::mem::take(&mut pending.data_in);
                    pending.done = Some(Done {
                        status,
                        data,
                        ..Done::default()
                    });
                }
            }
            Opcode::ScsiResponse => {
                let pdu = ScsiResponse::decode(&bhs);
                let pending = self.pending(pdu.initiator_task_tag);
                let sense = data.get(2..).filter(|sense| sense.len() >= 14);
                pending.done = Some(Done {
                    status: pdu.status,
                    sense: sense.map(|sense| (sense[2] & 15, sense[12], sense[13])),
                    information: sense
                        .filter(|sense| sense[0] & 0x80 != 0)
                        .map(|sense| u32::from_be_bytes([sense[3], sense[4], sense[5], sense[6]])),
                    data: std::mem::take(&mut pending.data_in),
                });
            }
            Opcode::R2t => self.answer_r2t(&R2t::decode(&bhs)).await?,
            Opcode::NopIn => {
                let nop = NopIn::decode(&bhs);
                match nop.initiator_task_tag {
                    InitiatorTaskTag::RESERVED => self.answer_ping(&nop).await?,
                    tag => self.others.push(Other::Echo(tag, data)),
                }
            }
            Opcode::AsyncMessage => self.others.push(Other::Async(AsyncMessage::decode(&bhs))),
            Opcode::TaskManagementResponse => {
                let response = TaskManagementResponse::decode(&bhs);
                self.others.push(Other::Management(response));
            }
            Opcode::LogoutResponse => self.others.push(Other::Logout),
            Opcode::TextResponse => self.others.push(Other::Text(data)),
            Opcode::Reject => self.others.push(Other::Reject),
            other => panic!("unexpected {other:?}"),
        }
        Ok(())
    }

    fn pending(&mut self, tag: InitiatorTaskTag) -> &mut Pending {
        self.pending.get_mut(&tag.0).expect("a command of ours")
    }

    async fn answer_r2t(&mut self, r2t: &R2t) -> Result<(), Ended> {
        let pending = self.pending(r2t.initiator_task_tag);
        let start = r2t.buffer_offset as usize;
        let end = start + r2t.desired_data_transfer_length as usize;
        let part = pending.data_out[start..end].to_vec();
        let mut bytes = Vec::new();
        for (number, segment) in part.chunks(SEGMENT).enumerate() {
            let at = number * SEGMENT;
            let data_out = DataOut {
                is_final: at + segment.len() == part.len(),
                lun: r2t.lun,
                initiator_task_tag: r2t.initiator_task_tag,
                target_transfer_tag: r2t.target_transfer_tag,
                exp_stat_sn: StatSn(0),
                data_sn: DataSn(number as u32),
                buffer_offset: (start + at) as u32,
                data_segment_length: segment.len() as u32,
            };
            bytes.extend(pdu(&data_out.encode(), segment));
        }
        self.send(bytes).await
    }

    async fn answer_ping(&mut self, ping: &NopIn) -> Result<(), Ended> {
        if ping.target_transfer_tag == TargetTransferTag::RESERVED || !self.answer_pings {
            return Ok(());
        }
        let answer = NopOut {
            immediate: true,
            lun: ping.lun,
            initiator_task_tag: InitiatorTaskTag::RESERVED,
            target_transfer_tag: ping.target_transfer_tag,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: StatSn(0),
            data_segment_length: 0,
        };
        self.send(pdu(&answer.encode(), &[])).await
    }

    pub async fn run(&mut self, cdb: [u8; 16], out: Vec<u8>, take: usize) -> Result<Done, Ended> {
        let tag = self.submit(cdb, out, take).await?;
        self.finish(tag).await
    }

    pub async fn test_unit_ready(&mut self) -> Done {
        self.run([0; 16], Vec::new(), 0).await.expect("connected")
    }

    pub async fn write(&mut self, lba: u32, data: Vec<u8>) -> Result<Done, Ended> {
        let cdb = transfer(0x8a, lba, data.len() / BLOCK);
        self.run(cdb, data, 0).await
    }

    pub async fn read(&mut self, lba: u32, blocks: usize) -> Result<Done, Ended> {
        let cdb = transfer(0x88, lba, blocks);
        self.run(cdb, Vec::new(), blocks * BLOCK).await
    }

    pub async fn manage(
        &mut self,
        function: TaskManagementFunction,
        task: u32,
    ) -> Result<TaskManagementResponseCode, Ended> {
        let tag = self.next_tag();
        let request = TaskManagementRequest {
            immediate: true,
            function,
            lun: Lun([0; 8]),
            initiator_task_tag: tag,
            referenced_task_tag: InitiatorTaskTag(task),
            cmd_sn: self.cmd_sn,
            exp_stat_sn: StatSn(0),
            ref_cmd_sn: self.cmd_sn,
            exp_data_sn: DataSn(0),
        };
        self.send(pdu(&request.encode(), &[])).await?;
        loop {
            for other in &self.others {
                match other {
                    Other::Management(response) if response.initiator_task_tag == tag => {
                        return Ok(response.response);
                    }
                    _ => {}
                }
            }
            self.step().await?;
        }
    }

    pub async fn logout(&mut self) -> Result<(), Ended> {
        let request = LogoutRequest {
            immediate: true,
            reason: LogoutReason::CloseSession,
            initiator_task_tag: self.next_tag(),
            cid: Cid(0),
            cmd_sn: self.cmd_sn,
            exp_stat_sn: StatSn(0),
        };
        self.send(pdu(&request.encode(), &[])).await?;
        loop {
            if self.others.iter().any(|o| matches!(o, Other::Logout)) {
                return Ok(());
            }
            self.step().await?;
        }
    }

    /// The answer to SendTargets=All.
    pub async fn discover(&mut self) -> String {
        let text = b"SendTargets=All\0";
        let request = TextRequest {
            immediate: true,
            is_final: true,
            is_continued: false,
            lun: Lun([0; 8]),
            initiator_task_tag: self.next_tag(),
            target_transfer_tag: TargetTransferTag::RESERVED,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: StatSn(0),
            data_segment_length: text.len() as u32,
        };
        self.send(pdu(&request.encode(), text))
            .await
            .expect("connected");
        loop {
            if let Some(Other::Text(data)) = self.others.last() {
                return String::from_utf8(data.clone()).expect("text");
            }
            self.step().await.expect("connected");
        }
    }

    /// Pings the target and gives what it echoes.
    pub async fn ping(&mut self, data: &[u8]) -> Result<Vec<u8>, Ended> {
        let tag = self.next_tag();
        let request = NopOut {
            immediate: true,
            lun: Lun([0; 8]),
            initiator_task_tag: tag,
            target_transfer_tag: TargetTransferTag::RESERVED,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: StatSn(0),
            data_segment_length: data.len() as u32,
        };
        self.send(pdu(&request.encode(), data)).await?;
        loop {
            let echoed = self.others.iter().find_map(|other| match other {
                Other::Echo(of, data) if *of == tag => Some(data.clone()),
                _ => None,
            });
            if let Some(data) = echoed {
                return Ok(data);
            }
            self.step().await?;
        }
    }

    /// Whether the target has asked for a logout.
    pub fn asked_to_log_out(&self) -> bool {
        let asks = |other: &Other| matches!(other, Other::Async(m) if m.event == AsyncEvent::LogoutRequest);
        self.others.iter().any(asks)
    }

    /// Takes what comes until the connection ends.
    pub async fn until_end(&mut self) {
        while self.step().await.is_ok() {}
    }
}

/// READ(16) or WRITE(16).
pub fn transfer(opcode: u8, lba: u32, blocks: usize) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[6..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&(blocks as u32).to_be_bytes());
    cdb
}

/// Header and padded data.
pub fn pdu(bhs: &Bhs, data: &[u8]) -> Vec<u8> {
    let mut bytes = bhs.0.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(48 + data.len().next_multiple_of(4), 0);
    bytes
}

/// Bytes that differ by seed and place.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = vec![0; length];
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    bytes
}
