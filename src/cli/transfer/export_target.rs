//! Where an export goes: a stream to a file or to stdout, a file that is gone on with, a plain
//! image.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::transfer::decode::{Decoder, Item};
use crate::transfer::encode::{Encoder, Totals};
use crate::transfer::format::{Header, MAX_HEADER, MAX_PAYLOAD};

use super::file_error;

/// Bytes read of a file at a time.
const READ: usize = 1 << 20;
/// Zeros that are written to stdout where an image has a hole.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Takes the content of a resource, in ascending order.
pub trait Target {
    /// Where the content begins that is still missing.
    fn at(&self) -> u64;
    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads as zeros now; of differences only.
    fn zeros(&mut self, offset: u64, length: u64) -> io::Result<()>;
    /// Everything has come: makes it durable.
    fn end(self: Box<Self>) -> io::Result<Totals>;
}

/// What the bytes of a stream are written to.
pub trait Output: Write {
    fn sync(&mut self) -> io::Result<()>;
}

impl Output for BufWriter<File> {
    fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.get_ref().sync_all()
    }
}

/// Stdout, which nobody can sync.
pub struct Standard<'a>(pub BufWriter<&'a mut dyn Write>);

impl Write for Standard<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Output for Standard<'_> {
    fn sync(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A stream.
pub struct Stream<O> {
    encoder: Encoder,
    output: O,
}

impl<O: Output> Stream<O> {
    pub fn begin(header: &Header, mut output: O) -> io::Result<Self> {
        let (encoder, bytes) = Encoder::new(header);
        output.write_all(&bytes)?;
        Ok(Self { encoder, output })
    }
}

impl<O: Output> Target for Stream<O> {
    fn at(&self) -> u64 {
        self.encoder.at()
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (n, part) in bytes.chunks(MAX_PAYLOAD).enumerate() {
            let offset = offset + (n * MAX_PAYLOAD) as u64;
            let head = self.encoder.data(offset, part);
            self.output.write_all(&head)?;
            self.output.write_all(part)?;
        }
        Ok(())
    }

    fn zeros(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let head = self.encoder.zeros(offset, length);
        self.output.write_all(&head)
    }

    fn end(mut self: Box<Self>) -> io::Result<Totals> {
        let (bytes, totals) = self.encoder.end();
        self.output.write_all(&bytes)?;
        self.output.sync()?;
        Ok(totals)
    }
}

/// A file that is not there yet.
pub fn new_file(file: &Path) -> Result<File> {
    let made = File::options().write(true).create_new(true).open(file);
    made.map_err(|e| {
        let error = file_error(file, &e);
        match error.kind {
            ErrorKind::AlreadyExists => Error::new(
                error.kind,
                format!("{}: it is there already", file.display()),
            )
            .hint("name another file; --resume goes on with an export that was interrupted"),
            _ => error,
        }
    })
}

/// A stream that was interrupted, as far as it is whole.
pub enum Left {
    /// Not even its header.
    Nothing(File),
    Part(Header, Box<Stream<BufWriter<File>>>),
    /// Nothing is missing.
    All(Header, Totals),
}

/// Reads all of a file that an export was written to, and cuts off what is not whole.
pub fn resume(file: &Path) -> Result<Left> {
    let failed = |e: io::Error| file_error(file, &e);
    let mut opened = File::options()
        .read(true)
        .write(true)
        .open(file)
        .map_err(failed)?;
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ];
    let mut header = None;
    let mut read = 0;
    let mut why = None;
    'file: loop {
        let count = opened.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        read += count;
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match decoder.take(&mut rest) {
                Ok(Some(Item::Header(found))) => header = Some(found),
                Ok(Some(Item::End(totals))) => {
                    let more = !rest.is_empty() || opened.read(&mut buffer).map_err(failed)? > 0;
                    return match header {
                        Some(header) if !more => Ok(Left::All(header, totals)),
                        _ => Err(Error::refused(format!(
                            "{}: bytes follow the end of the export",
                            file.display()
                        ))),
                    };
                }
                Ok(_) => {}
                // What a crash left behind the last record that was written as a whole.
                Err(damage) => {
                    why = Some(damage);
                    break 'file;
                }
            }
        }
    }
    let (Some(header), Some(encoder)) = (header, decoder.into_encoder()) else {
        // A header that was not written as a whole; anything else is somebody's file.
        if read == 0 || (read < MAX_HEADER && why.is_none()) {
            opened.set_len(0).map_err(failed)?;
            opened.seek(SeekFrom::Start(0)).map_err(failed)?;
            return Ok(Left::Nothing(opened));
        }
        let why = why.map_or_else(|| "it is no export".to_owned(), |why| why.to_string());
        return Err(Error::refused(format!("{}: {why}", file.display()))
            .hint("only what an export has begun can be gone on with"));
    };
    let whole = encoder.totals().written;
    opened.set_len(whole).map_err(failed)?;
    opened.seek(SeekFrom::Start(whole)).map_err(failed)?;
    let output = BufWriter::new(opened);
    Ok(Left::Part(header, Box::new(Stream { encoder, output })))
}

/// A plain image in a file: nothing is written where nothing is stored.
pub struct Image {
    file: File,
    partial: PathBuf,
    whole: PathBuf,
    totals: Totals,
}

impl Image {
    /// Where it is written until it is whole.
    pub fn partial(file: &Path) -> PathBuf {
        let mut name = file.as_os_str().to_owned();
        name.push(".partial");
        name.into()
    }

    pub fn create(whole: &Path, size: u64) -> Result<Self> {
        // An image that is there is not replaced at the end.
        if whole.symlink_metadata().is_ok() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("{}: it is there already", whole.display()),
            )
            .hint("name another file"));
        }
        let partial = Self::partial(whole);
        let file = new_file(&partial).map_err(|e| Error { hint: None, ..e })?;
        file.set_len(size).map_err(|e| {
            let _ = std::fs::remove_file(&partial);
            file_error(&partial, &e)
        })?;
        Ok(Self {
            file,
            partial,
            whole: whole.to_owned(),
            totals: Totals::default(),
        })
    }
}

impl Target for Image {
    fn at(&self) -> u64 {
        0
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.totals.data += bytes.len() as u64;
        self.file.write_all_at(bytes, offset)
    }

    fn zeros(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn end(self: Box<Self>) -> io::Result<Totals> {
        self.file.sync_all()?;
        // Does not replace a file that came meanwhile, as a rename would; not every file system has it.
        match std::fs::hard_link(&self.partial, &self.whole) {
            Ok(()) => std::fs::remove_file(&self.partial)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
            Err(_) => std::fs::rename(&self.partial, &self.whole)?,
        }
        let written = self.file.metadata()?.len();
        Ok(Totals {
            written,
            ..self.totals
        })
    }
}

/// A plain image to stdout, holes and all.
pub struct Plain<'a> {
    output: Standard<'a>,
    size: u64,
    totals: Totals,
}

impl<'a> Plain<'a> {
    pub fn new(output: Standard<'a>, size: u64) -> Self {
        Self {
            output,
            size,
            totals: Totals::default(),
        }
    }

    fn fill(&mut self, end: u64) -> io::Result<()> {
        while self.totals.written < end {
            let missing = end - self.totals.written;
            let part = missing.min(ZEROS.len() as u64);
            // At most as much as there are.
            self.output.write_all(&ZEROS[..part as usize])?;
            self.totals.written += part;
        }
        Ok(())
    }
}

impl Target for Plain<'_> {
    fn at(&self) -> u64 {
        0
    }

    fn data(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.fill(offset)?;
        self.output.write_all(bytes)?;
        self.totals.written += bytes.len() as u64;
        self.totals.data += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn end(mut self: Box<Self>) -> io::Result<Totals> {
        self.fill(self.size)?;
        self.output.sync()?;
        Ok(self.totals)
    }
}
