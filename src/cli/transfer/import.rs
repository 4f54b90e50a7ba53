//! `atoll volume import-file`: a volume from an export or an image, or the next difference into it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::SeekFrom as Sparse;
use serde::Serialize;
use uuid::Uuid;

use crate::admin::client::Client;
use crate::api::{
    BeginImport, BlockSize, CreateVolume, DATA_UNIT, Imported, MAX_DATA, MIN_VOLUME_SIZE, Volume,
    default_pool,
};
use crate::cli::Failure;
use crate::cli::progress::{Progress, Stage};
use crate::error::{Error, ErrorKind, Result};
use crate::name::ResourceName;
use crate::transfer::decode::{Decoder, Item};
use crate::transfer::format::Header;
use crate::units::ByteSize;

use super::args::{Format, ImportFile};
use super::cleanup::Cleanup;
use super::import_target::Importer;
use super::{detect, file_error, is_standard, qemu};

/// Bytes read at a time.
const READ: usize = MAX_DATA as usize;

/// What was imported, for programs.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    imported: Imported,
    /// Bytes that were written.
    data: u64,
    resumed: bool,
}

pub fn import_file(
    client: &Client,
    args: &ImportFile,
    json: bool,
    out: &mut dyn Write,
    stage: &mut Stage<'_>,
) -> std::result::Result<(), Failure> {
    let context = format!(
        "cannot import {} into {:?}",
        args.file.display(),
        args.name.as_str()
    );
    let report = import(client, args, stage).map_err(|e| e.context(context))?;
    if json {
        let text = serde_json::to_string_pretty(&report).map_err(io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        let Report { imported, data, .. } = &report;
        let Volume { name, size, .. } = &imported.volume;
        let data = ByteSize::bytes(*data);
        let kept = imported.snapshot.as_ref();
        let kept = kept.map(|snapshot| format!(", kept as snapshot {snapshot}"));
        writeln!(
            out,
            "imported volume {name}: {size}, {data} written{}",
            kept.unwrap_or_default()
        )?;
    }
    Ok(out.flush()?)
}

fn import(client: &Client, args: &ImportFile, stage: &mut Stage<'_>) -> Result<Report> {
    let cleanup = Cleanup::watch()?;
    if is_standard(&args.file) {
        cleanup.advise(way_on(args));
        return from_standard(client, args, stage);
    }
    let failed = |e: io::Error| file_error(&args.file, &e);
    let mut file = File::open(&args.file).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_dir() && file.stream_position().is_err() {
        return Err(Error::invalid(format!("{} is a pipe", args.file.display()))
            .hint("`-` reads from stdin"));
    }
    let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let format = match args.format {
        Some(format) => format,
        None => {
            let mut prefix =
                vec![0; detect::PREFIX.min(usize::try_from(size).unwrap_or(detect::PREFIX))];
            file.read_exact(&mut prefix).map_err(failed)?;
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            check_whole_beginning(&prefix).map_err(|e| e.context(args.file.display()))?;
            detect::by_file(&file, size).map_err(failed)?
        }
    };
    match format {
        Format::Atoll => {
            cleanup.advise(way_on(args));
            stream(client, args, file, Some(size), stage)
        }
        Format::Raw => {
            cleanup.advise(way_on(args));
            image(client, args, &mut file, size, stage)
        }
        other => {
            // Before the work of converting.
            check_image(args)?;
            let raw = qemu::to_raw(&args.file, other, &cleanup, stage)
                .map_err(|e| e.context(args.file.display()))?;
            cleanup.advise(way_on(args));
            let mut file = qemu::open(&raw)?;
            let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
            image(client, args, &mut file, size, stage)
        }
    }
}

fn from_standard(client: &Client, args: &ImportFile, stage: &mut Stage<'_>) -> Result<Report> {
    let mut input = io::stdin().lock();
    let prefix = read_up_to(&mut input, detect::PREFIX)?;
    let found = match args.format {
        Some(format) => format,
        None => {
            check_whole_beginning(&prefix)?;
            detect::by_prefix(&prefix)
        }
    };
    let input = io::Cursor::new(prefix).chain(input);
    match found {
        Format::Atoll => stream(client, args, input, None, stage),
        Format::Raw => raw_stream(client, args, input, stage),
        other => Err(Error::refused(format!(
            "an image of the format {other:?} cannot be read from a pipe"
        ))
        .hint("save it to a file first; --format raw takes it as it is")),
    }
}

/// Refuses what would be taken for a raw image and is none.
fn check_whole_beginning(prefix: &[u8]) -> Result<()> {
    if prefix.is_empty() {
        return Err(Error::invalid("it is empty: there is nothing to import")
            .hint("--format raw makes a volume of zeros of it"));
    }
    if detect::is_nearly_export(prefix) {
        return Err(
            Error::invalid("it begins nearly as an export of Atoll does: it is damaged")
                .hint("take a sound copy; --format raw imports its bytes as they are"),
        );
    }
    Ok(())
}

/// Refuses what images do not have.
fn check_image(args: &ImportFile) -> Result<()> {
    if args.snapshot.is_some() || args.force {
        return Err(Error::invalid(
            "--snapshot and --force are for exports of Atoll: this is an image",
        ));
    }
    Ok(())
}

/// The volume, made unless an import into it is gone on with.
fn volume(
    client: &Client,
    args: &ImportFile,
    size: ByteSize,
    block_size: BlockSize,
) -> Result<Volume> {
    let path = format!("/v1/volumes/{}", args.name);
    if args.resume {
        match client.get(&path) {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            found => return found.and_then(|found| check_found(args, found)),
        }
    }
    let request = CreateVolume {
        name: args.name.clone(),
        size,
        pool: args.pool.clone().unwrap_or_else(default_pool),
        block_size,
        if_not_exists: false,
    };
    let made = client.post("/v1/volumes", &request);
    made.map(|made| made.value).map_err(|e| match e.kind {
        ErrorKind::AlreadyExists => {
            Error { hint: None, ..e }.hint("an import that was interrupted goes on with --resume")
        }
        _ => e,
    })
}

/// What is gone on with is what was begun.
fn check_found(args: &ImportFile, found: Volume) -> Result<Volume> {
    let other_pool = args.pool.as_ref().is_some_and(|pool| *pool != found.pool);
    let other_block = args.block_size.is_some_and(|size| size != found.block_size);
    if other_pool || other_block {
        return Err(Error::invalid(format!(
            "it is in pool {:?} and has blocks of {} bytes, asked for was something else",
            found.pool.as_str(),
            u32::from(found.block_size)
        )));
    }
    Ok(found)
}

fn way_on(args: &ImportFile) -> String {
    format!(
        "volume {0} is incomplete: go on with `atoll volume import-file {0} {1} --resume`, or delete it",
        args.name,
        args.file.display()
    )
}

/// After this point the volume is incomplete until everything has come.
fn incomplete<T>(args: &ImportFile, outcome: Result<T>) -> Result<T> {
    outcome.map_err(|e| {
        let way_out = way_on(args);
        let hint = match &e.hint {
            Some(hint) => format!("{hint}; {way_out}"),
            None => way_out,
        };
        Error { hint: None, ..e }.hint(hint)
    })
}

fn report(importer: &mut Importer<'_>, snapshot: Option<ResourceName>) -> Result<Report> {
    let imported = importer.finish(snapshot)?;
    Ok(Report {
        imported,
        data: importer.written,
        resumed: importer.resumed(),
    })
}

/// Size of a volume that holds so many bytes.
fn volume_size(args: &ImportFile, length: u64) -> Result<ByteSize> {
    let least = length
        .next_multiple_of(DATA_UNIT)
        .max(MIN_VOLUME_SIZE.get());
    match args.size {
        Some(size) if size.get() < length => Err(Error::invalid(format!(
            "the image has {length} bytes, more than --size {size}"
        ))),
        Some(size) => Ok(size),
        None => Ok(ByteSize::bytes(least)),
    }
}

fn begin_image<'a>(
    client: &'a Client,
    args: &ImportFile,
    size: ByteSize,
    fixed: bool,
) -> Result<Importer<'a>> {
    check_image(args)?;
    let volume = volume(client, args, size, args.block_size.unwrap_or_default())?;
    let request = BeginImport {
        id: volume.id,
        source: Uuid::nil(),
        base: None,
        size: fixed.then_some(size),
        resume: args.resume,
        force: false,
    };
    incomplete(args, Importer::begin(client, volume, &request))
}

/// A raw image in a file: holes are not even read.
fn image(
    client: &Client,
    args: &ImportFile,
    file: &mut File,
    length: u64,
    stage: &mut Stage<'_>,
) -> Result<Report> {
    let size = volume_size(args, length)?;
    let mut importer = begin_image(client, args, size, true)?;
    let mut progress = stage.begin(&format!("importing {}", args.name));
    let mut buffer = vec![0; READ];
    let mut copy = || -> Result<Report> {
        let mut at = 0;
        while let Some((start, end)) =
            next_data(file, at, length).map_err(|e| file_error(&args.file, &e))?
        {
            at = start;
            while at < end {
                let part = (end - at).min(READ as u64) as usize;
                read_at(file, &mut buffer[..part], at).map_err(|e| file_error(&args.file, &e))?;
                // The last part of a block is zeros.
                let whole = part.next_multiple_of(DATA_UNIT as usize);
                buffer[part..whole].fill(0);
                importer.data(at, &buffer[..whole])?;
                at += part as u64;
                progress.bytes(at, length);
            }
        }
        report(&mut importer, None)
    };
    incomplete(args, copy())
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, at)
}

/// The next range from `at` on that is no hole, in whole units.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= length {
        return Ok(None);
    }
    let start = match rustix::fs::seek(file, Sparse::Data(at)) {
        Ok(start) => start,
        // Nothing but a hole follows.
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        // A file system or device that knows no holes.
        Err(_) => return Ok(Some((at, length))),
    };
    let start = (start / DATA_UNIT * DATA_UNIT).max(at);
    if start >= length {
        return Ok(None);
    }
    let end = rustix::fs::seek(file, Sparse::Hole(start)).unwrap_or(length);
    let end = end.next_multiple_of(DATA_UNIT).min(length);
    Ok((start < end).then_some((start, end)))
}

/// A raw image that comes byte by byte: the volume grows with it, unless its size is said.
fn raw_stream(
    client: &Client,
    args: &ImportFile,
    mut input: impl Read,
    stage: &mut Stage<'_>,
) -> Result<Report> {
    let size = args.size.unwrap_or(MIN_VOLUME_SIZE);
    let mut importer = begin_image(client, args, size, args.size.is_some())?;
    let mut progress = stage.begin(&format!("importing {}", args.name));
    let mut copy = || -> Result<Report> {
        let mut at = 0;
        loop {
            let mut part = read_up_to(&mut input, READ)?;
            if part.is_empty() {
                break;
            }
            let length = part.len();
            part.resize(length.next_multiple_of(DATA_UNIT as usize), 0);
            let end = at + part.len() as u64;
            if args.size.is_none() {
                importer.grow(end)?;
            } else if end > size.get() {
                return Err(Error::invalid(format!("more comes than --size {size}")));
            }
            importer.data(at, &part)?;
            at = end;
            tell(&mut progress, at, args.size.map(ByteSize::get));
        }
        if args.size.is_none() {
            importer.resize(at.max(MIN_VOLUME_SIZE.get()))?;
        }
        report(&mut importer, None)
    };
    incomplete(args, copy())
}

/// Fewer bytes only at the end.
fn read_up_to(input: &mut impl Read, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = input.take(most as u64).read_to_end(&mut bytes);
    read.map_err(|e| file_error(Path::new("stdin"), &e))?;
    Ok(bytes)
}

/// An export: whole, it makes the volume; a difference, it is applied to one.
fn stream<'a>(
    client: &'a Client,
    args: &ImportFile,
    mut input: impl Read,
    length: Option<u64>,
    stage: &mut Stage<'_>,
) -> Result<Report> {
    if args.size.is_some() || args.block_size.is_some() {
        return Err(Error::invalid(
            "--size and --block-size are for images: an export says its own",
        ));
    }
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ];
    let mut read = 0;
    let mut importer: Option<(Importer<'a>, Header)> = None;
    let mut progress = stage.begin(&format!("importing {}", args.name));
    let mut copy = |importer: &mut Option<(Importer<'a>, Header)>| -> Result<Report> {
        let mut whole = false;
        loop {
            let count = input
                .read(&mut buffer)
                .map_err(|e| file_error(&args.file, &e))?;
            if count == 0 {
                break;
            }
            read += count as u64;
            let mut rest = &buffer[..count];
            while !rest.is_empty() {
                match decoder.take(&mut rest)? {
                    Some(Item::Header(header)) => {
                        *importer = Some(begin_stream(client, args, header)?);
                    }
                    Some(Item::End(_)) => whole = true,
                    Some(item) => put(importer, item)?,
                    None => {}
                }
            }
            tell(&mut progress, read, length);
        }
        decoder.finish()?;
        match importer {
            Some((importer, header)) if whole => {
                let snapshot = snapshot_name(args, header)?;
                report(importer, snapshot)
            }
            _ => Err(Error::internal("the export has no content")),
        }
    };
    let outcome = copy(&mut importer);
    match importer {
        Some(_) => incomplete(args, outcome),
        None => outcome,
    }
}

/// How far it is, where the end is known, else how much has come, by the GiB.
fn tell(progress: &mut Progress<'_>, done: u64, total: Option<u64>) {
    match total {
        Some(total) => progress.bytes(done, total),
        None => progress.says(&format!("{} GiB", done >> 30)),
    }
}

fn put(importer: &mut Option<(Importer<'_>, Header)>, item: Item) -> Result<()> {
    let Some((importer, _)) = importer else {
        return Ok(());
    };
    match item {
        Item::Data { offset, bytes } => importer.data(offset, &bytes),
        Item::Zeros { offset, length } => importer.zeros(offset, length),
        Item::Header(_) | Item::End(_) => Ok(()),
    }
}

fn begin_stream<'a>(
    client: &'a Client,
    args: &ImportFile,
    header: Header,
) -> Result<(Importer<'a>, Header)> {
    // Says it before anything is done.
    snapshot_name(args, &header)?;
    let volume = match &header.base {
        Some(base) => {
            client
                .get(&format!("/v1/volumes/{}", args.name))
                .map_err(|e: Error| match e.kind {
                    ErrorKind::NotFound => e.hint(format!(
                        "this is a difference to {:?}: import the whole export of that first",
                        base.name.as_str()
                    )),
                    _ => e,
                })?
        }
        None if args.force => {
            return Err(Error::invalid(
                "--force is for differences: this is a whole export",
            ));
        }
        None => volume(client, args, header.size, header.block_size)?,
    };
    let request = BeginImport {
        id: volume.id,
        source: header.id,
        base: header.base.as_ref().map(|base| base.id),
        size: Some(header.size),
        resume: args.resume,
        force: args.force,
    };
    Ok((Importer::begin(client, volume, &request)?, header))
}

/// What keeps the state for the next difference. What was exported by way of a temporary snapshot
/// has none.
fn snapshot_name(args: &ImportFile, header: &Header) -> Result<Option<ResourceName>> {
    if args.snapshot.is_some() || header.temporary {
        return Ok(args.snapshot.clone());
    }
    let name = format!("{}.{}", args.name, header.name);
    let name = name.parse().map_err(|e: Error| {
        e.context("the snapshot that keeps what is imported")
            .hint("name it with --snapshot")
    });
    name.map(Some)
}
