//! Mode parameters: the pages caching (08h), control (0Ah) and informational exceptions (1Ch), and where there is a
//! threshold read-write error recovery (01h) and logical block provisioning (1Ch/02h); MODE SENSE and MODE SELECT (SPC-4
//! 6.9-6.12, 7.5; SBC-3 6.5). Only D_SENSE can be changed. Holds no state itself.

use super::command::{ModeForm, ModeSense, PageControl};
use super::config::{LuConfig, Threshold};
use super::sense::Sense;
use super::units::{Blocks, be, saturate32};

/// A page code, and a subpage code, 0 for pages that have none.
type Code = (u8, u8);

const ERROR_RECOVERY: Code = (0x01, 0);
const CACHING: Code = (0x08, 0);
const CONTROL: Code = (0x0A, 0);
const EXCEPTIONS: Code = (0x1C, 0);
const PROVISIONING: Code = (0x1C, 0x02);
/// "All pages" and "all subpages".
const ALL_PAGES: u8 = 0x3F;
const ALL_SUBPAGES: u8 = 0xFF;
/// All pages, ascending, as MODE SENSE returns them. Some are there only with a threshold.
const PAGES: [Code; 5] = [ERROR_RECOVERY, CACHING, CONTROL, EXCEPTIONS, PROVISIONING];

/// DEVICE-SPECIFIC PARAMETER of block devices: WP and DPOFUA (SBC-3 table 152).
const WP: u8 = 0x80;
const DPOFUA: u8 = 0x10;
const WCE: u8 = 0x04;
const D_SENSE: u8 = 0x04;
/// GLTSD: no log parameters are saved.
const GLTSD: u8 = 0x02;
/// QUEUE ALGORITHM MODIFIER: unrestricted reordering.
const REORDERING: u8 = 0x10;
/// DEXCPT: no informational exceptions are reported.
const DEXCPT: u8 = 0x08;
/// LBPERE: thresholds of logical block provisioning are reported (SBC-3 6.5.8).
const LBPERE: u8 = 0x80;
/// Byte of the Logical Block Provisioning page where its threshold descriptor begins (SBC-3 6.5.9).
pub(super) const THRESHOLD_DESCRIPTOR: usize = 16;
/// Of a threshold descriptor: ENABLED, soft threshold, armed for decreasing; THRESHOLD RESOURCE: available.
const ENABLED_SOFT_DECREASING: u8 = 0x80;
const AVAILABLE_RESOURCES: u8 = 0x01;
/// SPF in a page's first byte: subpage format.
const SPF: u8 = 0x40;
const PAGE_CODE: u8 = 0x3F;
const SHORT_DESCRIPTOR: usize = 8;
const LONG_DESCRIPTOR: usize = 16;
/// LONGLBA in the header of MODE SENSE(10) and MODE SELECT(10).
const LONG_LBA: u8 = 0x01;

/// What can be changed by MODE SELECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ModeValues {
    /// Sense data are in descriptor format.
    pub d_sense: bool,
}

/// Capacity and configuration as MODE SENSE reports them.
pub(super) struct ModeContext<'a> {
    pub config: &'a LuConfig,
    pub blocks: Blocks,
    pub values: ModeValues,
}

fn page(
    code: Code,
    control: PageControl,
    threshold: Option<Threshold>,
    values: ModeValues,
) -> Option<Vec<u8>> {
    let changeable = control == PageControl::Changeable;
    let mut page = match (code, threshold) {
        (CACHING, _) => vec![0; 20],
        (CONTROL | EXCEPTIONS, _) | (ERROR_RECOVERY, Some(_)) => vec![0; 12],
        (PROVISIONING, Some(_)) => vec![0; THRESHOLD_DESCRIPTOR + 8],
        _ => return None,
    };
    match (code, threshold) {
        (CONTROL, _) if changeable => page[2] = D_SENSE,
        _ if changeable => {}
        (CACHING, _) => page[2] = WCE,
        (CONTROL, _) => {
            let d_sense = values.d_sense && control == PageControl::Current;
            page[2] = GLTSD | if d_sense { D_SENSE } else { 0 };
            page[3] = REORDERING;
            page[8..10].fill(0xFF); // BUSY TIMEOUT PERIOD: unlimited
        }
        (EXCEPTIONS, _) => page[2] = DEXCPT,
        (ERROR_RECOVERY, _) => page[3] = LBPERE,
        (PROVISIONING, Some(threshold)) => {
            let descriptor = &mut page[THRESHOLD_DESCRIPTOR..];
            descriptor[0] = ENABLED_SOFT_DECREASING;
            descriptor[1] = AVAILABLE_RESOURCES;
            descriptor[4..8].copy_from_slice(&threshold.count.to_be_bytes());
        }
        _ => {}
    }
    page[0] = code.0;
    if code.1 == 0 {
        page[1] = (page.len() - 2) as u8;
    } else {
        page[0] |= SPF;
        page[1] = code.1;
        let length = (page.len() - 4) as u16;
        page[2..4].copy_from_slice(&length.to_be_bytes());
    }
    Some(page)
}

/// MODE SENSE's data, not yet cut to the allocation length.
pub(super) fn sense(request: &ModeSense, context: &ModeContext<'_>) -> Result<Vec<u8>, Sense> {
    if request.control == PageControl::Saved {
        return Err(Sense::SAVING_NOT_SUPPORTED);
    }
    let wanted = |(page, subpage): &Code| {
        (request.page == ALL_PAGES || request.page == *page)
            && (request.subpage == ALL_SUBPAGES || request.subpage == *subpage)
    };
    let of_page = |(page, _): &Code| request.page == ALL_PAGES || request.page == *page;
    if request.page == ALL_PAGES && !matches!(request.subpage, 0 | ALL_SUBPAGES) {
        return Err(Sense::invalid_cdb_field(3, None));
    }
    let threshold = context.config.threshold;
    let mut known = false;
    let mut pages = Vec::new();
    for code in PAGES.iter().filter(|code| of_page(code)) {
        let Some(bytes) = page(*code, request.control, threshold, context.values) else {
            continue;
        };
        known = true;
        if wanted(code) {
            pages.extend(bytes);
        }
    }
    if pages.is_empty() {
        return Err(match known {
            true => Sense::invalid_cdb_field(3, None),
            false => Sense::invalid_cdb_field(2, Some(5)),
        });
    }
    let descriptor = match (request.no_descriptor, request.long_lba) {
        (true, _) => Vec::new(),
        (false, false) => short_descriptor(context),
        (false, true) => long_descriptor(context),
    };
    Ok(assemble(request, context, &descriptor, &pages))
}

fn assemble(
    request: &ModeSense,
    context: &ModeContext<'_>,
    descriptor: &[u8],
    pages: &[u8],
) -> Vec<u8> {
    let specific = DPOFUA | if context.config.read_only { WP } else { 0 };
    let after = descriptor.len() + pages.len();
    let mut data = match request.form {
        // MODE DATA LENGTH does not count itself.
        ModeForm::Six => vec![(3 + after) as u8, 0, specific, descriptor.len() as u8],
        ModeForm::Ten => {
            let [high, low] = ((6 + after) as u16).to_be_bytes();
            let long = if descriptor.len() == LONG_DESCRIPTOR {
                LONG_LBA
            } else {
                0
            };
            vec![high, low, 0, specific, long, 0, 0, descriptor.len() as u8]
        }
    };
    data.extend_from_slice(descriptor);
    data.extend_from_slice(pages);
    data
}

fn short_descriptor(context: &ModeContext<'_>) -> Vec<u8> {
    let mut descriptor = saturate32(context.blocks.0).to_be_bytes().to_vec();
    // Byte 4 is reserved; the 24-bit LOGICAL BLOCK LENGTH follows.
    descriptor.extend_from_slice(&context.config.block_size.bytes().to_be_bytes());
    descriptor
}

fn long_descriptor(context: &ModeContext<'_>) -> Vec<u8> {
    let mut descriptor = context.blocks.0.to_be_bytes().to_vec();
    descriptor.extend_from_slice(&[0; 4]);
    descriptor.extend_from_slice(&context.config.block_size.bytes().to_be_bytes());
    descriptor
}

/// Checks a MODE SELECT parameter list as a whole and returns the values that it asks for.
///
/// Errors: PARAMETER LIST LENGTH ERROR where the list ends inside a header, descriptor or page; INVALID FIELD IN
/// PARAMETER LIST, with a field pointer, for whatever would change something that cannot be changed.
pub(super) fn select(
    form: ModeForm,
    list: &[u8],
    context: &ModeContext<'_>,
) -> Result<ModeValues, Sense> {
    let (header, medium_type_at) = match form {
        ModeForm::Six => (4, 1),
        ModeForm::Ten => (8, 2),
    };
    if list.len() < header {
        return Err(Sense::PARAMETER_LENGTH);
    }
    if list[medium_type_at] != 0 {
        return Err(Sense::invalid_parameter_field(medium_type_at as u16, None));
    }
    let (descriptor_length, length_at, long) = match form {
        ModeForm::Six => (usize::from(list[3]), 3, false),
        ModeForm::Ten => (be(list, 6, 2) as usize, 6, list[4] & LONG_LBA != 0),
    };
    let expected = if long {
        LONG_DESCRIPTOR
    } else {
        SHORT_DESCRIPTOR
    };
    if descriptor_length != 0 {
        if descriptor_length != expected {
            return Err(Sense::invalid_parameter_field(length_at, None));
        }
        let descriptor = list
            .get(header..header + expected)
            .ok_or(Sense::PARAMETER_LENGTH)?;
        check_descriptor(descriptor, header, long, context)?;
    }
    select_pages(list, header + descriptor_length, context)
}

/// The block descriptor may only repeat what is: the unit cannot be resized or reformatted by MODE SELECT.
fn check_descriptor(
    descriptor: &[u8],
    at: usize,
    long: bool,
    context: &ModeContext<'_>,
) -> Result<(), Sense> {
    let (blocks, most, length, length_at) = match long {
        true => (be(descriptor, 0, 8), u64::MAX, be(descriptor, 12, 4), 12),
        false => (
            be(descriptor, 0, 4),
            u64::from(u32::MAX),
            be(descriptor, 5, 3),
            5,
        ),
    };
    // 0 and all ones ask for the capacity to stay or to be the largest, which it is.
    if blocks != 0 && blocks != most && blocks != context.blocks.0 {
        return Err(Sense::invalid_parameter_field(at as u16, None));
    }
    if length != u64::from(context.config.block_size.bytes()) {
        return Err(Sense::invalid_parameter_field(
            (at + length_at) as u16,
            None,
        ));
    }
    Ok(())
}

fn select_pages(
    list: &[u8],
    mut at: usize,
    context: &ModeContext<'_>,
) -> Result<ModeValues, Sense> {
    let threshold = context.config.threshold;
    let mut values = context.values;
    while at < list.len() {
        let &[first, second, ..] = &list[at..] else {
            return Err(Sense::PARAMETER_LENGTH);
        };
        let code = match first & SPF {
            0 => (first & PAGE_CODE, 0),
            // 0 would name a page that has no subpages in the format of one that has.
            _ if second == 0 => return Err(Sense::invalid_parameter_field((at + 1) as u16, None)),
            _ => (first & PAGE_CODE, second),
        };
        let unsupported = Sense::invalid_parameter_field(at as u16, Some(5));
        let current = page(code, PageControl::Current, threshold, values).ok_or(unsupported)?;
        let mask = page(code, PageControl::Changeable, threshold, values).ok_or(unsupported)?;
        let (length, length_at, header) = match code.1 {
            0 => (usize::from(second), at + 1, 2),
            _ => (be(list, at + 2, 2) as usize, at + 2, 4),
        };
        if length + header != current.len() {
            return Err(Sense::invalid_parameter_field(length_at as u16, None));
        }
        let wanted = list
            .get(at..at + current.len())
            .ok_or(Sense::PARAMETER_LENGTH)?;
        for index in header..current.len() {
            let wrong = (wanted[index] ^ current[index]) & !mask[index];
            if wrong != 0 {
                let bit = 7 - wrong.leading_zeros() as u8;
                return Err(Sense::invalid_parameter_field(
                    (at + index) as u16,
                    Some(bit),
                ));
            }
        }
        if code == CONTROL {
            values.d_sense = wanted[2] & D_SENSE != 0;
        }
        at += current.len();
    }
    Ok(values)
}
