//! The SCSI protocol core (SPC-4, SBC-3): CDBs in, actions, data and sense out. Knows nothing of iSCSI.
