//! Commands to a logical unit number that has no logical unit (SPC-4 6.6.2, 6.33, 6.39; SAM-5 5.11): discovery
//! is answered, everything else is refused.

use super::command::Command;
use super::lun::Lun;
use super::sense::{Sense, SenseFormat};
use super::volume::Response;
use super::{inquiry, report};

/// Answers a command whose LUN field addresses nothing in `luns`, or the REPORT LUNS well known logical unit.
/// Sense data of the response are sent in fixed format.
pub fn start_absent(command: &Command, luns: &[Lun]) -> Response {
    match *command {
        Command::Inquiry {
            page: None,
            allocation,
        } => Response::data(inquiry::absent(), allocation),
        Command::Inquiry {
            page: Some(page),
            allocation,
        } => {
            // The page with the qualifier and no content: enough to learn that nothing is here.
            Response::data(vec![inquiry::NO_LOGICAL_UNIT, page, 0, 0], allocation)
        }
        Command::ReportLuns { select, allocation } => {
            Response::data(report::luns(select, luns), allocation)
        }
        Command::RequestSense {
            descriptor,
            allocation,
        } => {
            let format = if descriptor {
                SenseFormat::Descriptor
            } else {
                SenseFormat::Fixed
            };
            Response::data(
                Sense::LUN_NOT_SUPPORTED.encode(format).as_slice().to_vec(),
                allocation,
            )
        }
        _ => Sense::LUN_NOT_SUPPORTED.into(),
    }
}
