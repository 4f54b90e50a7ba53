//! The wire types under any 48 bytes: what was decoded and encoded again decodes to the same.
use std::fmt::Debug;

use atoll_targets::iscsi::limits::{BHS_LENGTH, MAX_CDB_LENGTH};
use atoll_targets::iscsi::pdu::{
    AsyncMessage, Bhs, DataIn, DataOut, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse,
    NopIn, NopOut, R2t, Reject, ScsiCommand, ScsiResponse, SnackRequest, TaskManagementRequest,
    TaskManagementResponse, TextRequest, TextResponse, parse_ahs,
};

fn comes_back<T: Debug + PartialEq>(bhs: &Bhs, decode: fn(&Bhs) -> T, encode: fn(&T) -> Bhs) {
    let value = decode(bhs);
    assert_eq!(decode(&encode(&value)), value);
}

macro_rules! all {
    ($bhs:expr, $($type:ty),* $(,)?) => {
        $(comes_back($bhs, <$type>::decode, <$type>::encode);)*
    };
}

/// One header as each type, whatever its opcode; what follows as additional header segments.
pub fn headers(input: &[u8]) {
    let mut header = [0; BHS_LENGTH];
    let length = input.len().min(BHS_LENGTH);
    header[..length].copy_from_slice(&input[..length]);
    all!(
        &Bhs(header),
        AsyncMessage,
        DataIn,
        DataOut,
        LoginRequest,
        LoginResponse,
        LogoutRequest,
        LogoutResponse,
        NopIn,
        NopOut,
        R2t,
        Reject,
        ScsiCommand,
        ScsiResponse,
        SnackRequest,
        TaskManagementRequest,
        TaskManagementResponse,
        TextRequest,
        TextResponse,
    );
    if let Ok(ahs) = parse_ahs(&input[length..]) {
        let extended = ahs.extended_cdb.map_or(0, |cdb| cdb.len());
        assert!(16 + extended <= MAX_CDB_LENGTH);
    }
}
