//! Tests of the SCSI core as a server sees it.
