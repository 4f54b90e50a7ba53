//! Images of other formats, made raw by `qemu-img`. What they say is not trusted: one that names
//! other files, which could be any of the machine's, is refused.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::cli::progress::Stage;
use crate::error::{Error, Result};

use super::args::Format;
use super::cleanup::Cleanup;

const QEMU_IMG: &str = "qemu-img";
/// Characters of what `qemu-img` says that are repeated.
const SAID: usize = 400;

/// What `qemu-img` calls it.
fn name(format: Format) -> &'static str {
    match format {
        Format::Qcow2 => "qcow2",
        Format::Vmdk => "vmdk",
        Format::Vhdx => "vhdx",
        Format::Vdi => "vdi",
        Format::Vhd => "vpc",
        Format::Raw | Format::Atoll => "raw",
    }
}

/// A raw image with the same content, in a directory that is gone with `cleanup`.
pub fn to_raw(
    image: &Path,
    format: Format,
    cleanup: &Cleanup,
    stage: &mut Stage<'_>,
) -> Result<PathBuf> {
    // Whole, so that no part of it is taken for a protocol or an option.
    let image = std::path::absolute(image)
        .map_err(|e| Error::internal(format!("{}: {e}", image.display())))?;
    let info = run(Command::new(QEMU_IMG)
        .args(["info", "--output=json", "-f", name(format), "--"])
        .arg(&image))?;
    let info: Value = serde_json::from_slice(&info.stdout)
        .map_err(|e| Error::internal(format!("what {QEMU_IMG} says is not understood: {e}")))?;
    check_alone(&image, &info)?;
    check_sound(&image, format)?;
    let dir = tempfile::Builder::new()
        .prefix("atoll-import.")
        .tempdir()
        .map_err(|e| Error::internal(format!("a directory for the raw image: {e}")))?
        .keep();
    let raw = dir.join("image.raw");
    cleanup.add(move || drop(std::fs::remove_dir_all(dir)));
    let _shown = stage.begin(&format!("converting {}", image.display()));
    run(Command::new(QEMU_IMG)
        .args(["convert", "-f", name(format), "-O", "raw", "--"])
        .arg(&image)
        .arg(&raw))?;
    Ok(raw)
}

/// Refuses an image that consists of, or builds on, other files than those beside it that belong to
/// its format.
fn check_alone(image: &Path, info: &Value) -> Result<()> {
    let data = &info["format-specific"]["data"];
    let refers = [
        &info["backing-filename"],
        &info["full-backing-filename"],
        &data["data-file"],
    ];
    if let Some(other) = refers.iter().find_map(|name| name.as_str()) {
        return Err(
            Error::refused(format!("it builds on another file, {other:?}"))
                .hint("if you trust both: `qemu-img convert -O raw IMAGE RAW`, and import that"),
        );
    }
    let dir = image.parent().unwrap_or(Path::new("/"));
    let extents = data["extents"].as_array().map_or(&[][..], Vec::as_slice);
    for extent in extents.iter().filter_map(|e| e["filename"].as_str()) {
        let place = dir.join(extent);
        let real = |path: &Path| path.canonicalize().ok();
        let inside = real(&place).and_then(|place| place.parent().map(Path::to_owned));
        if inside.is_none() || inside != real(dir) {
            return Err(Error::refused(format!(
                "it names a file of another directory, {extent:?}"
            )));
        }
    }
    Ok(())
}

/// Refuses an image that is damaged: what is missing of one would be converted to zeros without a word.
fn check_sound(image: &Path, format: Format) -> Result<()> {
    let mut check = Command::new(QEMU_IMG);
    check
        .args(["check", "-f", name(format), "--"])
        .arg(image)
        .stdin(Stdio::null());
    let checked = check
        .output()
        .map_err(|e| Error::internal(format!("{QEMU_IMG}: {e}")))?;
    match checked.status.code() {
        // Sound, sound with lost space, or of a format that knows no check.
        Some(0 | 3 | 63) => Ok(()),
        _ => {
            let said = String::from_utf8_lossy(&checked.stderr);
            let said = said.lines().next().unwrap_or("no reason is given");
            let said: String = said.chars().take(SAID).collect();
            Err(
                Error::invalid(format!("`{QEMU_IMG} check` finds it damaged: {said}")).hint(
                    "take a sound copy; `qemu-img check -r all` repairs what can be repaired",
                ),
            )
        }
    }
}

fn run(command: &mut Command) -> Result<Output> {
    let ran = command.stdin(Stdio::null()).output();
    let output = ran.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::refused(format!(
            "{QEMU_IMG} is needed for this format, and not installed"
        ))
        .hint("Debian: `apt install qemu-utils`; or convert the image to raw elsewhere"),
        _ => Error::internal(format!("{QEMU_IMG}: {e}")),
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().replace('\n', "; ").chars().take(SAID).collect();
    Err(Error::invalid(format!("{QEMU_IMG} cannot read it: {said}")))
}

/// Opens what [`to_raw`] has made.
pub fn open(raw: &Path) -> Result<File> {
    File::open(raw).map_err(|e| super::file_error(raw, &e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn an_image_that_refers_to_other_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("a.vmdk");
        for name in ["a.vmdk", "a-flat.vmdk"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let extents = |name: &str| json!({ "format-specific": { "data": { "extents": [{ "filename": name }] } } });
        check_alone(&image, &json!({ "virtual-size": 5 })).unwrap();
        check_alone(&image, &extents("a-flat.vmdk")).unwrap();
        check_alone(&image, &extents(image.to_str().unwrap())).unwrap();
        for wrong in [
            json!({ "backing-filename": "b.qcow2" }),
            json!({ "format-specific": { "data": { "data-file": "/dev/sda" } } }),
            extents("/etc/passwd"),
            extents("../x"),
            extents("link"),
            extents("missing"),
        ] {
            let error = check_alone(&image, &wrong).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Refused, "{wrong}");
        }
    }
}
