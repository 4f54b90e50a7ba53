//! The PDUs of RFC 7143 §11: one file per type, encode beside decode. A type here is the 48-byte Basic
//! Header Segment only; data segments, digests and the decision what is allowed are the connection's.
mod async_message;
mod bhs;
mod data_in;
mod data_out;
mod login_request;
mod login_response;
mod logout_request;
mod logout_response;
mod nop_in;
mod nop_out;
mod r2t;
mod reject;
mod scsi_command;
mod scsi_response;
mod snack_request;
mod task_management_request;
mod task_management_response;
mod text_request;
mod text_response;

pub use async_message::{AsyncEvent, AsyncMessage};
pub use bhs::{Bhs, InitiatorTaskTag, Lun, Opcode, SequenceNumbers, TargetTransferTag};
pub use data_in::DataIn;
pub use data_out::DataOut;
pub use login_request::{Cid, Isid, LoginRequest, Stage, Tsih};
pub use login_response::LoginResponse;
pub use logout_request::{LogoutReason, LogoutRequest};
pub use logout_response::{LogoutResponse, LogoutResponseCode};
pub use nop_in::NopIn;
pub use nop_out::NopOut;
pub use r2t::R2t;
pub use reject::{Reject, RejectReason};
pub use scsi_command::{Ahs, AhsError, ScsiCommand, TaskAttribute, parse_ahs};
pub use scsi_response::{Residual, ScsiResponse, ServiceResponse};
pub use snack_request::SnackRequest;
pub use task_management_request::{TaskManagementFunction, TaskManagementRequest};
pub use task_management_response::{TaskManagementResponse, TaskManagementResponseCode};
pub use text_request::TextRequest;
pub use text_response::TextResponse;

#[cfg(test)]
pub(crate) mod golden {
    //! Loader of `tests/vectors/iscsi/*.hex`: `#` starts a comment, the rest is hexadecimal.

    /// The bytes of a vector file.
    pub fn bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .lines()
            .flat_map(|line| line.split('#').next().unwrap_or("").bytes())
            .filter(u8::is_ascii_hexdigit)
            .collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// Asserts that the golden header decodes to the value and the value encodes to the golden header.
    macro_rules! golden {
        ($name:ident, $file:literal, $type:ty, $value:expr) => {
            #[test]
            fn $name() {
                let text = include_str!(concat!("../../../../tests/vectors/iscsi/", $file, ".hex"));
                let bytes = crate::iscsi::pdu::golden::bytes(text);
                let header: [u8; 48] = bytes[..48].try_into().unwrap();
                let bhs = crate::iscsi::pdu::Bhs(header);
                let value: $type = $value;
                assert_eq!(<$type>::decode(&bhs), value);
                assert_eq!(
                    value.encode().0,
                    header,
                    "encoded {:02x?}",
                    value.encode().0
                );
            }
        };
    }
    pub(crate) use golden;
}
