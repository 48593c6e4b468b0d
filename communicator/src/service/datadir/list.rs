//! Every relation fork of a data directory, and the size of a database.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use shmuring::request::RelTag;

use super::control::ControlFile;
use super::files::{Files, DEFAULT_SPACE, FORKS, GLOBAL_SPACE};
use crate::service::{Result, ServiceError};

/// Every relation fork of the data directory in `path` with its blocks, in order. Temporary relations are left out, and
/// so is what is no relation: maps, caches, version files.
pub fn list_relations(path: &Path) -> Result<Vec<(RelTag, u32)>> {
    let version_dir = ControlFile::read(path)?.version_dir(path)?;
    relations(&Files::new(path, version_dir, 16))
}

/// A number as PostgreSQL writes it into names: no sign, no leading zero.
fn number(s: &str) -> Option<u32> {
    let n: u32 = s.parse().ok()?;
    (n > 0 && s.bytes().all(|b| b.is_ascii_digit()) && !s.starts_with('0')).then_some(n)
}

/// File number and fork of a first segment's name.
fn parse(name: &str) -> Option<(u32, u8)> {
    let (digits, fork) = match name.find('_') {
        Some(i) => name.split_at(i),
        None => (name, ""),
    };
    let fork = FORKS.iter().position(|f| *f == fork)?;
    Some((number(digits)?, u8::try_from(fork).ok()?))
}

/// Names in a directory; none if it is missing.
fn names(dir: &Path) -> Result<Vec<String>> {
    let at = |e: std::io::Error| ServiceError::io_at(&e, dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(d) => d,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(at(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of PostgreSQL's.
        found.extend(entry.map_err(at)?.file_name().into_string());
    }
    Ok(found)
}

/// Every directory that holds relations: tablespace, database, path.
fn directories(files: &Files) -> Result<Vec<(u32, u32, PathBuf)>> {
    let root = files.root();
    let mut found = vec![(GLOBAL_SPACE, 0, root.join("global"))];
    let mut add = |spc: u32, dir: PathBuf| -> Result<()> {
        for db in names(&dir)?.iter().filter_map(|n| number(n)) {
            found.push((spc, db, dir.join(db.to_string())));
        }
        Ok(())
    };
    add(DEFAULT_SPACE, root.join("base"))?;
    for spc in names(&root.join("pg_tblspc"))?.iter().filter_map(|n| number(n)) {
        add(spc, root.join(format!("pg_tblspc/{spc}/{}", files.version_dir())))?;
    }
    Ok(found)
}

pub fn relations(files: &Files) -> Result<Vec<(RelTag, u32)>> {
    let mut found = Vec::new();
    for (spc_oid, db_oid, dir) in directories(files)? {
        for (rel_number, fork) in names(&dir)?.iter().filter_map(|n| parse(n)) {
            let rel = RelTag { spc_oid, db_oid, rel_number, fork };
            // Gone since the listing: a running server may drop it.
            if let Some(n) = files.size(rel)? {
                found.push((rel, n));
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Bytes of all files of a database; of the shared relations for database 0.
pub fn db_size(files: &Files, db_oid: u32) -> Result<u64> {
    let (mut total, mut there) = (0, false);
    for (_, _, dir) in directories(files)?.into_iter().filter(|(_, db, _)| *db == db_oid) {
        there = true;
        for name in names(&dir)? {
            match fs::symlink_metadata(dir.join(&name)) {
                Ok(m) if m.is_file() => total += m.len(),
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(ServiceError::io_at(&e, dir.display())),
                _ => {}
            }
        }
    }
    if there {
        Ok(total)
    } else {
        Err(ServiceError::new(libc::ENOENT, format!("database {db_oid} does not exist")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_first_segments_are_told_from_all_others() {
        assert_eq!(parse("16384"), Some((16384, 0)));
        assert_eq!(parse("16384_fsm"), Some((16384, 1)));
        assert_eq!(parse("16384_vm"), Some((16384, 2)));
        assert_eq!(parse("16384_init"), Some((16384, 3)));
        assert_eq!(parse("4294967295"), Some((u32::MAX, 0)));
        for other in [
            "",
            "0",
            "01",
            "+1",
            "16384.1",
            "16384_fsm.1",
            "t3_16384",
            "t3_16384_fsm",
            "pg_filenode.map",
            "PG_VERSION",
            "pg_internal.init",
            "pg_internal.init.77",
            "4294967296",
            "16384_",
            "16384_foo",
            "_fsm",
            "16384_vm_fsm",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
