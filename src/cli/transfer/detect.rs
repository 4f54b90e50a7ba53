//! What a file holds, by its first bytes and its last ones.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::args::Format;

/// Bytes at the beginning that are looked at.
pub const PREFIX: usize = 512;
/// The footer of a VHD: all there is of one of a fixed size.
const VHD_FOOTER: u64 = 512;
const VHD: &[u8] = b"conectix";
const VMDK_DESCRIPTOR: &[u8] = b"# Disk DescriptorFile";

/// Anything that is nothing else is a raw image.
pub fn by_prefix(prefix: &[u8]) -> Format {
    let begins = |magic: &[u8]| prefix.starts_with(magic);
    if begins(crate::transfer::format::MAGIC) {
        Format::Atoll
    } else if begins(b"QFI\xfb") {
        Format::Qcow2
    } else if begins(b"KDMV") || begins(b"COWD") || begins(VMDK_DESCRIPTOR) {
        Format::Vmdk
    } else if begins(b"vhdxfile") {
        Format::Vhdx
    } else if begins(VHD) {
        Format::Vhd
    } else if prefix.get(64..68) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        Format::Vdi
    } else {
        Format::Raw
    }
}

/// True if it begins nearly as an export does: a damaged one would be taken for a raw image.
pub fn is_nearly_export(prefix: &[u8]) -> bool {
    let magic = crate::transfer::format::MAGIC;
    let alike = prefix.iter().zip(magic).filter(|(a, b)| a == b).count();
    alike < magic.len() && alike > magic.len() / 2
}

/// Of a file that can be read anywhere.
pub fn by_file(file: &File, size: u64) -> io::Result<Format> {
    let mut prefix = vec![0; PREFIX.min(usize::try_from(size).unwrap_or(PREFIX))];
    file.read_exact_at(&mut prefix, 0)?;
    let format = by_prefix(&prefix);
    if format == Format::Raw && size >= VHD_FOOTER {
        let mut footer = [0; VHD.len()];
        file.read_exact_at(&mut footer, size - VHD_FOOTER)?;
        if footer == VHD {
            return Ok(Format::Vhd);
        }
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_export_is_not_taken_for_anything_else() {
        assert!(is_nearly_export(b"ATOLLEXQ\x01\0\0"));
        assert!(is_nearly_export(b"@TOLLEXP\x01\0\0"));
        assert!(is_nearly_export(b"ATOLLE"));
        assert!(!is_nearly_export(b"ATOLLEXP\x01\0\0"));
        assert!(!is_nearly_export(&[0; 512]));
        assert!(!is_nearly_export(b""));
    }

    #[test]
    fn formats_are_told_by_their_magic_and_anything_else_is_raw() {
        let mut vdi = vec![0; 512];
        vdi[64..68].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        for (bytes, format) in [
            (&b"ATOLLEXP\x01"[..], Format::Atoll),
            (b"QFI\xfb\0\0\0\x03", Format::Qcow2),
            (b"KDMV", Format::Vmdk),
            (b"# Disk DescriptorFile\nversion=1", Format::Vmdk),
            (b"vhdxfile", Format::Vhdx),
            (b"conectix", Format::Vhd),
            (&vdi, Format::Vdi),
            (b"", Format::Raw),
            (&[0; 512], Format::Raw),
            (b"QFI", Format::Raw),
        ] {
            assert_eq!(by_prefix(bytes), format, "{bytes:?}");
        }
    }

    #[test]
    fn a_fixed_vhd_is_told_by_its_footer() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        assert_eq!(by_file(&file, 1 << 20).unwrap(), Format::Raw);
        file.write_all_at(VHD, (1 << 20) - 512).unwrap();
        assert_eq!(by_file(&file, 1 << 20).unwrap(), Format::Vhd);
        assert_eq!(
            by_file(&tempfile::tempfile().unwrap(), 0).unwrap(),
            Format::Raw
        );
    }
}
