//! `PG_VERSION` and `global/pg_control`: which server made the directory, and how.

use std::fs;
use std::path::Path;

use shmuring::request::Lsn;

use super::SEGMENT_BLOCKS;
use crate::service::{Result, ServiceError, PAGE_SIZE};

/// Offsets in pg_control; they are the same in PostgreSQL 13 to 18.
mod at {
    pub const SYSTEM_ID: usize = 0;
    pub const CONTROL_VERSION: usize = 8;
    pub const CATALOG_VERSION: usize = 12;
    pub const STATE: usize = 16;
    pub const REDO: usize = 40;
    /// 1234567.0: tells that the other offsets hold.
    pub const FLOAT: usize = 208;
    pub const BLOCK_SIZE: usize = 216;
    pub const SEGMENT_SIZE: usize = 220;
    pub const CHECKSUMS: usize = 252;
    /// Before PostgreSQL 18.
    pub const CRC: usize = 288;
    /// PostgreSQL 18 put a flag before the nonce.
    pub const CRC_18: usize = 292;
}

/// What the control file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The directory's own id.
    pub system_id: u64,
    /// Version of the control file: 1300, 1700, 1800.
    pub control_version: u32,
    /// Version of the catalogs.
    pub catalog_version: u32,
    /// What the server was doing, as of PostgreSQL's DBState: 1 and 2 are clean ends.
    pub state: u32,
    /// Redo LSN of the last checkpoint.
    pub redo: Lsn,
    /// Whether data pages have checksums.
    pub data_checksums: bool,
}

fn le32(b: &[u8], at: usize) -> Option<u32> {
    b.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn le64(b: &[u8], at: usize) -> Option<u64> {
    b.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

impl ControlFile {
    /// Reads and checks the control file of the data directory in `path`.
    ///
    /// # Errors
    /// ENOENT: no data directory; EUCLEAN: damaged; EPROTONOSUPPORT: of a server whose files are laid out otherwise.
    pub fn read(path: &Path) -> Result<Self> {
        let file = path.join("global/pg_control");
        let bytes = fs::read(&file).map_err(|e| ServiceError::io_at(&e, file.display()))?;
        Self::parse(&bytes)
    }

    /// Parses the bytes of a control file.
    pub fn parse(b: &[u8]) -> Result<Self> {
        let short = || ServiceError::corrupt("pg_control is too short");
        let control_version = le32(b, at::CONTROL_VERSION).ok_or_else(short)?;
        let crc_at = match control_version {
            1300 | 1700 => at::CRC,
            1800 => at::CRC_18,
            other => {
                let what = format!("pg_control has version {other}; PostgreSQL 13 to 18 have 1300, 1700, 1800");
                return Err(ServiceError::new(libc::EPROTONOSUPPORT, what));
            }
        };
        let crc = le32(b, crc_at).ok_or_else(short)?;
        if b.get(..crc_at).is_none_or(|b| crc32c::crc32c(b) != crc) {
            return Err(ServiceError::corrupt("pg_control does not match its checksum"));
        }
        let layout = (le64(b, at::FLOAT), le32(b, at::BLOCK_SIZE), le32(b, at::SEGMENT_SIZE));
        if layout != (Some(1_234_567.0f64.to_bits()), Some(PAGE_SIZE as u32), Some(SEGMENT_BLOCKS)) {
            let what = "the data directory has pages or segments of another size, or is of another platform";
            return Err(ServiceError::new(libc::EPROTONOSUPPORT, what));
        }
        Ok(Self {
            system_id: le64(b, at::SYSTEM_ID).ok_or_else(short)?,
            control_version,
            catalog_version: le32(b, at::CATALOG_VERSION).ok_or_else(short)?,
            state: le32(b, at::STATE).ok_or_else(short)?,
            redo: le64(b, at::REDO).ok_or_else(short)?,
            data_checksums: le32(b, at::CHECKSUMS).ok_or_else(short)? != 0,
        })
    }

    /// The directory that tablespaces have for this server, as `PG_15_202209061`.
    pub fn version_dir(&self, path: &Path) -> Result<String> {
        let file = path.join("PG_VERSION");
        let text = fs::read_to_string(&file).map_err(|e| ServiceError::io_at(&e, file.display()))?;
        let major: u32 = text
            .trim_end()
            .parse()
            .map_err(|_| ServiceError::corrupt(format!("{} holds no version", file.display())))?;
        Ok(format!("PG_{major}_{}", self.catalog_version))
    }
}

/// Whether the data pages of the directory in `path` have checksums.
pub fn data_checksums_enabled(path: &Path) -> Result<bool> {
    Ok(ControlFile::read(path)?.data_checksums)
}
