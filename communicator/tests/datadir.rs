//! The datadir service over directories made for the purpose.

use std::fs::{self, File};
use std::os::unix::fs::{symlink, FileExt};
use std::path::Path;

use shmuring::request::RelTag;
use shmuring_communicator::service::datadir::{
    checksum, data_checksums_enabled, list_relations, ControlFile, DataDir, DataDirOptions, SEGMENT_BLOCKS,
};
use shmuring_communicator::service::{Mutation, MutationRequest, PageService, ReadLsn, PAGE_SIZE};

const CATALOG: u32 = 202_209_061;
const MAIN: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

fn control(version: u32, checksums: u32) -> Vec<u8> {
    let mut b = vec![0u8; 8192];
    b[0..8].copy_from_slice(&7u64.to_le_bytes());
    b[8..12].copy_from_slice(&version.to_le_bytes());
    b[12..16].copy_from_slice(&CATALOG.to_le_bytes());
    b[40..48].copy_from_slice(&0x0123_4567u64.to_le_bytes());
    b[208..216].copy_from_slice(&1_234_567.0f64.to_le_bytes());
    b[216..220].copy_from_slice(&8192u32.to_le_bytes());
    b[220..224].copy_from_slice(&SEGMENT_BLOCKS.to_le_bytes());
    b[252..256].copy_from_slice(&checksums.to_le_bytes());
    let at = if version == 1800 { 292 } else { 288 };
    let crc = crc32c::crc32c(&b[..at]);
    b[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    b
}

/// A page with a right checksum.
fn page(byte: u8, block: u32) -> Vec<u8> {
    let mut p = vec![byte; PAGE_SIZE];
    let sum = checksum::compute(&p, block);
    p[8..10].copy_from_slice(&sum.to_le_bytes());
    p
}

/// Adds pages at blocks of a file; holes between them stay sparse.
fn put(root: &Path, name: &str, pages: &[(u32, Vec<u8>)], blocks: u32) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let f = File::create(path).unwrap();
    f.set_len(u64::from(blocks) * PAGE_SIZE as u64).unwrap();
    for (b, p) in pages {
        f.write_all_at(p, u64::from(*b) * PAGE_SIZE as u64).unwrap();
    }
}

fn make(checksums: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::create_dir_all(root.join("global")).unwrap();
    fs::write(root.join("global/pg_control"), control(1300, checksums)).unwrap();
    fs::write(root.join("PG_VERSION"), "15\n").unwrap();
    let last = SEGMENT_BLOCKS - 1;
    put(root, "base/5/16384", &[(0, page(1, 0)), (last, page(2, last))], SEGMENT_BLOCKS);
    put(root, "base/5/16384.1", &[(0, page(3, SEGMENT_BLOCKS))], 3);
    // Behind a segment that is not full: not counted.
    put(root, "base/5/16384.2", &[(0, page(9, 2 * SEGMENT_BLOCKS))], 1);
    put(root, "base/5/16384_fsm", &[(0, page(4, 0))], 2);
    put(root, "base/5/t3_16384", &[], 1);
    fs::write(root.join("base/5/PG_VERSION"), "15\n").unwrap();
    put(root, "global/1262", &[(0, page(5, 0))], 1);
    let space = root.join("elsewhere");
    fs::create_dir_all(root.join("pg_tblspc")).unwrap();
    fs::create_dir(&space).unwrap();
    symlink(&space, root.join("pg_tblspc/20000")).unwrap();
    put(&space, &format!("PG_15_{CATALOG}/5/20001"), &[(1, page(6, 1))], 2);
    put(root, "pg_xact/0000", &[(0, vec![0x55; PAGE_SIZE])], 2);
    put(root, "pg_multixact/offsets/00AB", &[], 32);
    put(root, "pg_multixact/members/0001", &[], 33);
    dir
}

fn open(dir: &Path) -> DataDir {
    DataDir::open(dir, &DataDirOptions::default()).unwrap()
}

fn read(d: &DataDir, rel: RelTag, block: u32, count: u32) -> Result<Vec<u8>, (i32, Option<u32>)> {
    let mut out = vec![0xEE; count as usize * PAGE_SIZE];
    d.read_pages(rel, block, count, &mut out).map_err(|e| (e.errno, e.block))?;
    Ok(out.chunks(PAGE_SIZE).map(|p| p[100]).collect())
}

#[tokio::test]
async fn segments_forks_and_tablespaces_are_found() {
    let dir = make(1);
    let d = open(dir.path());
    let size = |rel| {
        let d = d.clone();
        async move { d.rel_size(rel, ReadLsn::LATEST).await.unwrap() }
    };
    let space = RelTag { spc_oid: 20000, rel_number: 20001, ..MAIN };
    let global = RelTag { spc_oid: 1664, db_oid: 0, rel_number: 1262, fork: 0 };
    assert_eq!(size(MAIN).await, Some(SEGMENT_BLOCKS + 3));
    assert_eq!(size(RelTag { fork: 1, ..MAIN }).await, Some(2));
    assert_eq!((size(space).await, size(global).await), (Some(2), Some(1)));
    for missing in [RelTag { fork: 2, ..MAIN }, RelTag { db_oid: 6, ..MAIN }, RelTag { spc_oid: 3, ..MAIN }] {
        assert_eq!(size(missing).await, None);
        assert_eq!(read(&d, missing, 0, 1), Err((libc::ENOENT, None)));
    }
    // Across the border of two segments.
    assert_eq!(read(&d, MAIN, SEGMENT_BLOCKS - 2, 4), Ok(vec![0, 2, 3, 0]));
    assert_eq!(
        (read(&d, MAIN, 0, 1), read(&d, space, 1, 1), read(&d, global, 0, 1)),
        (Ok(vec![1]), Ok(vec![6]), Ok(vec![5]))
    );
    for past in [SEGMENT_BLOCKS + 3, 2 * SEGMENT_BLOCKS, u32::MAX - 1] {
        assert_eq!(read(&d, MAIN, past, 1), Err((libc::ENXIO, Some(past))));
    }
    assert_eq!(read(&d, MAIN, SEGMENT_BLOCKS + 2, 2), Err((libc::ENXIO, Some(SEGMENT_BLOCKS + 3))));
    let all = list_relations(dir.path()).unwrap();
    let fsm = RelTag { fork: 1, ..MAIN };
    assert_eq!(all, [(MAIN, SEGMENT_BLOCKS + 3), (fsm, 2), (global, 1), (space, 2)]);
    assert_eq!(d.relations().unwrap(), all);
    let files = u64::from(SEGMENT_BLOCKS) + 3 + 1 + 2 + 1 + 2;
    assert_eq!(d.db_size(5, ReadLsn::LATEST).await.unwrap(), files * PAGE_SIZE as u64 + 3);
    assert_eq!(d.db_size(77, ReadLsn::LATEST).await.unwrap_err().errno, libc::ENOENT);
    d.prefetch(MAIN, 0, 32).await.unwrap();
    d.prefetch(RelTag { rel_number: 1, ..MAIN }, 0, 32).await.unwrap();
}

#[tokio::test]
async fn slru_segments_are_read_and_mutations_refused() {
    let dir = make(0);
    let d = open(dir.path());
    let slru = |kind, segno| {
        let d = d.clone();
        async move { d.read_slru(kind, segno, ReadLsn::LATEST).await.map(|v| v.len()).map_err(|e| e.errno) }
    };
    assert_eq!(slru(0, 0).await, Ok(2 * PAGE_SIZE));
    assert_eq!(slru(2, 0xAB).await, Ok(32 * PAGE_SIZE));
    assert_eq!((slru(1, 1).await, slru(1, 2).await), (Err(libc::EUCLEAN), Err(libc::ENOENT)));
    assert_eq!(slru(3, 0).await, Err(libc::EINVAL));
    d.fence(1, 1).await.unwrap();
    let group = vec![MutationRequest::first(Mutation::Create { rel: MAIN, lsn: 1 }); 2];
    let got: Vec<_> = d.apply(1, 1, group.into()).await.into_iter().map(|r| r.unwrap_err().errno).collect();
    assert_eq!(got, [libc::EROFS; 2]);
    let mut out = page(0, 0);
    assert_eq!(d.get_pages(MAIN, 0, 1, ReadLsn::LATEST, &mut out).await, Ok(0x0123_4567));
    assert_eq!(d.get_pages(MAIN, 0, 1, ReadLsn::at(9), &mut out).await.unwrap_err().errno, libc::EOPNOTSUPP);
}

#[test]
fn wrong_checksums_and_partial_blocks_are_named() {
    for (checksums, answer) in [(1, Err((libc::EBADMSG, Some(7)))), (0, Ok(vec![8]))] {
        let dir = make(checksums);
        assert_eq!(data_checksums_enabled(dir.path()), Ok(checksums == 1));
        // A page of another block.
        put(dir.path(), "base/5/300", &[(7, page(8, 6))], 8);
        let file = File::options().write(true).open(dir.path().join("base/5/300")).unwrap();
        file.set_len(8 * PAGE_SIZE as u64 + 100).unwrap();
        let d = open(dir.path());
        let rel = RelTag { rel_number: 300, ..MAIN };
        assert_eq!(read(&d, rel, 7, 1), answer);
        assert_eq!(read(&d, rel, 0, 7), Ok(vec![0; 7]));
        assert_eq!(read(&d, rel, 8, 1), Err((libc::EUCLEAN, Some(8))));
        let lax = DataDirOptions { verify_checksums: false, ..DataDirOptions::default() };
        assert_eq!(read(&DataDir::open(dir.path(), &lax).unwrap(), rel, 7, 1), Ok(vec![8]));
    }
    let dir = make(1);
    put(dir.path(), "base/5/400", &[], SEGMENT_BLOCKS + 1);
    let rel = RelTag { rel_number: 400, ..MAIN };
    let mut sizes = list_relations(dir.path()).map_err(|e| e.errno);
    assert_eq!(sizes, Err(libc::EUCLEAN));
    fs::remove_file(dir.path().join("base/5/400")).unwrap();
    symlink("/etc/passwd", dir.path().join("base/5/400")).unwrap();
    assert_eq!(read(&open(dir.path()), rel, 0, 1), Err((libc::ELOOP, None)));
    sizes = list_relations(dir.path()).map_err(|e| e.errno);
    assert_eq!(sizes, Err(libc::ELOOP));
}

#[test]
fn control_files_of_each_version_are_read_and_damaged_ones_refused() {
    for version in [1300, 1700, 1800] {
        let good = control(version, 1);
        let c = ControlFile::parse(&good).unwrap();
        assert_eq!((c.system_id, c.catalog_version, c.redo, c.data_checksums), (7, CATALOG, 0x0123_4567, true));
        assert!(!ControlFile::parse(&control(version, 0)).unwrap().data_checksums);
        for i in 0..288 {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            let e = ControlFile::parse(&bad).unwrap_err().errno;
            assert_eq!(e, if (8..12).contains(&i) { libc::EPROTONOSUPPORT } else { libc::EUCLEAN }, "byte {i}");
            assert!(ControlFile::parse(&good[..i]).is_err());
        }
    }
    assert_eq!(ControlFile::parse(&control(1201, 0)).unwrap_err().errno, libc::EPROTONOSUPPORT);
    let dir = tempfile::tempdir().unwrap();
    let open = |d: &Path| DataDir::open(d, &DataDirOptions::default()).map(|_| ()).unwrap_err().errno;
    assert_eq!(open(dir.path()), libc::ENOENT);
    let dir = make(1);
    fs::write(dir.path().join("PG_VERSION"), "../..\n").unwrap();
    assert_eq!(open(dir.path()), libc::EUCLEAN);
}

#[test]
#[ignore = "reads the data directory named by SHMURING_PGDATA, of a stopped server with checksums"]
fn every_page_of_a_real_data_directory_is_right() {
    let dir = std::env::var_os("SHMURING_PGDATA").expect("SHMURING_PGDATA");
    assert_eq!(data_checksums_enabled(Path::new(&dir)), Ok(true));
    let d = open(Path::new(&dir));
    let (mut forks, mut pages) = (0, 0);
    for (rel, n) in d.relations().unwrap() {
        let mut out = vec![0; PAGE_SIZE];
        for block in 0..n {
            d.read_pages(rel, block, 1, &mut out).unwrap();
        }
        forks += 1;
        pages += n;
    }
    println!("{pages} pages of {forks} forks");
    assert!(forks > 500 && pages > 2000);
}
