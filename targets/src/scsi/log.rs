//! LOG SENSE: the supported pages, and Logical Block Provisioning where the pool's space is known (SPC-4 6.8, 7.3;
//! SBC-3 6.3.4). There are no counters of errors: what would be counted is the pool's, and no unit's alone.

use super::config::LuConfig;
use super::sense::Sense;
use super::units::{ByteCount, saturate32};
use super::volume::{Action, LogRoom, Response, VolumeOp};

const SUPPORTED_PAGES: u8 = 0x00;
const PROVISIONING: u8 = 0x0C;
/// "All subpages" of the supported pages: page codes with subpage codes.
const ALL_SUBPAGES: u8 = 0xFF;
/// DS: parameters are not saved. SPF: a subpage code follows.
const DS: u8 = 0x80;
const SPF: u8 = 0x40;

/// AVAILABLE and USED LBA MAPPING RESOURCE COUNT.
const AVAILABLE: u16 = 0x0001;
const USED: u16 = 0x0002;
/// FORMAT AND LINKING 11b: a binary value in a list.
const BINARY_LIST: u8 = 0x03;
/// PARAMETER LENGTH of a resource count.
const RESOURCE_LENGTH: u8 = 8;
/// SCOPE 10b: the resources may not all be for this unit alone, as those of a pool are not.
const SCOPE_SHARED: u8 = 0x02;

/// Answers from what is known here, or asks the volume.
///
/// Errors: INVALID FIELD IN CDB for a page or subpage that is not supported, and for a parameter pointer beyond the
/// page's last parameter.
pub(super) fn sense(
    config: &LuConfig,
    page: u8,
    subpage: u8,
    pointer: u16,
    allocation: u32,
) -> Result<Action, Sense> {
    let pages: &[u8] = match config.threshold {
        Some(_) => &[SUPPORTED_PAGES, PROVISIONING],
        None => &[SUPPORTED_PAGES],
    };
    let (data, last) = match (page, subpage, config.threshold) {
        (SUPPORTED_PAGES, 0, _) => (log_page(SUPPORTED_PAGES, 0, pages), 0),
        (SUPPORTED_PAGES, ALL_SUBPAGES, _) => {
            let mut codes = vec![SUPPORTED_PAGES, 0, SUPPORTED_PAGES, ALL_SUBPAGES];
            codes.extend(pages[1..].iter().flat_map(|code| [*code, 0]));
            (log_page(SUPPORTED_PAGES | SPF, ALL_SUBPAGES, &codes), 0)
        }
        (PROVISIONING, 0, Some(threshold)) if pointer <= USED => {
            return Ok(Action::Volume(VolumeOp::LogRoom(LogRoom {
                threshold,
                block_size: config.block_size,
                pointer,
                allocation,
            })));
        }
        (PROVISIONING, 0, Some(_)) => (Vec::new(), USED),
        _ if page == SUPPORTED_PAGES || pages.contains(&page) => {
            return Err(Sense::invalid_cdb_field(3, None));
        }
        _ => return Err(Sense::invalid_cdb_field(2, Some(5))),
    };
    if pointer > last {
        return Err(Sense::invalid_cdb_field(5, None));
    }
    Ok(Action::Done(Response::data(data, allocation)))
}

/// The Logical Block Provisioning page, not yet cut to the allocation length.
pub(super) fn provisioning(request: &LogRoom, total: ByteCount, available: ByteCount) -> Vec<u8> {
    let used = ByteCount(total.0.saturating_sub(available.0));
    let mut parameters = Vec::new();
    for (code, bytes) in [(AVAILABLE, available), (USED, used)] {
        if code < request.pointer {
            continue;
        }
        let count = saturate32(request.threshold.sets(request.block_size, bytes));
        parameters.extend_from_slice(&code.to_be_bytes());
        parameters.extend_from_slice(&[BINARY_LIST, RESOURCE_LENGTH]);
        parameters.extend_from_slice(&count.to_be_bytes());
        parameters.extend_from_slice(&[SCOPE_SHARED, 0, 0, 0]);
    }
    log_page(PROVISIONING | DS, 0, &parameters)
}

fn log_page(code: u8, subpage: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    let mut page = vec![code, subpage, high, low];
    page.extend_from_slice(content);
    page
}
