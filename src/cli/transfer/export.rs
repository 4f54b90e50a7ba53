//! `atoll volume export-file`: a snapshot's content, whole or as a difference, to a file or stdout.
//! A volume is exported by way of a snapshot that is taken for it.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::Serialize;
use uuid::Uuid;

use crate::admin::client::{Answered, Client};
use crate::api::{Removed, TakeSnapshot, Volume, VolumeKind};
use crate::cli::Failure;
use crate::cli::progress::Stage;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{MAX_NAME, ResourceName};
use crate::transfer::encode::Totals;
use crate::transfer::format::{Base, Header};
use crate::units::ByteSize;

use super::args::ExportFile;
use super::cleanup::Cleanup;
use super::export_copy as copy;
use super::export_target::{self, Image, Left, Plain, Standard, Stream, Target};
use super::{file_error, is_standard};

/// What the name of a temporary snapshot has behind the volume's.
const TEMPORARY: &str = ".export-";

const RESUME: &str = "--resume goes on where it ended";

/// What was exported, for programs.
#[derive(Debug, Serialize)]
struct Exported {
    name: ResourceName,
    /// The snapshot whose content it is.
    source: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<ResourceName>,
    file: String,
    /// Bytes of content, and of the file.
    data: u64,
    bytes: u64,
    resumed: bool,
    /// Nothing was missing.
    unchanged: bool,
}

/// What is read.
struct Source {
    /// Never changes: a snapshot.
    resource: Volume,
    base: Option<Volume>,
    temporary: bool,
}

impl Source {
    fn header(&self) -> Header {
        Header {
            name: self.resource.name.clone(),
            id: self.resource.id,
            size: self.resource.size,
            block_size: self.resource.block_size,
            created: self.resource.created,
            base: self.base.as_ref().map(|base| Base {
                id: base.id,
                name: base.name.clone(),
            }),
            temporary: self.temporary,
        }
    }
}

/// Why an export did not end well: ours, or the reader of stdout has gone.
type Outcome<T> = std::result::Result<T, Failure>;

pub fn export_file(
    client: &Client,
    args: &ExportFile,
    json: bool,
    out: &mut dyn Write,
    stage: &mut Stage<'_>,
) -> Outcome<()> {
    let context = format!("cannot export {:?}", args.name.as_str());
    let exported = export(client, args, out, stage).map_err(|failure| match failure {
        Failure::Verb(error) => error.context(context),
        // Half an export is none, whoever closed the pipe.
        Failure::Output(e) => file_error(Path::new("stdout"), &e).context(context),
    })?;
    let told: &mut dyn Write = if is_standard(&args.file) {
        stage.err()
    } else {
        out
    };
    if json {
        let text = serde_json::to_string_pretty(&exported).map_err(io::Error::from)?;
        writeln!(told, "{text}")?;
    } else {
        let [data, bytes] = [exported.data, exported.bytes].map(ByteSize::bytes);
        let said = if exported.unchanged {
            "unchanged, exported already:"
        } else {
            "exported"
        };
        writeln!(
            told,
            "{said} {} to {}: {data} of data in {bytes}",
            exported.name, exported.file
        )?;
    }
    Ok(told.flush()?)
}

fn export(
    client: &Client,
    args: &ExportFile,
    out: &mut dyn Write,
    stage: &mut Stage<'_>,
) -> Outcome<Exported> {
    let standard = is_standard(&args.file);
    if standard && args.resume {
        return Err(Error::invalid("what went to stdout cannot be gone on with").into());
    }
    let named: Volume = client.get(&format!("/v1/volumes/{}", args.name))?;
    let base = base_of(client, args)?;
    let cleanup = Cleanup::watch()?;
    let left = match args.resume {
        true => Some(export_target::resume(&args.file)?),
        false => None,
    };
    let resumed = matches!(left, Some(Left::Part(..)));
    let (source, target): (Source, Box<dyn Target + '_>) = match left {
        Some(Left::All(header, totals)) => {
            check_same(&header, &named, base.as_ref())?;
            drop_temporary(client, &header)?;
            return Ok(told(args, &header, totals, true, true));
        }
        Some(Left::Part(header, stream)) => {
            check_same(&header, &named, base.as_ref())?;
            let source = source_of(client, &header, &named, base)?;
            if source.temporary {
                let name = &source.resource.name;
                delete_later(&cleanup, client, name, Some(&args.file));
            }
            (source, stream)
        }
        Some(Left::Nothing(file)) => {
            let source = begin(client, &cleanup, named, base, None)?;
            let stream = Stream::begin(&source.header(), BufWriter::new(file))
                .map_err(|e| file_error(&args.file, &e))?;
            (source, Box::new(stream))
        }
        None if standard => {
            let source = begin(client, &cleanup, named, base, None)?;
            let output = Standard(BufWriter::new(out));
            let target: Box<dyn Target + '_> = match args.raw {
                true => Box::new(Plain::new(output, source.resource.size.get())),
                false => Box::new(Stream::begin(&source.header(), output)?),
            };
            (source, target)
        }
        None if args.raw => {
            let image = Image::create(&args.file, named.size.get())?;
            let partial = Image::partial(&args.file);
            cleanup.add(move || drop(std::fs::remove_file(partial)));
            let source = begin(client, &cleanup, named.clone(), base, None)?;
            if source.resource.size != named.size {
                return Err(Error::unavailable("its size has just changed")
                    .hint("try again")
                    .into());
            }
            (source, Box::new(image))
        }
        None => {
            let file = export_target::new_file(&args.file)?;
            let source = begin(client, &cleanup, named, base, Some(&args.file))
                .inspect_err(|_| drop(std::fs::remove_file(&args.file)))?;
            let stream = Stream::begin(&source.header(), BufWriter::new(file))
                .map_err(|e| file_error(&args.file, &e))?;
            (source, Box::new(stream))
        }
    };
    if !standard && !args.raw && !source.temporary {
        cleanup.advise(RESUME);
    }
    let written = copy::copy(
        client,
        &source.resource,
        source.base.as_ref(),
        target,
        stage,
    );
    let totals = written.map_err(|failure| match failure {
        Failure::Output(e) if !standard => Failure::Verb(file_error(&args.file, &e)),
        Failure::Verb(e) if !standard && !args.raw && !source.temporary => {
            Failure::Verb(or_resume(e))
        }
        other => other,
    })?;
    let header = source.header();
    let dropped = drop_temporary(client, &header);
    cleanup.forget();
    dropped?;
    Ok(told(args, &header, totals, resumed, false))
}

fn or_resume(error: Error) -> Error {
    match error.hint {
        None => error.hint(RESUME),
        Some(_) => error,
    }
}

fn told(
    args: &ExportFile,
    header: &Header,
    totals: Totals,
    resumed: bool,
    unchanged: bool,
) -> Exported {
    Exported {
        name: args.name.clone(),
        source: header.id,
        from: args.from.clone(),
        file: args.file.display().to_string(),
        data: totals.data,
        bytes: totals.written,
        resumed,
        unchanged,
    }
}

fn base_of(client: &Client, args: &ExportFile) -> Result<Option<Volume>> {
    let Some(name) = &args.from else {
        return Ok(None);
    };
    let base: Volume = client.get(&format!("/v1/volumes/{name}"))?;
    match base.kind {
        VolumeKind::Snapshot => Ok(Some(base)),
        VolumeKind::Volume => Err(Error::refused(format!(
            "{:?} is a volume: a difference builds on a snapshot, which never changes",
            name.as_str()
        ))),
    }
}

/// What is there must be the beginning of what is asked for.
fn check_same(header: &Header, named: &Volume, base: Option<&Volume>) -> Result<()> {
    let of_volume = || {
        let (volume, _) = header.name.as_str().rsplit_once(TEMPORARY)?;
        named.name.as_str().starts_with(volume).then_some(())
    };
    let same_source = header.id == named.id || (header.temporary && of_volume().is_some());
    let same_base = header.base.as_ref().map(|base| base.id) == base.map(|base| base.id);
    if same_source && same_base {
        return Ok(());
    }
    let from = header
        .base
        .as_ref()
        .map(|base| format!(" since {:?}", base.name.as_str()));
    Err(Error::refused(format!(
        "the file holds the export of {:?}{} ({}), which is not what is asked for",
        header.name.as_str(),
        from.unwrap_or_default(),
        header.id
    )))
}

/// What an interrupted export was reading.
fn source_of(
    client: &Client,
    header: &Header,
    named: &Volume,
    base: Option<Volume>,
) -> Result<Source> {
    if !header.temporary {
        return Ok(Source {
            resource: named.clone(),
            base,
            temporary: false,
        });
    }
    let found = client.get::<Volume>(&format!("/v1/volumes/{}", header.name));
    let gone = || {
        Error::refused("the temporary snapshot that it was made from is not there any more")
            .hint("delete the file and export again; what is exported from a snapshot can always be gone on with")
    };
    match found {
        Ok(resource) if resource.id == header.id => Ok(Source {
            resource,
            base,
            temporary: true,
        }),
        Ok(_) => Err(gone()),
        Err(error) if error.kind == ErrorKind::NotFound => Err(gone()),
        Err(error) => Err(error),
    }
}

/// The snapshot itself, or one that is taken of the volume now.
fn begin(
    client: &Client,
    cleanup: &Cleanup,
    named: Volume,
    base: Option<Volume>,
    file: Option<&Path>,
) -> Result<Source> {
    if named.kind == VolumeKind::Snapshot {
        return Ok(Source {
            resource: named,
            base,
            temporary: false,
        });
    }
    let name = temporary_name(&named.name)?;
    let request = TakeSnapshot {
        snapshot: name,
        if_not_exists: false,
    };
    delete_later(cleanup, client, &request.snapshot, file);
    let Answered { value, .. } =
        client.post::<Volume>(&format!("/v1/volumes/{}/snapshot", named.name), &request)?;
    Ok(Source {
        resource: value,
        base,
        temporary: true,
    })
}

fn temporary_name(volume: &ResourceName) -> Result<ResourceName> {
    let suffix = format!("{TEMPORARY}{}", &Uuid::new_v4().simple().to_string()[..8]);
    // All of it is ASCII.
    let kept = volume.as_str().len().min(MAX_NAME - suffix.len());
    format!("{}{suffix}", &volume.as_str()[..kept]).parse()
}

/// However the export ends, the snapshot is deleted, and what was written of it, which could not be
/// gone on with; if the daemon cannot be asked any more both stay.
fn delete_later(cleanup: &Cleanup, client: &Client, snapshot: &ResourceName, file: Option<&Path>) {
    let (client, name) = (client.clone(), snapshot.clone());
    let file = file.map(Path::to_owned);
    cleanup.add(move || {
        match client.delete::<Removed>(&format!("/v1/volumes/{name}?if_exists=true")) {
            Ok(_) => {
                if let Some(file) = file {
                    let _ = std::fs::remove_file(file);
                }
            }
            Err(error) => eprintln!(
                "the temporary snapshot {name} is left behind ({error}): --resume goes on with it, `atoll volume delete {name}` deletes it"
            ),
        }
    });
}

fn drop_temporary(client: &Client, header: &Header) -> Result<()> {
    if !header.temporary {
        return Ok(());
    }
    let path = format!("/v1/volumes/{}?if_exists=true", header.name);
    client
        .delete::<Removed>(&path)
        .map(drop)
        .map_err(|e| e.context("it is exported, but its temporary snapshot is left behind"))
}
